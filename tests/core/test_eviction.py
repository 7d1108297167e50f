import itertools
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from normalizer import Chain
from normalizer.models import ModelRef, ModelSet
from proxy.core.budget import Budget
from proxy.core.eviction import HALF_LIFE, Candidate, PinPlan, frequency_after, plan
from proxy.core.flags import Overlap
from proxy.core.groups import Group, Keep

NOW = 1000.0
WIDE = Budget(chains=16, pins=10**6, ram=10**6)


def ref(name: str) -> ModelRef:
    return ModelRef("UNETLoader", (name,))


def chain(*names: str) -> Chain:
    """A loader and, on it, one more node for each further name; equal beginnings share their nodes."""
    nodes = {
        "/".join(names[:length]): {"class_type": "UNETLoader", "inputs": {"name": names[length - 1]}}
        for length in range(1, len(names) + 1)
    }
    key = "/".join(names)
    return Chain(key=key, signature=key, nodes=nodes, models=frozenset(map(ref, names)))


def candidate(*names: str, ago: float = 0.0, frequency: float = 1.0, seconds: float | None = None) -> Candidate:
    return Candidate(chain(*names), NOW - ago, frequency, seconds)


def keys(planned: PinPlan) -> list[str]:
    return [chosen.key for chosen in planned.chosen]


def choose(
    candidates: Sequence[Candidate],
    budget: Budget = WIDE,
    *,
    own: Sequence[Chain] = (),
    foresight: Sequence[ModelSet] = (),
    groups: Sequence[Group] = (),
    size: int = 10,
) -> PinPlan:
    return plan(candidates, own, budget, foresight, groups, lambda _: size, NOW)


def test_alone_it_is_the_most_recently_used() -> None:
    used = [candidate("a", ago=30), candidate("b", ago=10), candidate("c", ago=20)]
    assert keys(choose(used, Budget(chains=2, pins=100, ram=100))) == ["b", "c"]


def test_what_the_queue_needs_comes_before_what_was_used() -> None:
    used = [candidate("a", ago=30), candidate("b", ago=10), candidate("c", ago=20)]
    needed = [frozenset({ref("c")}), frozenset({ref("a")})]
    assert keys(choose(used, Budget(chains=2, pins=100, ram=100), foresight=needed)) == ["c", "a"]


def test_what_is_needed_last_goes_first() -> None:
    used = [candidate(name) for name in "abc"]
    needed = [frozenset({ref(name)}) for name in "cab"]
    assert keys(choose(used, Budget(chains=16, pins=20, ram=100), foresight=needed)) == ["c", "a"]


def test_a_shared_lora_does_not_make_another_base_needed() -> None:
    used = [candidate("base1", "lora"), candidate("base2", "lora")]
    sizes = {ref("base1"): 100, ref("base2"): 100, ref("lora"): 1}
    needed = [frozenset({ref("base2"), ref("lora")})]
    planned = plan(used, (), Budget(1, 1000, 1000), needed, (), sizes.__getitem__, NOW)
    assert keys(planned) == ["base2/lora"]


def test_among_the_unneeded_the_dear_and_frequent_stay() -> None:
    used = [candidate("cheap", seconds=1.0), candidate("dear", seconds=9.0)]
    assert keys(choose(used, Budget(1, 100, 100))) == ["dear"]
    used = [candidate("rare", seconds=5.0), candidate("frequent", seconds=5.0, frequency=3.0)]
    assert keys(choose(used, Budget(1, 100, 100))) == ["frequent"]


def test_priority_of_the_group_decides_among_the_unneeded() -> None:
    groups = [Group("paid", ("a",), priority=5), Group("free", ("b",), priority=1)]
    used = [candidate("a", ago=100), candidate("b", ago=1, frequency=9.0)]
    assert keys(choose(used, Budget(1, 100, 100), groups=groups)) == ["a"]


def test_shared_components_count_once() -> None:
    used = [candidate("base", "x"), candidate("base", "y")]
    planned = choose(used, Budget(chains=16, pins=30, ram=30))
    assert sorted(keys(planned)) == ["base/x", "base/y"]
    assert planned.pinned_bytes == 30


