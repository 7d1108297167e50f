from hypothesis import given
from hypothesis import strategies as st

from proxy.core.budget import (
    CALM_PROMPTS,
    Budget,
    Lesson,
    Limits,
    Machine,
    Usage,
    allowed_pins,
    make_budget,
    ram_reserve,
)
from proxy.core.flags import GB, CacheMode, Overlap, UpstreamFlags, VramMode, first_threshold

NORMAL = UpstreamFlags(cache=CacheMode.RAM_PRESSURE)
CALM = Lesson()


def test_defaults_are_16_chains_and_half_the_ram() -> None:
    budget = make_budget(Machine(64 * GB, 64 * GB, 24 * GB), NORMAL, Limits(), Usage(), CALM)
    assert budget == Budget(
        chains=16, pins=32 * GB, ram=64 * GB - 4 * GB - int(64 * GB * 0.15), vram=None, overlap=Overlap.FIRST
    )


def test_old_and_new_overlap_where_the_cache_drops_late() -> None:
    machine = Machine(64 * GB, 64 * GB)
    overlap = {
        mode: make_budget(machine, UpstreamFlags(cache=mode), Limits(), Usage(), CALM).overlap for mode in CacheMode
    }
    assert overlap == {
        CacheMode.CLASSIC: Overlap.NOTHING,
        CacheMode.NONE: Overlap.NOTHING,
        CacheMode.RAM_PRESSURE: Overlap.FIRST,
        CacheMode.LRU: Overlap.WHOLE,
    }


def test_what_others_take_is_not_ours() -> None:
    machine = Machine(64 * GB, 64 * GB)
    usage = Usage(ram_others=34 * GB)
    assert make_budget(machine, NORMAL, Limits(ram_reserve=10 * GB), usage, CALM).ram == 20 * GB


def test_too_little_free_ram_leaves_no_room() -> None:
    usage = Usage(ram_others=13 * GB)
    assert make_budget(Machine(16 * GB, 16 * GB), NORMAL, Limits(), usage, CALM).ram == 0


def test_without_a_cache_nothing_is_pinned() -> None:
    flags = UpstreamFlags(cache=CacheMode.NONE)
    assert make_budget(Machine(64 * GB, 64 * GB), flags, Limits(), Usage(), CALM).chains == 0


def test_models_that_cannot_leave_vram_are_bounded_by_it() -> None:
    machine = Machine(64 * GB, 64 * GB, 24 * GB)
    high = make_budget(machine, UpstreamFlags(vram=VramMode.HIGH), Limits(), Usage(), CALM)
    assert high.vram is not None
    assert high.vram < 23 * GB
    assert high.ram is not None
    only = make_budget(machine, UpstreamFlags(vram=VramMode.GPU_ONLY), Limits(), Usage(vram_others=20 * GB), CALM)
    assert only.ram is None
    assert only.vram is not None
    assert only.vram < 4 * GB


@given(st.integers(0, 2**41), st.none() | st.integers(0, 2**41))
def test_the_reserve_is_never_below_comfyuis_own_threshold(ram: int, configured: int | None) -> None:
    reserve = ram_reserve(Machine(ram, ram), Limits(ram_reserve=configured))
    assert reserve >= first_threshold(ram)
    assert reserve >= (configured or 0)


@given(st.lists(st.tuples(st.sampled_from(["died", "ran out", "done"]), st.integers(0, 40 * GB)), max_size=400))
def test_lessons_only_ever_shrink_the_budget(events: list[tuple[str, int]]) -> None:
    machine, lesson = Machine(64 * GB, 64 * GB), CALM
    allowed = allowed_pins(machine, NORMAL, Limits())
    for kind, pinned in events:
        before = make_budget(machine, NORMAL, Limits(), Usage(), lesson).pins
        if kind == "died":
            lesson = lesson.died(allowed)
            assert make_budget(machine, NORMAL, Limits(), Usage(), lesson).pins <= before // 2
        elif kind == "ran out":
            lesson = lesson.ran_out(pinned, allowed)
            assert make_budget(machine, NORMAL, Limits(), Usage(), lesson).pins <= (max(pinned, 0) or before)
        else:
            lesson = lesson.prompt_done(allowed)
            assert before <= make_budget(machine, NORMAL, Limits(), Usage(), lesson).pins <= allowed


def test_calm_prompts_bring_the_budget_back() -> None:
    allowed = 32 * GB
    lesson = CALM.died(allowed)
    assert lesson.cap == 16 * GB
    for _ in range(CALM_PROMPTS - 1):
        lesson = lesson.prompt_done(allowed)
    assert lesson.cap == 16 * GB
    lesson = lesson.prompt_done(allowed)
    assert lesson.cap == 20 * GB
    for _ in range(CALM_PROMPTS * 3):
        lesson = lesson.prompt_done(allowed)
    assert lesson == CALM
