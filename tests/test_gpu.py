import sys
from dataclasses import dataclass, field

import pytest

from proxy.core.readings import ReadingFailed, VramReading
from proxy.errors import ConfigError
from proxy.gpu import Gpu, Nvml

GB = 1024**3


@dataclass
class Memory:
    total: int
    free: int
    used: int


@dataclass
class Process:
    pid: int
    usedGpuMemory: int | None  # noqa: N815 - NVML's name


@dataclass
class Card:
    uuid: str
    name: str
    memory: Memory
    compute: list[Process] = field(default_factory=list)
    graphics: list[Process] = field(default_factory=list)


class FakePynvml:
    """As much of pynvml as is used; `broken` makes every call fail."""

    class NVMLError(Exception):
        pass

    def __init__(self, *cards: Card, broken: bool = False) -> None:
        self.cards = cards
        self.broken = broken
        self.opened = 0

    def _call(self) -> None:
        if self.broken:
            raise self.NVMLError("driver not loaded")

    def nvmlInit(self) -> None:  # noqa: N802 - NVML's names, here and below
        self._call()
        self.opened += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self._call()
        self.opened -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        self._call()
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Card:  # noqa: N802
        return self.cards[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Card:  # noqa: N802
        self._call()
        return next(card for card in self.cards if card.uuid == uuid)

    def nvmlDeviceGetUUID(self, card: Card) -> str:  # noqa: N802
        return card.uuid

    def nvmlDeviceGetName(self, card: Card) -> bytes:  # noqa: N802
        return card.name.encode()

    def nvmlDeviceGetMemoryInfo(self, card: Card) -> Memory:  # noqa: N802
        return card.memory

    def nvmlDeviceGetComputeRunningProcesses(self, card: Card) -> list[Process]:  # noqa: N802
        return card.compute

    def nvmlDeviceGetGraphicsRunningProcesses(self, card: Card) -> list[Process]:  # noqa: N802
        return card.graphics


def card(number: int = 0, name: str = "NVIDIA GeForce RTX 4090", **processes: list[Process]) -> Card:
    return Card(f"GPU-{number}", name, Memory(24 * GB, 10 * GB, 14 * GB), **processes)


def gpu(number: int = 0, name: str = "NVIDIA GeForce RTX 4090") -> Gpu:
    return Gpu(number, f"GPU-{number}", name, 24 * GB)


def test_the_only_gpu_is_the_one() -> None:
    assert Nvml(FakePynvml(card())).choose("auto", "", None) == gpu()


def test_a_uuid_is_taken_at_its_word() -> None:
    assert Nvml(FakePynvml(card(0), card(1))).choose("GPU-1", "", None) == gpu(1)


def test_the_process_tells_which_gpu_it_uses() -> None:
    library = FakePynvml(card(0, compute=[Process(5, GB)]), card(1, compute=[Process(7, GB)]))
    assert Nvml(library).choose("auto", "", 7) == gpu(1)


def test_the_name_tells_which_gpu_it_is() -> None:
    library = FakePynvml(card(0), card(1, "NVIDIA RTX A2000"))
    name = "cuda:0 NVIDIA RTX A2000 : cudaMallocAsync"
    assert Nvml(library).choose("auto", name, None) == gpu(1, "NVIDIA RTX A2000")


@pytest.mark.parametrize("wanted", ["auto", "GPU-9"])
def test_an_unclear_choice_lists_the_gpus(wanted: str) -> None:
    both_used = [Process(7, GB)]
    library = FakePynvml(card(0, compute=both_used), card(1, compute=both_used))
    with pytest.raises(ConfigError) as caught:
        Nvml(library).choose(wanted, "cuda:0 NVIDIA GeForce RTX 4090 : native", 7)
    assert "GPU-0" in str(caught.value)
    assert "GPU-1" in str(caught.value)
    assert "[upstream] gpu" in str(caught.value)


def test_a_reading_tells_what_others_take() -> None:
    library = FakePynvml(card(0, compute=[Process(7, 9 * GB)], graphics=[Process(8, 2 * GB)]))
    assert Nvml(library).read(gpu(), 7) == VramReading(24 * GB, 10 * GB, others=5 * GB)


@pytest.mark.parametrize(("pid", "used"), [(None, 9 * GB), (3, 9 * GB), (7, None)])
def test_a_reading_without_the_process_does_not(pid: int | None, used: int | None) -> None:
    library = FakePynvml(card(0, compute=[Process(7, used)]))
    assert Nvml(library).read(gpu(), pid) == VramReading(24 * GB, 10 * GB, others=None)


def test_without_a_driver_nvml_is_no_source() -> None:
    with pytest.raises(ReadingFailed, match="driver not loaded"):
        Nvml(FakePynvml(broken=True))


def test_a_driver_that_goes_away_fails_the_reading_only() -> None:
    library = FakePynvml(card())
    nvml = Nvml(library)
    library.broken = True
    with pytest.raises(ReadingFailed):
        nvml.read(gpu(), None)
    with pytest.raises(ReadingFailed):
        nvml.gpus()
    nvml.close()


def test_no_gpu_at_all_is_no_source() -> None:
    with pytest.raises(ReadingFailed):
        Nvml(FakePynvml()).choose("auto", "", None)


def test_closing_gives_the_library_back() -> None:
    library = FakePynvml(card())
    Nvml(library).close()
    assert library.opened == 0


def test_a_missing_library_is_no_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(ReadingFailed, match="not installed"):
        Nvml.load()


def test_the_installed_library_fits_or_says_that_there_is_no_driver() -> None:
    try:
        nvml = Nvml.load()
    except ReadingFailed:
        return
    assert all(each.memory > 0 for each in nvml.gpus())
    nvml.close()
