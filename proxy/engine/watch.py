"""Keeps what is believed about ComfyUI's queue equal to what it is.

Events tell most of it, but not all: a prompt without events can end, somebody can delete ours or submit their own, a
connection can drop. ComfyUI broadcasts `status` at every change of its queue, so each of those is the occasion for one
look. What was believed is noted before the look, and only what was believed then and still is counts as missing.

A ComfyUI that has crashed and is there again has nothing of ours either, and may answer before the loss of the old one
is noticed. So nothing is taken for removed unless the socket that stood before the look still answers after it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from proxy.core import events as ev
from proxy.core.events import Outcome
from proxy.core.jobs import State
from proxy.engine.holding import Holding
from proxy.engine.records import Record, Records, Rerun
from proxy.engine.recovery import Queue, read_history_entry, read_queue
from proxy.engine.visible import Visible
from proxy.errors import UpstreamError
from proxy.tasks import Tasks
from proxy.upstream.client import UpstreamClient

log = logging.getLogger(__name__)

AGAIN = 1.0
"""Seconds until a look that failed is repeated."""
_CONFIRMED = frozenset({State.STAGED, State.RUNNING, State.INTERRUPTING})


class Watch:
    """Looks into ComfyUI's queue when something may have changed unseen."""

    def __init__(  # noqa: PLR0913 - the parts of the engine that are needed
        self,
        client: UpstreamClient,
        visible: Visible,
        records: Records,
        tasks: Tasks,
        *,
        ended: Callable[[Record, Outcome], None],
        gone: Callable[[Record], None],
        witness: Callable[[], Callable[[], Awaitable[bool]]],
        foreign: Callable[[str], None],
        up: Callable[[], bool],
    ) -> None:
        """`ended` is told of a prompt that ended without an event, `gone` of one that ComfyUI no longer has at all.

        `witness` is asked before a look; what it gives tells afterwards whether ComfyUI has been the same process.
        `foreign` is told once of each prompt that runs and did not come through here. `up` is whether ComfyUI's socket
        answers: while it does not, nobody looks; its return is a reason of its own to.
        """
        self.holding: Holding | None = None
        self._client = client
        self._visible = visible
        self._records = records
        self._tasks = tasks
        self._ended = ended
        self._gone = gone
        self._witness = witness
        self._looking = False
        self._again = False
        self._foreign_runs = foreign
        self._up = up
        self._foreign: set[str] = set()
        self._foreign_running: frozenset[str] = frozenset()

    def changed(self, remaining: int) -> None:
        """ComfyUI's queue has changed; it holds `remaining` prompts."""
        explained = self._records.acknowledged <= remaining <= self._records.open
        if self.holding is None and explained and not self._visible.strange:
            return  # nothing can be missing, and none can be foreign
        if self._looking:
            self._again = True
            return
        self._looking = True
        self._tasks.spawn(self._look_until_settled(), "look into ComfyUI's queue")

    async def _look_until_settled(self) -> None:
        try:
            self._again = True
            while self._again:
                self._again = False
                await self._look_if_it_answers()
        finally:
            self._looking = False

    async def _look_if_it_answers(self) -> None:
        """As `look`; one that fails is repeated, for nothing else may happen at ComfyUI that would be a reason to."""
        try:
            await self.look()
        except UpstreamError as error:
            log.debug("%s", error)
            if self._up():
                await asyncio.sleep(AGAIN)
                self._again = True

    async def look(self) -> Queue:
        """Compare once.

        Raises:
            UpstreamError: when ComfyUI does not answer.
        """
        suspects = [(record, record.rerun) for record in self._records.unfinished() if record.acknowledged]
        believed = {prompt_id: (sent_at, self._rerun(prompt_id)) for prompt_id, sent_at in self._believed().items()}
        same = self._witness()
        queue = await read_queue(self._client)
        for record, rerun in suspects:
            if record.prompt_id not in queue.ids and record.timeline.outcome is None and _at_rest(record, rerun):
                await self._settle(record)
        self._look_for_foreign(queue)
        if self.holding is not None:
            self._tell_of_foreign(self.holding, queue)
            for prompt_id, (sent_at, rerun) in believed.items():
                known = self._records.get(prompt_id)
                if prompt_id not in queue.ids and (known is None or _at_rest(known, rerun)):
                    await self._settle_held(self.holding, prompt_id, sent_at, same)
        await self._visible.look(queue)
        return queue

    def _believed(self) -> dict[str, float | None]:
        """The held prompts that ComfyUI is thought to have, with the moment each was sent."""
        if self.holding is None:
            return {}
        jobs = self.holding.scheduler.context.ledger.at_comfyui()
        return {job.prompt_id: job.sent_at for job in jobs if job.state in _CONFIRMED}

    def _rerun(self, prompt_id: str) -> Rerun | None:
        record = self._records.get(prompt_id)
        return None if record is None else record.rerun

    async def _settle(self, record: Record) -> None:
        if self.holding is not None and self.holding.get(record.prompt_id) is not None:
            return
        entry = await read_history_entry(self._client, record.prompt_id)
        if record.timeline.outcome is None:
            if entry is None:
                if not record.handling.hidden:
                    log.warning("prompt %s: ComfyUI has it no more, and its history does not", record.prompt_id)
                self._gone(record)
            else:
                self._ended(record, entry.outcome)

    async def _settle_held(
        self, holding: Holding, prompt_id: str, sent_at: float | None, same: Callable[[], Awaitable[bool]]
    ) -> None:
        entry = await read_history_entry(self._client, prompt_id)
        if entry is None and not await same():
            return  # it is lost, not removed; that is settled when ComfyUI's return is noticed
        job = holding.job(prompt_id)
        if job is None or job.state not in _CONFIRMED or job.sent_at != sent_at:
            return
        if entry is None:
            holding.tell(ev.Located(prompt_id, ev.Where.ABSENT))
            return
        if (held := holding.get(prompt_id)) is not None:
            held.chronicle.remember(entry.restored)
        if (record := self._records.get(prompt_id)) is not None and record.timeline.outcome is None:
            self._ended(record, entry.outcome)
        else:
            holding.tell(ev.Finished(prompt_id, entry.outcome))

    def _is_warmup(self, prompt_id: str) -> bool:
        """Clients' prompts need not wait for those: they go out of the way."""
        record = self._records.get(prompt_id)
        return record is not None and record.handling.hidden

    def _look_for_foreign(self, queue: Queue) -> None:
        running = frozenset(item[1] for item in queue.running if self._records.get(item[1]) is None)
        for prompt_id in running - self._foreign_running:
            self._foreign_runs(prompt_id)
        self._foreign_running = running

    def _tell_of_foreign(self, holding: Holding, queue: Queue) -> None:
        running = {item[1] for item in queue.running}
        present = {item for item in queue.ids if holding.get(item) is None and not self._is_warmup(item)}
        for prompt_id in self._foreign - present:
            holding.tell(ev.ForeignGone(prompt_id))
        for prompt_id in present:
            holding.tell(ev.ForeignSeen(prompt_id, prompt_id in running))
        self._foreign = present


def _at_rest(record: Record, rerun: Rerun | None) -> bool:
    """Whether it was at ComfyUI all the while, and is not just being sent there again; `rerun` is as it was before."""
    return record.rerun is rerun and (rerun is None or rerun.accepted)
