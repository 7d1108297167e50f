"""The way out of this process: nothing new comes in, what is under way comes to its end, and a hurry ends all waiting.

A stop that tears submissions in two leaves clients without an answer and ComfyUI with prompts that nobody knows of.
The journal would sort that out at the next start, but nobody has to be surprised: so those who have submitted get their
answers first, and then nothing more is sent, or everything is.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from proxy.core import events as ev
from proxy.core.jobs import State
from proxy.engine.holding import Holding
from proxy.errors import ShuttingDown

log = logging.getLogger(__name__)

ANSWERS = 20.0
"""Seconds that submissions under way get at a stop."""
SETTLING = 10.0
"""Seconds that questions to ComfyUI get after that."""

Until = Callable[[Callable[[], bool]], Awaitable[None]]
"""Waits until a condition of the queue holds."""

_ENDLESS = 1_000_000_000
_IN_TRANSIT = frozenset(
    {
        *(State.ARRIVED, State.PROBING, State.DISPATCHING, State.RECALLING),
        *(State.CANCELLING, State.UNCLEAR, State.WITHDRAWING),
    }
)


class Departure:
    """Whether this process is on its way out, and how patiently."""

    def __init__(self) -> None:
        self.begun = False
        self._hurry = asyncio.Event()
        self._under_way = 0
        self._ended = asyncio.Event()

    def begin(self) -> None:
        """Take no new submissions."""
        self.begun = True

    def hurry(self) -> None:
        """Wait for nothing any more."""
        self._hurry.set()

    @contextmanager
    def submission(self) -> Iterator[None]:
        """A client submits something.

        Raises:
            ShuttingDown: when it is too late for that.
        """
        if self.begun:
            raise ShuttingDown
        with self._counted():
            yield

    async def accompany(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something that is to be finished before a stop, whether or not its client stays."""
        with self._counted():
            await work

    async def finished(self) -> None:
        """Wait until nothing is under way."""
        while self._under_way:
            self._ended.clear()
            await self._ended.wait()

    async def patiently(self, what: Coroutine[Any, Any, None], seconds: float | None = None) -> bool:
        """Do something unless there is a hurry, for so many seconds at most; whether it was done to its end."""
        doing = asyncio.ensure_future(what)
        hurried = asyncio.ensure_future(self._hurry.wait())
        try:
            await asyncio.wait([doing, hurried], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if doing.done():
                doing.result()
                return True
            return False
        finally:
            doing.cancel()
            hurried.cancel()
            await asyncio.wait([doing, hurried])

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
            self._ended.set()


async def hold_still(holding: Holding, until: Until) -> None:
    """Send nothing more, call nothing back, and wait for what is on its way."""
    context = holding.scheduler.context
    holding.tell(ev.SettingsChanged(replace(context.settings, depth=0, recall_gain=float("inf"))))
    await until(lambda: not context.ready or not _in_transit(holding))


async def hand_over(holding: Holding, until: Until) -> None:
    """Send all that waits to ComfyUI, in the order and with the pins with which it would be sent anyway.

    While the queue is paused or ComfyUI away, everything stays in the journal.
    """
    context = holding.scheduler.context
    if context.pauses:
        log.warning("the queue is paused, so nothing is handed to ComfyUI")
        return
    if not context.ready:
        log.warning("ComfyUI does not answer, so nothing can be handed to it")
        return
    settings = replace(context.settings, depth=_ENDLESS, recall_gain=float("inf"))
    before = context.ledger.held
    holding.tell(ev.SettingsChanged(settings))
    await until(lambda: not context.ready or not (context.ledger.held or _in_transit(holding)))
    left = context.ledger.held
    log.info("%d prompts are handed to ComfyUI, %d stay in the journal", before - left, left)


def _in_transit(holding: Holding) -> bool:
    ledger = holding.scheduler.context.ledger
    return bool(ledger.arrived) or any(job.state in _IN_TRANSIT for job in ledger.upstream.values())
