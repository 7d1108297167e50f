"""Lets go of what is not worth its memory any more, while nobody wants anything else.

Models that shared loaders of the Inspire Pack keep stay until somebody removes their keys: neither ComfyUI's flags nor
its `/free` reach them. What to remove is decided by the pin planner, just before it is sent; under another strategy all
that `inspire` has left there goes. The removal is a prompt like a warm-up, sent when no client's prompt runs or waits,
hidden from clients, and taken back when one comes first.

Of ComfyUI's own cache it lets go what a group has kept for long enough, by a prompt that carries only the rest along.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from normalizer import REMOVER
from proxy.core.letting_go import LetGo
from proxy.core.shared_store import read_listing
from proxy.engine.comfy import Upstream
from proxy.engine.warming import Warming
from proxy.errors import UpstreamError
from warmup import Result

log = logging.getLogger(__name__)

LOOK = 60.0
"""Seconds after which it is looked again although no prompt has ended: a group may keep its models only for a time."""
_LIST = "/inspire/cache/list"
_TIME_LIMIT = 60.0
"""Seconds that the removal may run: it takes entries out of a table."""


class Housekeeping:
    """Keeps the Inspire Pack's cache at one ComfyUI to what the pin planner would keep. `run` it; `poke` it at ends."""

    def __init__(self, upstream: Upstream, warming: Warming, clock: Callable[[], float]) -> None:
        """`clock` gives monotonic seconds."""
        self._upstream = upstream
        self._warming = warming
        self._clock = clock
        self._news = asyncio.Event()
        self._list_due = True

    def poke(self) -> None:
        """A prompt has ended, or the strategy is another."""
        self._news.set()

    def arrived(self) -> None:
        """ComfyUI has been read anew, and may hold anything."""
        self._list_due = True
        self.poke()

    async def run(self) -> None:
        """Look whenever there is reason to, until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await self._news.wait()
            self._news.clear()
            if self._warming.surroundings() is None:
                continue
            if self._upstream.removable:
                await self._tidy()
            if self._upstream.overdue(self._clock()):
                await self._expire()

    async def _expire(self) -> None:
        """Have ComfyUI let go of what its group has kept for long enough: no prompt may come for a long time."""
        await self._warming.quiet()
        now = self._clock()
        gone = self._upstream.overdue(now)
        if gone:
            names = ", ".join(sorted(ref.label for ref in gone))
            log.info("let go of %s: unused for longer than the group keeps it", names)
            await self._upstream.between(now)

    async def _tidy(self) -> None:
        """Let go what the planner does not want, in one prompt; whatever comes between leaves it for the next time."""
        await self._warming.quiet()
        store = self._upstream.planner.residency.shared
        if self._list_due or store.puzzling:
            await self._read()
        gone: tuple[LetGo, ...] = ()

        def make() -> Mapping[str, Any] | None:
            nonlocal gone
            gone = self._upstream.let_go(self._clock())
            store.remove(item.key for item in gone)  # what starts behind it will not find them
            return removal(gone, str(uuid.uuid4())) if gone else None

        result = await self._warming.run_once(make, name="let go of models", time_limit=_TIME_LIMIT)
        if not gone:
            return
        if result is None or result.result is not Result.WARMED:
            self._list_due = True
            log.info("models were not let go: %s", "a client came first" if result is None else result.detail)
            return
        for item in gone:
            log.info("let go of %s: %s", item.ref.label if item.ref else item.key, item.reason)

    async def _read(self) -> None:
        """Read what the cache has. Its list counts every key as used, in its own order, which is then the true one."""
        self._list_due = False
        try:
            answer = await self._upstream.client.get(_LIST)
        except UpstreamError as error:
            log.info("%s", error)
            self._list_due = True
            return
        if answer.ok:
            self._upstream.planner.residency.shared.read(read_listing(answer.body.decode(errors="replace")))
        else:
            log.info("what the Inspire Pack keeps is not to be had: it answers %s to GET %s", answer.status, _LIST)


def removal(gone: tuple[LetGo, ...], occasion: str) -> dict[str, Any]:
    """The prompt that takes these keys out.

    `occasion` is a text of its own each time, passed through: without it ComfyUI would find the result of an earlier
    removal of the same key in its node cache (`--cache-lru`, `--cache-ram`), and the key would stay.
    """
    return {
        str(number): {"class_type": REMOVER, "inputs": {"key": item.key, "signal_opt": occasion}}
        for number, item in enumerate(gone, start=1)
    }
