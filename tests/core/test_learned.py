"""What was learned survives a restart: the estimates after it are those from before."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from normalizer.models import ModelRef
from proxy.core.costs import LoadCosts
from proxy.core.durations import Durations
from proxy.core.learned import KINDS_KEPT, Learned
from proxy.core.tiers import Tier

REFS = st.builds(ModelRef, st.sampled_from(["Loader", "Lora"]), st.tuples(st.sampled_from(["a", "b", "c"])))
RUNS = st.lists(st.tuples(st.sampled_from(["", "w1", "w2"]), st.frozensets(REFS, max_size=2), st.floats(0, 1e4)))
LOADS = st.lists(st.tuples(REFS, st.sampled_from([Tier.COLD, Tier.WARM]), st.floats(0.01, 1e3), st.integers(1, 10**11)))


def learned() -> tuple[Learned, Durations, LoadCosts]:
    durations, costs = Durations(), LoadCosts()
    return Learned(durations, costs), durations, costs


@given(RUNS, LOADS)
def test_estimates_survive(
    runs: list[tuple[str, frozenset[ModelRef], float]], loads: list[tuple[ModelRef, Tier, float, int]]
) -> None:
    before, durations, costs = learned()
    for workload, models, seconds in runs:
        durations.observe(workload, models, seconds)
        before.ran(workload, models)
    for ref, tier, seconds, size in loads:
        costs.observe(ref, tier, seconds, size)
    after, durations_after, costs_after = learned()
    after.restore(json.loads(json.dumps(before.to_json())))
    for workload, models, _ in runs:
        # A run without a workload, or models seen under several, can be told by its last estimate only.
        if workload:
            assert durations_after.estimate(workload, models) == durations.estimate(workload, models)
    for ref, tier, _, _ in loads:
        assert costs_after.seconds(ref, tier) == costs.seconds(ref, tier)
        assert costs_after.bandwidth(tier) == pytest.approx(costs.bandwidth(tier), rel=0.01, abs=100)


def test_what_is_known_already_is_newer() -> None:
    before, durations, costs = learned()
    durations.observe("w", frozenset(), 100.0)
    before.ran("w", frozenset())
    costs.observe(ModelRef("Loader", ("a",)), Tier.COLD, 100.0)
    after, durations, costs = learned()
    durations.observe("w", frozenset(), 1.0)
    after.ran("w", frozenset())
    costs.observe(ModelRef("Loader", ("a",)), Tier.COLD, 1.0)
    after.restore(before.to_json())
    assert durations.estimate("w", frozenset()) == 1.0
    assert costs.seconds(ModelRef("Loader", ("a",)), Tier.COLD) == 1.0


def test_only_the_latest_kinds_are_kept() -> None:
    keeper, durations, _ = learned()
    for number in range(KINDS_KEPT + 5):
        durations.observe(f"w{number}", frozenset(), 1.0)
        keeper.ran(f"w{number}", frozenset())
    keeper.ran("w6", frozenset())
    kept = [row["workload"] for row in keeper.to_json()["runs"]]
    assert len(kept) == KINDS_KEPT
    assert (kept[0], kept[-1]) == ("w5", "w6")


LOADED_NOTHING: dict[str, object] = {"seconds": [], "bandwidth": {}}


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"runs": [], "loads": {}},
        {"runs": 5, "loads": LOADED_NOTHING},
        {"runs": [{"workload": "w", "models": [["L"]], "seconds": "x"}], "loads": LOADED_NOTHING},
        {"runs": [{"workload": "w", "models": [], "seconds": 1}, {}], "loads": LOADED_NOTHING},
    ],
)
def test_what_cannot_be_read_changes_nothing(data: dict[str, object]) -> None:
    keeper, durations, costs = learned()
    with pytest.raises((KeyError, TypeError, ValueError)):
        keeper.restore(data)
    assert (durations, costs) == (Durations(), LoadCosts())
