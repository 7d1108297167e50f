"""The lower bounds, against each other and against every policy, on small traces of any kind."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.bounds import EXACT_SETS, lower_bound, optimum, relaxation
from bench.playing import play_ours, play_rival
from bench.policies import RIVALS
from bench.traces import GB, TRACES, Machine, Prompt, Trace
from normalizer.models import ModelRef
from proxy.core.settings import Settings

REFS = [ModelRef("component", (name,)) for name in "abcd"]
ROUNDING = 1e-6
PROMPTS = st.builds(
    Prompt,
    at=st.floats(0.0, 60.0),
    models=st.frozensets(st.sampled_from(REFS), min_size=1, max_size=3),
    seconds=st.floats(0.5, 20.0),
    client=st.sampled_from(["ann", "bob"]),
    priority=st.sampled_from([0, 0, 1]),
)


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    sizes = {ref: draw(st.integers(1, 8)) * GB for ref in REFS}
    machine = Machine(vram=draw(st.integers(4, 28)) * GB, ram=draw(st.integers(10, 50)) * GB)
    prompts = draw(st.lists(PROMPTS, min_size=1, max_size=8))
    return Trace("any", machine, sizes, tuple(sorted(prompts, key=lambda prompt: prompt.at)))


@given(traces())
def test_no_schedule_is_below_the_optimum_and_the_optimum_not_below_the_relaxation(trace: Trace) -> None:
    least = optimum(trace)
    assert relaxation(trace) <= least + ROUNDING
    for rival in RIVALS:
        assert least <= play_rival(trace, rival).load_seconds + ROUNDING, rival.name
    assert least <= play_ours(trace, Settings()).load_seconds + ROUNDING


def test_the_optimum_pays_for_what_does_not_fit() -> None:
    """Three pairs over three components, room for two: the third pair needs one that has had to go."""
    a, b, c, _ = REFS
    sets = [frozenset({a, b}), frozenset({b, c}), frozenset({a, c})]
    trace = Trace(
        "pairs", Machine(vram=12 * GB), dict.fromkeys(REFS, 5 * GB), [Prompt(0.0, each, 1.0) for each in sets]
    )
    crossing, reading = 0.5, 5 / 1.5
    assert relaxation(trace) == pytest.approx(3 * (crossing + reading))
    assert optimum(trace) == pytest.approx(3 * (crossing + reading) + crossing)


def test_a_set_too_large_for_memory_leaves_its_parts_to_the_next() -> None:
    """Room in RAM for one: to run c alone after the three, because it loads nothing, costs the last one its a."""
    a, b, c, d = REFS
    sets = [frozenset({a}), frozenset({a, b, c}), frozenset({c}), frozenset({a, c, d})]
    machine = Machine(vram=4 * GB, ram=10 * GB)
    trace = Trace("large", machine, dict.fromkeys(REFS, GB), [Prompt(0.0, each, 1.0) for each in sets])
    assert optimum(trace) == pytest.approx(relaxation(trace))


def test_many_different_sets_get_the_relaxation() -> None:
    trace = TRACES["shared-40-loras"]("shared-40-loras")
    assert len({prompt.models for prompt in trace.prompts}) > EXACT_SETS
    bound = lower_bound(trace)
    assert not bound.exact
    assert bound.load_seconds == relaxation(trace)
