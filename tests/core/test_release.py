import pytest

from proxy.core.evidence import MemoryRead, ModelsFreed
from proxy.core.flags import GB
from proxy.core.release import GROWTH, Idleness, Releases

ALL = ModelsFreed(unload_models=True, free_memory=True)
VRAM = ModelsFreed(unload_models=True, free_memory=False)
RESERVE = 8 * GB
PLENTY = MemoryRead(ram_free=30 * GB, vram_free=10 * GB, vram_others=GB)
IDLE = Idleness(since=100.0, pinned=True, hot=True)


def decide(
    releases: Releases, reading: MemoryRead = PLENTY, idle: Idleness | None = IDLE, now: float = 110.0
) -> ModelsFreed | None:
    release = releases.decide(reading, idle, RESERVE, now)
    return None if release is None else release.what


def vram(free: int, others: int | None) -> MemoryRead:
    return MemoryRead(ram_free=30 * GB, vram_free=free, vram_others=others)


def test_by_default_everything_stays_however_long_nothing_runs() -> None:
    assert decide(Releases(None, GB), now=1e9) is None


@pytest.mark.parametrize("idle_seconds", [None, 1000.0])
def test_pins_go_when_ram_runs_short(idle_seconds: float | None) -> None:
    releases = Releases(idle_seconds, GB)
    assert decide(releases, MemoryRead(ram_free=RESERVE // 2)) is None
    assert decide(releases, MemoryRead(ram_free=RESERVE // 2 - 1)) == ALL


def test_what_the_last_prompt_needs_itself_stays_in_short_ram_too() -> None:
    assert decide(Releases(None, GB), MemoryRead(ram_free=0), Idleness(100.0, pinned=False, hot=True)) is None


def test_nothing_is_freed_while_prompts_run() -> None:
    assert decide(Releases(1.0, GB), MemoryRead(ram_free=0), None, 1e9) is None


def test_without_a_reading_of_ram_nothing_is_concluded() -> None:
    assert decide(Releases(None, GB), MemoryRead()) is None


def test_everything_goes_after_the_time_that_was_set() -> None:
    releases = Releases(60.0, GB)
    assert decide(releases, now=159.9) is None
    assert decide(releases, now=160.0) == ALL


def test_vram_goes_once_to_a_program_that_takes_it() -> None:
    releases = Releases(60.0, GB)
    assert decide(releases, vram(free=2 * GB, others=GB)) is None
    assert decide(releases, vram(free=GB - 1, others=GB + GROWTH - 1)) is None
    assert decide(releases, vram(free=GB - 1, others=GB + GROWTH)) == VRAM
    assert decide(releases, vram(free=GB - 1, others=GB + GROWTH)) is None


def test_vram_that_others_had_before_is_no_reason() -> None:
    releases = Releases(60.0, GB)
    assert decide(releases, vram(free=2 * GB, others=GB)) is None
    later = Idleness(since=105.0, pinned=True, hot=True)
    assert decide(releases, vram(free=0, others=9 * GB), later) is None


@pytest.mark.parametrize(
    ("reading", "hot"),
    [(vram(free=0, others=None), True), (vram(free=0, others=9 * GB), False)],
    ids=["untold", "cold"],
)
def test_vram_stays_where_nobody_is_seen_to_need_it_or_nothing_is_there(reading: MemoryRead, hot: bool) -> None:
    releases = Releases(60.0, GB)
    idle = Idleness(since=100.0, pinned=True, hot=hot)
    assert decide(releases, vram(free=2 * GB, others=GB), idle) is None
    assert decide(releases, reading, idle) is None


def test_the_reason_is_told_in_figures() -> None:
    release = Releases(None, GB).decide(MemoryRead(ram_free=GB), IDLE, RESERVE, 110.0)
    assert release is not None
    assert release.reason == "only 1.07 GB of RAM are free, of a reserve of 8.59 GB"
