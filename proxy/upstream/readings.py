"""Reads memory again and again, seldom while nothing happens, from the best source that answers.

A reading is wanted every second while a prompt runs, and must never stand in the way of a request: it is taken in the
background, one at a time, and whoever wants to know gets the last one with its age. When a source fails the next one is
asked, with one line in the log for the change and none for each failure after it.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from proxy.core.evidence import MemoryRead
from proxy.core.readings import RamReading, ReadingFailed, VramReading
from proxy.errors import UpstreamError

log = logging.getLogger(__name__)

BUSY_SECONDS = 1.0
IDLE_SECONDS = 15.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Source(Generic[T]):
    """One way to take a reading. `read` raises ReadingFailed or UpstreamError where it cannot."""

    name: str
    read: Callable[[], Awaitable[T]]


@dataclass(frozen=True, slots=True)
class Sourced(Generic[T]):
    """A reading, where it is from, and when it was taken (monotonic seconds)."""

    value: T
    source: str
    at: float


class Fallback(Generic[T]):
    """Several sources for one thing, the best first."""

    def __init__(self, what: str, sources: Sequence[Source[T]], clock: Callable[[], float]) -> None:
        """`what` is the name of the thing in the log."""
        self.last: Sourced[T] | None = None
        self._what = what
        self._sources = sources
        self._clock = clock
        self._used: str | None = sources[0].name if sources else None

    async def read(self) -> T | None:
        """A new reading from the first source that answers; None if none does."""
        failures = []
        for source in self._sources:
            try:
                value = await source.read()
            except (ReadingFailed, UpstreamError) as error:
                failures.append(f"{source.name}: {error}")
                continue
            self._switch(source.name, failures)
            self.last = Sourced(value, source.name, self._clock())
            return value
        self._switch(None, failures)
        return None

    def _switch(self, name: str | None, failures: Sequence[str]) -> None:
        if name != self._used:
            why = f" ({'; '.join(failures)})" if failures else ""
            log.info("%s is now read from %s%s", self._what, name or "nowhere", why)
            self._used = name


class MemoryPoll:
    """Takes readings until it is cancelled, and hands each on."""

    def __init__(
        self,
        ram: Fallback[RamReading],
        vram: Fallback[VramReading],
        on_reading: Callable[[MemoryRead], None],
        *,
        busy_seconds: float = BUSY_SECONDS,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self.ram = ram
        self.vram = vram
        self._on_reading = on_reading
        self._busy_seconds = busy_seconds
        self._idle_seconds = idle_seconds
        self._busy = False
        self._wake = asyncio.Event()

    def set_busy(self, busy: bool) -> None:
        """Prompts run, or no more. A change is read at once: what a prompt left behind is best seen at its end."""
        if busy != self._busy:
            self._busy = busy
            self._wake.set()

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            self._wake.clear()
            ram, vram = await self.ram.read(), await self.vram.read()
            if ram is not None or vram is not None:
                self._on_reading(_merged(ram, vram))
            pause = self._busy_seconds if self._busy else self._idle_seconds
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), pause)


def _merged(ram: RamReading | None, vram: VramReading | None) -> MemoryRead:
    return MemoryRead(
        ram_free=ram.free if ram else None,
        host_ram_free=ram.host_free if ram else None,
        vram_total=vram.total if vram else None,
        vram_free=vram.free if vram else None,
        vram_others=vram.others if vram else None,
    )
