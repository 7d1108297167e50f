import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from proxy.core.evidence import MemoryRead
from proxy.core.readings import RamReading, ReadingFailed, VramReading
from proxy.errors import UpstreamUnreachable
from proxy.upstream.readings import Fallback, MemoryPoll, Source

HOUR = 3600.0


class Gauge:
    """A source that fails while `error` is set."""

    def __init__(self, free: int) -> None:
        self.free = free
        self.error: Exception | None = None
        self.asked = asyncio.Event()

    async def ram(self) -> RamReading:
        self.asked.set()
        if self.error is not None:
            raise self.error
        return RamReading(100, self.free, self.free + 1)

    async def vram(self) -> VramReading:
        if self.error is not None:
            raise self.error
        return VramReading(50, self.free, 3)


def fallback(*gauges: Gauge, clock: float = 7.0) -> Fallback[RamReading]:
    sources = [Source(f"source {number}", gauge.ram) for number, gauge in enumerate(gauges)]
    return Fallback("RAM", sources, lambda: clock)


async def test_the_best_source_is_used_and_named() -> None:
    ram = fallback(Gauge(1), Gauge(2))
    assert await ram.read() == RamReading(100, 1, 2)
    assert ram.last is not None
    assert (ram.last.source, ram.last.at, ram.last.value.free) == ("source 0", 7.0, 1)


@pytest.mark.parametrize("error", [ReadingFailed("gone"), UpstreamUnreachable("http://x", "down", "start it")])
async def test_a_failing_source_gives_way_with_one_line(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    first = Gauge(1)
    ram = fallback(first, Gauge(2))
    first.error = error
    for _ in range(3):
        assert await ram.read() == RamReading(100, 2, 3)
    assert [record.message for record in caplog.records] == [
        f"RAM is now read from source 1 (source 0: {error})",
    ]
    first.error = None
    assert await ram.read() == RamReading(100, 1, 2)
    assert caplog.records[-1].message == "RAM is now read from source 0"


async def test_when_all_fail_the_last_reading_stays_with_its_age() -> None:
    gauge = Gauge(1)
    ram = fallback(gauge)
    await ram.read()
    gauge.error = ReadingFailed("gone")
    assert await ram.read() is None
    assert ram.last is not None
    assert ram.last.value.free == 1


class Polling:
    """A poll whose pauses never end by themselves."""

    def __init__(self, ram: Gauge, vram: Gauge | None = None, busy_seconds: float = HOUR) -> None:
        self.seen: asyncio.Queue[MemoryRead] = asyncio.Queue()
        sources = [Source("card", vram.vram)] if vram else []
        self.poll = MemoryPoll(
            fallback(ram),
            Fallback("VRAM", sources, lambda: 0.0),
            self.seen.put_nowait,
            busy_seconds=busy_seconds,
            idle_seconds=HOUR,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.poll.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_a_poll_reads_at_once_and_merges() -> None:
    polling = Polling(Gauge(1), Gauge(2))
    async with polling.running():
        assert await polling.seen.get() == MemoryRead(1, 2, 50, 2, 3)


async def test_a_change_of_business_is_read_at_once() -> None:
    gauge = Gauge(1)
    polling = Polling(gauge)
    async with polling.running():
        await polling.seen.get()
        for free, busy in ((2, True), (3, False)):
            gauge.free = free
            polling.poll.set_busy(busy)
            assert (await polling.seen.get()).ram_free == free
        polling.poll.set_busy(False)
        assert polling.seen.empty()


async def test_a_busy_poll_reads_again_and_again() -> None:
    polling = Polling(Gauge(1), busy_seconds=0.0)
    async with polling.running():
        polling.poll.set_busy(True)
        for _ in range(5):
            await polling.seen.get()


async def test_a_poll_outlives_failures_and_tells_nothing_then() -> None:
    gauge = Gauge(1)
    gauge.error = ReadingFailed("gone")
    polling = Polling(gauge)
    async with polling.running():
        await gauge.asked.wait()
        assert polling.seen.empty()
        gauge.error = None
        polling.poll.set_busy(True)
        assert (await polling.seen.get()).ram_free == 1