def test_what_the_prompt_has_itself_is_not_pinned_but_counts() -> None:
    planned = choose([candidate("a"), candidate("b")], Budget(chains=16, pins=100, ram=20), own=[chain("a")])
    assert keys(planned) == ["b"]
    assert planned.pinned_bytes == 10
    assert keys(choose([candidate("b")], Budget(chains=16, pins=100, ram=19), own=[chain("a")])) == []


def test_a_smaller_one_still_fits_behind_a_large_one() -> None:
    sizes = {ref("large"): 100, ref("small"): 10}
    used = [candidate("large", ago=1), candidate("small", ago=2)]
    planned = plan(used, (), Budget(16, 50, 50), (), (), sizes.__getitem__, NOW)
    assert keys(planned) == ["small"]
    texts = {reason.key: reason.text for reason in planned.reasons}
    assert "pins may take" in texts["large"]


def test_vram_bounds_models_that_cannot_leave_it() -> None:
    budget = Budget(chains=16, pins=100, ram=None, vram=15)
    assert keys(choose([candidate("a", ago=1), candidate("b", ago=2)], budget)) == ["a"]


def test_what_comes_next_must_fit_beside_what_is_still_there() -> None:
    late = Budget(chains=16, pins=100, ram=30, overlap=Overlap.FIRST)
    used = [candidate("a", ago=1), candidate("b", ago=2), candidate("c", ago=3)]
    assert keys(choose(used, late, own=[chain("d")], foresight=[frozenset({ref("new")})])) == ["a"]
    assert keys(choose(used, late, own=[chain("d")], foresight=[frozenset({ref("new"), ref("newer")})])) == ["a"]
    assert keys(choose(used, late, own=[chain("d")], foresight=[frozenset({ref("c")})])) == ["c", "a"]
    at_once = replace(late, overlap=Overlap.NOTHING)
    assert keys(choose(used, at_once, own=[chain("d")], foresight=[frozenset({ref("new")})])) == ["a", "b"]


def test_where_nothing_is_dropped_for_ram_all_of_the_next_prompt_must_fit() -> None:
    whole = Budget(chains=16, pins=100, ram=40, overlap=Overlap.WHOLE)
    needed = [frozenset({ref("x"), ref("y")})]
    assert keys(choose([candidate("a")], whole, own=[chain("d")], foresight=needed)) == ["a"]
    assert keys(choose([candidate("a"), candidate("b")], whole, own=[chain("d")], foresight=needed)) == ["a"]
    known = [frozenset({ref("x"), ref("y"), ref("d")})]
    assert keys(choose([candidate("a")], whole, own=[chain("d")], foresight=known)) == ["a"]
    lingering = replace(whole, lingering=frozenset({ref("a"), ref("b")}))
    assert keys(choose([candidate("a")], lingering, own=[chain("d")], foresight=needed)) == []


def test_what_is_gone_is_not_pinned() -> None:
    gone = Candidate(chain("a"), NOW, alive=False)
    planned = choose([gone])
    assert keys(planned) == []
    assert "does not hold" in planned.reasons[0].text


def test_an_always_group_comes_first_and_is_reported_when_it_does_not_fit() -> None:
    groups = [Group("base", ("a", "b"), Keep.ALWAYS)]
    used = [candidate("a", ago=500), candidate("b", ago=400), candidate("c")]
    needed = [frozenset({ref("c")})]
    planned = choose(used, Budget(16, 20, 20), foresight=needed, groups=groups)
    assert sorted(keys(planned)) == ["a", "b"]
    assert planned.unmet == ()
    assert choose(used, Budget(16, 10, 10), groups=groups).unmet == ("a",)


def test_a_group_stays_together() -> None:
    groups = [Group("pair", ("a", "b"), Keep.TOGETHER)]
    used = [candidate("a", ago=1), candidate("b", ago=300), candidate("c", ago=2)]
    assert sorted(keys(choose(used, Budget(2, 100, 100), groups=groups))) == ["a", "b"]


def test_a_group_too_large_to_stay_together_keeps_what_fits() -> None:
    groups = [Group("pair", ("a", "b"), Keep.TOGETHER)]
    used = [candidate("a", ago=1), candidate("b", ago=2)]
    assert keys(choose(used, Budget(1, 100, 100), groups=groups)) == ["a"]


