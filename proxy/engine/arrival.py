"""What is asked of a ComfyUI that has just come up: what it still has of what it was sent, and what it is.

It may be new, or it may have been there all the time and only the proxy is new. Either way nothing is believed before
it has been read, and a ComfyUI that is still loading its nodes is asked until it answers.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

from proxy.engine.comfy import Upstream
from proxy.engine.queue import HeldQueue
from proxy.engine.records import Records
from proxy.engine.recovery import (
    left_behind,
    parked,
    read_history_entry,
    read_queue,
    read_recent,
    recovered,
    take_out,
)
from proxy.engine.warming import Warming
from proxy.engine.watch import Watch
from proxy.errors import UpstreamError
from proxy.tasks import Tasks
from proxy.upstream.feed import OWN_PREFIX, Feed

log = logging.getLogger(__name__)

PATIENCE = 2.0
"""Seconds for which what waits is not sent to a ComfyUI that does not say what it is."""
AGAIN = 1.0
"""Seconds until a ComfyUI that has come up, but does not answer all questions yet, is asked again."""


class Arrival:
    """Takes stock each time a ComfyUI comes up. To be used by the engine alone."""

    def __init__(  # noqa: PLR0913 - the parts of the engine that are needed
        self,
        upstream: Upstream,
        records: Records,
        feed: Feed,
        watch: Watch,
        warming: Warming,
        tasks: Tasks,
        *,
        held: Callable[[], HeldQueue | None],
        left_behind: dict[str, float],
        clock: Callable[[], float],
        learned: Callable[[], None],
        queue_read: Callable[[Iterable[object]], None],
    ) -> None:
        """`left_behind` is filled with the prompts that ComfyUI was sent.

        `queue_read` is told the ids of what runs, as soon as that is known, and `learned` called when all is.
        """
        self._upstream = upstream
        self._records = records
        self._feed = feed
        self._watch = watch
        self._warming = warming
        self._tasks = tasks
        self._held = held
        self._left_behind = left_behind
        self._clock = clock
        self._learned = learned
        self._queue_read = queue_read
        self._task: asyncio.Task[None] | None = None
        self._had: frozenset[str] = frozenset()
        """What the ComfyUI that was lost last ran then, and the prompt that had ended there last."""

    def begin(self, *, restarted: bool) -> None:
        """Take stock from now on; `restarted` says that another ComfyUI was there before."""
        self.end()
        self._task = self._tasks.spawn(self._take_stock(restarted=restarted), "read what ComfyUI is")

    def end(self) -> None:
        """It is not asked any more; what was found may not hold any more."""
        if self._task is not None:
            self._task.cancel()

    def lost(self) -> None:
        """It has gone."""
        self.end()
        last = self._records.last_finished
        ran = {record.prompt_id for record in self._records.unfinished() if record.timeline.started_at is not None}
        self._had = frozenset(ran if last is None else {*ran, last})

    async def _take_stock(self, *, restarted: bool) -> None:
        fresh = False
        # First, so that what is sent from now on can carry pins; but what waits does not wait for it for long.
        with suppress(UpstreamError, TimeoutError):
            async with asyncio.timeout(PATIENCE):
                fresh = restarted and not await self._lives_on()
                await self._upstream.meet(self._clock(), fresh=fresh)
        await _insist(self._settle)
        if restarted:
            self._feed.upstream_restarted()
        await _insist(lambda: self._upstream.meet(self._clock(), fresh=fresh))
        await self._upstream.learn(self._clock())
        self._learned()

    async def _lives_on(self) -> bool:
        """Whether ComfyUI is the process that it was, so that only the connection broke: it knows what it did before.

        Raises:
            UpstreamError: when it went away again.
        """
        queue = await read_queue(self._upstream.client)
        for prompt_id in self._had:
            if prompt_id in queue.ids or await read_history_entry(self._upstream.client, prompt_id) is not None:
                return True
        return False

    async def _settle(self) -> None:
        """Find out what has become of the prompts that it was sent."""
        held = self._held()
        if held is not None:
            await held.settled()
        queue = await read_queue(self._upstream.client)
        for prompt_id in parked(queue):
            if held is None or held.holding.get(prompt_id) is None:
                # A proxy was killed before it could take it out, and before its client was answered.
                await take_out(self._upstream.client, prompt_id)
        for record in recovered(queue, OWN_PREFIX):
            if self._records.get(record.prompt_id) is None:
                self._records.add(record)
                self._warming.recovered(record)
        self._queue_read([item[1] for item in queue.running])
        self._left_behind |= left_behind(queue, await read_recent(self._upstream.client))
        queue = await self._watch.look()
        if held is not None:
            await held.ready(queue)


async def _insist(ask: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            return await ask()
        except UpstreamError as error:
            log.info("%s", error)
        await asyncio.sleep(AGAIN)
