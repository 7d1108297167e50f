"""What a warm-up asks to be kept is carried along for that long, within the budget, whatever its use."""

from collections.abc import Sequence

from normalizer import Chain
from normalizer.models import ModelRef
from proxy.core.budget import Limits, Machine
from proxy.core.costs import LoadCosts
from proxy.core.eviction import Candidate, PinPlan
from proxy.core.evidence import SizesRead, UpstreamStarted
from proxy.core.flags import GB, CacheMode, UpstreamFlags
from proxy.core.groups import Group
from proxy.core.pinning import PinPlanner
from proxy.core.residency import Residency
from proxy.core.sizes import Sizes

MACHINE = Machine(ram=64 * GB, host_ram=64 * GB, vram=24 * GB)


def ref(name: str) -> ModelRef:
    return ModelRef("UNETLoader", (name,))


def chain(name: str, *more: str) -> Chain:
    nodes = {name: {"class_type": "UNETLoader", "inputs": {"name": name}}}
    return Chain(key=name, signature=name, nodes=nodes, models=frozenset(map(ref, (name, *more))))


def planner(limits: Limits, groups: Sequence[Group] = ()) -> PinPlanner:
    """Before a ComfyUI that may hold anything."""
    made = PinPlanner(Residency(Sizes(), LoadCosts()), limits, groups)
    made.handle(UpstreamStarted(UpstreamFlags(cache=CacheMode.CLASSIC), MACHINE, fresh=False), 0.0)
    made.handle(SizesRead(dict.fromkeys("abcx", 8 * GB)), 0.0)
    return made


def plan(made: PinPlanner, chains: Sequence[Chain], now: float) -> PinPlan:
    """Those used last come last in `chains`; a prompt with another model is about to be sent."""
    candidates = [Candidate(item, float(place)) for place, item in enumerate(chains)]
    return made.plan(candidates, [chain("x")], [frozenset({ref("c")})], now)


def keys(found: PinPlan) -> list[str]:
    return [item.key for item in found.chosen]


def test_what_is_to_be_kept_goes_before_what_the_queue_needs_until_its_time_is_over() -> None:
    made = planner(Limits(max_chains=1))
    made.keep(frozenset({ref("a")}), until=100.0)
    chains = [chain("a"), chain("b"), chain("c")]
    assert keys(plan(made, chains, now=99.0)) == ["a"]
    assert keys(plan(made, chains, now=101.0)) == ["c"]


def test_the_longest_time_asked_for_counts() -> None:
    made = planner(Limits(max_chains=1))
    made.keep(frozenset({ref("a")}), until=100.0)
    made.keep(frozenset({ref("a")}), until=50.0)
    assert keys(plan(made, [chain("a"), chain("c")], now=99.0)) == ["a"]


def test_chains_with_other_components_as_well_are_not_kept() -> None:
    made = planner(Limits(max_chains=1))
    made.keep(frozenset({ref("a")}), until=100.0)
    assert keys(plan(made, [chain("a", "b"), chain("c")], now=10.0)) == ["c"]


def test_the_budget_holds_all_the_same_and_it_is_said() -> None:
    made = planner(Limits(ram_share=0.05))
    made.keep(frozenset({ref("a")}), until=100.0)
    found = plan(made, [chain("a")], now=10.0)
    assert keys(found) == []
    assert found.unmet == ("a",)


def test_a_group_that_lets_go_early_does_not_cut_it_short() -> None:
    made = planner(Limits(), [Group("g", ("a",), ttl=5.0)])
    chains = [chain("a")]
    assert keys(plan(made, chains, now=90.0)) == []
    made.keep(frozenset({ref("a")}), until=100.0)
    assert keys(plan(made, chains, now=90.0)) == ["a"]
