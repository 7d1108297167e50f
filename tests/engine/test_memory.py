"""Where memory is read: this machine's own sources only where ComfyUI runs here, and never in the way of a start."""

import asyncio
import logging
from typing import Any

import pytest

from proxy.core.budget import Machine
from proxy.core.evidence import MemoryRead
from proxy.core.readings import RamReading, ReadingFailed
from proxy.engine import memory
from proxy.engine.memory import MemoryWatch
from proxy.errors import ConfigError, UpstreamError, UpstreamUnreachable
from proxy.gpu import Nvml
from proxy.upstream.stats import StatsReader, SystemStats, parse_stats
from tests.engine.stage import staged, until
from tests.test_gpu import FakePynvml, Process, card

GB = 1024**3
HERE = "http://127.0.0.1:8188"
PID = 77


class FakeReader(StatsReader):
    """ComfyUI as it describes itself; `error` where it does not answer."""

    def __init__(self, device: str = "cuda", ram: int = 64 * GB) -> None:
        self.error: UpstreamError | None = None
        self.device = device
        self.ram = ram

    async def read(self) -> SystemStats:
        if self.error is not None:
            raise self.error
        device = {"type": self.device, "name": "cuda:0", "vram_total": 24 * GB, "vram_free": 5 * GB}
        return parse_stats({"system": {"ram_total": self.ram, "ram_free": 9 * GB}, "devices": [device]}, None)


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with 64 GB, a container of 32 GB, and ComfyUI's process in it."""
    monkeypatch.setattr(memory, "total_ram", lambda: 64 * GB)
    monkeypatch.setattr(memory, "read_ram", lambda _pid, _limit: RamReading(32 * GB, 3 * GB, 40 * GB))
    monkeypatch.setattr(memory, "find_process", lambda _port: PID)


def watch(reader: StatsReader, *cards: Any, gpu: str = "auto", url: str = HERE) -> MemoryWatch:
    library = FakePynvml(*cards)

    def load() -> Nvml:
        if not cards:
            raise ReadingFailed("nvidia-ml-py is not installed")
        return Nvml(library)

    return MemoryWatch(url, reader, lambda: 5.0, gpu=gpu, load_nvml=load)


async def first_reading(watched: MemoryWatch, reader: StatsReader) -> MemoryRead:
    stats = await reader.read()
    await watched.settle(stats)
    came: asyncio.Future[MemoryRead] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(watched.run(came.set_result, has_gpu=stats.vram is not None))
    try:
        return await came
    finally:
        task.cancel()


def sources(watched: MemoryWatch) -> list[str | None]:
    return [reading.source if reading else None for reading in (watched.ram, watched.vram)]


async def test_on_this_machine_the_kernel_and_nvml_are_asked() -> None:
    reader = FakeReader()
    watched = watch(reader, card(compute=[Process(PID, 11 * GB)]))
    assert await watched.settle(await reader.read()) == Machine(32 * GB, 64 * GB, 24 * GB)
    reading = await first_reading(watched, reader)
    assert reading == MemoryRead(3 * GB, 40 * GB, 24 * GB, 10 * GB, 3 * GB)
    assert sources(watched) == ["this machine", "NVML"]
    assert watched.ram is not None
    assert watched.ram.at == 5.0


@pytest.mark.parametrize(
    ("reader", "url"), [(FakeReader(ram=63 * GB), HERE), (FakeReader(), "http://box:8188")], ids=["tunnel", "remote"]
)
async def test_another_machine_speaks_for_itself(reader: FakeReader, url: str) -> None:
    watched = watch(reader, card(), url=url)
    reading = await first_reading(watched, reader)
    assert (reading.ram_free, reading.vram_free) == (9 * GB, 5 * GB)
    assert sources(watched) == ["ComfyUI", "ComfyUI"]
    assert watched.disk_bytes() is None


async def test_a_gpu_that_is_named_is_read_wherever_comfyui_runs() -> None:
    reader = FakeReader()
    watched = watch(reader, card(0), card(1), gpu="GPU-1", url="http://comfyui:8188")
    await first_reading(watched, reader)
    assert sources(watched) == ["ComfyUI", "NVML"]


async def test_without_a_gpu_there_is_no_reading_of_one() -> None:
    reader = FakeReader(device="cpu")
    watched = watch(reader, card(0), card(1))
    reading = await first_reading(watched, reader)
    assert reading.vram_total is None
    assert sources(watched) == ["this machine", None]


async def test_without_nvml_comfyui_is_asked_and_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    reader = FakeReader()
    watched = watch(reader)
    assert (await first_reading(watched, reader)).vram_free == 5 * GB
    assert [record.message for record in caplog.records] == [
        "VRAM is read from ComfyUI (nvidia-ml-py is not installed)"
    ]


async def test_nvml_that_fails_later_gives_way(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    reader = FakeReader()
    library = FakePynvml(card())
    watched = MemoryWatch(HERE, reader, lambda: 5.0, load_nvml=lambda: Nvml(library))
    await watched.settle(await reader.read())
    library.broken = True
    came: asyncio.Queue[MemoryRead] = asyncio.Queue()
    task = asyncio.create_task(watched.run(came.put_nowait, has_gpu=True))
    for busy in (True, False):
        assert (await came.get()).vram_free == 5 * GB
        watched.set_busy(busy)
    await came.get()
    task.cancel()
    assert [record.message for record in caplog.records] == [
        "VRAM is now read from ComfyUI (NVML: NVML: driver not loaded)"
    ]


async def test_several_gpus_and_no_way_to_tell_stop_the_start() -> None:
    watched = watch(FakeReader(), card(0), card(1))
    with pytest.raises(ConfigError) as caught:
        await watched.check_gpu()
    assert "[upstream] gpu" in str(caught.value)
    assert {"GPU-0", "GPU-1"} <= set(str(caught.value).split())


async def test_a_uuid_that_no_gpu_has_stops_the_start_without_comfyui() -> None:
    reader = FakeReader()
    reader.error = UpstreamUnreachable(HERE, "refused", "start it")
    with pytest.raises(ConfigError, match="no GPU has the UUID 'GPU-9'"):
        await watch(reader, card(), gpu="GPU-9").check_gpu()


@pytest.mark.parametrize("cards", [(), (card(0),), (card(0), card(1, compute=[Process(PID, GB)]))])
async def test_a_start_goes_on_where_it_is_clear_or_nothing_is_known(cards: tuple[Any, ...]) -> None:
    await watch(FakeReader(), *cards).check_gpu()


async def test_several_gpus_while_comfyui_is_away_are_left_for_later(caplog: pytest.LogCaptureFixture) -> None:
    reader = FakeReader()
    reader.error = UpstreamUnreachable(HERE, "refused", "start it")
    watched = watch(reader, card(0), card(1))
    await watched.check_gpu()
    reader.error = None
    assert (await first_reading(watched, reader)).vram_free == 5 * GB
    assert "set it to the UUID" in caplog.text


async def test_the_running_proxy_reads_memory_while_comfyui_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "total_ram", lambda: 1)
    async with staged(ram_gb=48.0) as stage:
        watched = stage.proxy.engine.upstream.memory
        await until(lambda: watched.ram is not None and watched.vram is not None, "a reading")
        assert sources(watched) == ["ComfyUI", "ComfyUI"]
        assert stage.proxy.engine.upstream.planner.residency.usage().ram_others == 4 * GB