@pytest.mark.parametrize(("ago", "queued", "kept"), [(5, False, True), (20, False, False), (20, True, True)])
def test_on_demand_models_leave_after_their_time(ago: float, queued: bool, kept: bool) -> None:
    groups = [Group("now and then", ("a",), Keep.ON_DEMAND, ttl=10)]
    needed = [frozenset({ref("a")})] if queued else []
    assert bool(keys(choose([candidate("a", ago=ago)], foresight=needed, groups=groups))) is kept


def test_each_candidate_gets_a_reason() -> None:
    used = [candidate("a"), candidate("b"), candidate("c", "d")]
    planned = choose(used, Budget(1, 100, 100), foresight=[frozenset({ref("b")})])
    assert {reason.key for reason in planned.reasons} == {"a", "b", "c/d"}
    (kept,) = [reason for reason in planned.reasons if reason.kept]
    assert (kept.key, kept.text) == ("b", "prompt 1 of the queue needs it")


def test_a_use_counts_half_after_the_half_life() -> None:
    assert frequency_after(4.0, 0.0, HALF_LIFE) == 2.0
    assert frequency_after(4.0, 10.0, 5.0) == 4.0


NAMES = "abcdef"
CHAINS = [chain(*names) for length in (1, 2) for names in itertools.permutations(NAMES, length)]
CANDIDATES = st.lists(
    st.builds(
        Candidate,
        st.sampled_from(CHAINS),
        st.floats(0, NOW),
        st.floats(0, 10),
        st.none() | st.floats(0, 100),
        st.booleans(),
    ),
    max_size=12,
    unique_by=lambda item: item.chain.key,
)
GROUPS = st.lists(
    st.builds(
        Group,
        st.sampled_from(["g", "h"]),
        st.tuples(st.sampled_from([*NAMES, "[ab]", "*"])),
        st.sampled_from([Keep.ALWAYS, Keep.TOGETHER, Keep.ON_DEMAND]),
        st.integers(-2, 2),
    ),
    max_size=3,
)
BOUND = st.integers(0, 150)


@given(
    CANDIDATES,
    st.lists(st.sampled_from(CHAINS), max_size=2),
    st.builds(Budget, st.integers(0, 6), BOUND, st.none() | BOUND, st.none() | BOUND, st.sampled_from(Overlap)),
    st.lists(st.frozensets(st.sampled_from([ref(name) for name in NAMES])), max_size=4),
    GROUPS,
    st.fixed_dictionaries({ref(name): st.integers(0, 60) for name in NAMES}),
)
def test_budgets_hold_and_always_is_kept_or_reported(
    candidates: list[Candidate],
    own: list[Chain],
    budget: Budget,
    foresight: list[ModelSet],
    groups: list[Group],
    sizes: dict[ModelRef, int],
) -> None:
    planned = plan(candidates, own, budget, foresight, groups, sizes.__getitem__, NOW)

    mine: ModelSet = frozenset().union(*(item.models for item in own))
    pinned: ModelSet = frozenset().union(*(item.models for item in planned.chosen)) - mine
    pin_bytes = sum(sizes[item] for item in pinned)
    total = pin_bytes + sum(sizes[item] for item in mine)
    assert planned.pinned_bytes == pin_bytes <= budget.pins
    assert len(planned.chosen) <= budget.chains
    if planned.chosen:
        later: ModelSet = frozenset().union(*foresight)
        new = later - pinned - mine
        total += max((sizes[item] for item in new), default=0) if budget.overlap is not Overlap.NOTHING else 0
        assert budget.ram is None or total <= budget.ram
        assert budget.vram is None or total <= budget.vram

    by_key = {item.chain.key: item for item in candidates}
    assert [reason.key for reason in planned.reasons] == list(dict.fromkeys(reason.key for reason in planned.reasons))
    assert by_key.keys() == {reason.key for reason in planned.reasons}
    kept = {reason.key for reason in planned.reasons if reason.kept}
    assert set(keys(planned)) <= kept
    brought = {node for item in own for node in item.nodes}
    assert all(by_key[key].alive or brought.issuperset(by_key[key].chain.nodes) for key in kept)
    held = {node for item in (*own, *planned.chosen) for node in item.nodes}
    assert all(held.issuperset(by_key[key].chain.nodes) for key in kept)
    for group in groups:
        if group.keep is Keep.ALWAYS and all(group.priority > other.priority for other in groups if other is not group):
            wanted = {key for key, item in by_key.items() if item.alive and any(map(group.matches, item.chain.models))}
            assert wanted <= kept | set(planned.unmet)
