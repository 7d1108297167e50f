"""The journal's copy of the history: how held prompts ended, in the client's terms.

ComfyUI's own history dies with its process, so an entry is written with each end, out of what the events have told
(`chronicle`), and replaced by a copy of ComfyUI's own as soon as that is there: the events of a run's end come before
it, the closing `executing` after it. Entries of prompts that ended here are written by `endings`.
"""

import asyncio
import json
import logging
import math
from collections.abc import Callable, Container, Sequence
from typing import Any

from proxy.core.commands import Code
from proxy.core.jobs import HELD
from proxy.engine.held import Held
from proxy.engine.recovery import read_history_entry
from proxy.errors import ComfykeepError, UpstreamError
from proxy.journal import Journal
from proxy.journal_records import Recovered, Update
from proxy.tasks import Tasks
from proxy.upstream.client import UpstreamClient

log = logging.getLogger(__name__)


class History:
    """What the journal has of it.

    Attributes:
        last_ended: the prompt that ended last and must be in the history of the ComfyUI that ran it.
    """

    def __init__(self, client: UpstreamClient, journal: Journal, tasks: Tasks, missed: Callable[[Held], None]) -> None:
        """`missed` is told of a prompt whose end its client cannot have heard."""
        self.last_ended: str | None = None
        self._client = client
        self._journal = journal
        self._tasks = tasks
        self._missed = missed
        self._ending: dict[str, Held] = {}
        self._witness: str | None = None
        self._looked_into = False

    # -- ends ----------------------------------------------------------------------------------------------------

    def ending(self, held: Held) -> None:
        """An event has told of its end; the entry comes a moment later."""
        self._ending[held.prompt_id] = held

    def closed(self, prompt_id: str) -> None:
        """Its last event has come: only now is it in ComfyUI's history (main.py, `prompt_worker`)."""
        held = self._ending.pop(prompt_id, None)
        if held is not None:
            self._keep(held)

    def ran(self, held: Held) -> None:
        """It has ended as ComfyUI tells it, by its events or by ComfyUI's history."""
        if held.prompt_id not in self._ending:
            self._missed(held)

    def catch_up(self) -> None:
        """The last events of some may have been missed."""
        while self._ending:
            self._keep(self._ending.popitem()[1])

    def resume(self, recovered: Recovered) -> None:
        """What an earlier process of the proxy has written down.

        That may have ended between ComfyUI's return and its look into it. Only what ended before the start of a prompt
        that ComfyUI may still have is sure to have ended in the process that ran that one, or in an earlier one.
        """
        done = [item for item in recovered.finished if item.outcome == Code.DONE]
        begun = [record.started for record in recovered.unfinished if record.started and record.state not in HELD]
        earlier = [item for item in done if item.finished <= min(begun, default=math.inf)]
        self.last_ended = done[-1].prompt_id if done else None
        self._witness = earlier[-1].prompt_id if earlier else None

    def lost(self) -> None:
        """ComfyUI has gone. What ends before it is looked into again may have come to the next process, no witness."""
        if self._looked_into:
            self._witness = self.last_ended
        self._looked_into = False

    def looked_into(self) -> None:
        """It is settled which of the prompts sent ComfyUI has; what ends from now on, ends in this process."""
        self._looked_into = True

    async def is_new_process(self) -> bool:
        """Whether ComfyUI has forgotten what it knew: its history has lost the prompt that ended last before it went.

        As long as it has that one, others that it lacks were deleted. Where none has ended, that it has nothing of what
        it was sent is all the evidence there can be.

        Raises:
            UpstreamError: when it does not answer.
        """
        return self._witness is None or await read_history_entry(self._client, self._witness) is None

    def _keep(self, held: Held) -> None:
        self._tasks.spawn(self._copy(held), "keep a history entry")

    async def _copy(self, held: Held) -> None:
        try:
            entry = await read_history_entry(self._client, held.prompt_id)
        except UpstreamError as error:
            log.info("the history of prompt %s is not to be had: %s", held.prompt_id, error)
            return
        if entry is not None and held.written is not None:
            self._journal.update(Update(prompt_id=held.prompt_id, history=json.dumps(entry.restored).encode()))

    async def forget(self, count: int, since: float) -> None:
        """Forget what ended before `since` (Unix seconds), and all but the newest `count`."""
        try:
            forgotten = await self._journal.retain(count, since)
        except ComfykeepError as error:
            log.warning("ended prompts cannot be forgotten now: %s", error.message)
            return
        if forgotten:
            log.info("%d prompts that ended long ago are forgotten", forgotten)

    # -- for clients ---------------------------------------------------------------------------------------------

    async def besides(self, known: Container[str]) -> dict[str, Any]:
        """Every entry but those of some prompts, oldest first; read in a thread, for there may be many."""
        items = [item for item in await self._journal.history() if item.prompt_id not in known]
        return await asyncio.to_thread(lambda: {item.prompt_id: json.loads(item.entry) for item in items})

    async def entry(self, prompt_id: str) -> Any:
        """The entry of one prompt; None where the journal has none."""
        item = await self._journal.history_entry(prompt_id)
        return None if item is None else json.loads(item.entry)

    async def delete(self, prompt_ids: Sequence[str] | None) -> None:
        """A client deleted these prompts, or all (None), from the history.

        Raises:
            JournalUnwritable: when that cannot be written now.
        """
        self.last_ended = None  # what is missing in ComfyUI's history says nothing any more
        if prompt_ids is None:
            await self._journal.clear()
        else:
            await self._journal.delete(prompt_ids)
