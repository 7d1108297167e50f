"""The price of loading: learned for each component and tier, and before that size over measured bandwidth."""

import pytest

from normalizer.models import ModelRef, ModelSet
from proxy.core.costs import ASSUMED_BANDWIDTH, ASSUMED_SIZE, LoadCosts, ResidentCosts
from proxy.core.tiers import Tier
from tests.playbook import Shelf, model, models

GB = 1_000_000_000
LORA = ModelRef("LoraLoader", ("style",))
SIZES = {model("base"): 12 * GB, model("other"): 12 * GB, model("encoder"): 9 * GB, LORA: GB // 5}


def test_nothing_known_is_an_assumed_size_over_an_assumed_bandwidth() -> None:
    assert LoadCosts().seconds(LORA, Tier.COLD) == ASSUMED_SIZE / ASSUMED_BANDWIDTH[Tier.COLD]


def test_a_size_over_the_bandwidth_that_others_have_shown() -> None:
    costs = LoadCosts()
    costs.observe(model("base"), Tier.COLD, 6.0, 12 * GB)
    assert costs.bandwidth(Tier.COLD) == 2 * GB
    assert costs.seconds(model("encoder"), Tier.COLD, 9 * GB) == pytest.approx(4.5)
    assert costs.bandwidth(Tier.WARM) == ASSUMED_BANDWIDTH[Tier.WARM]


def test_what_was_learned_of_a_component_counts_more_than_its_size() -> None:
    costs = LoadCosts()
    costs.observe(LORA, Tier.COLD, 3.0, GB // 5)
    assert costs.seconds(LORA, Tier.COLD, GB // 5) == 3.0
    assert costs.seconds(LORA, Tier.WARM, GB // 5) == GB // 5 / ASSUMED_BANDWIDTH[Tier.WARM]


def test_the_newest_observations_count_most() -> None:
    costs = LoadCosts()
    for seconds in (10.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0):
        costs.observe(LORA, Tier.WARM, seconds)
    assert 2.0 < costs.seconds(LORA, Tier.WARM) < 3.0


def test_hot_costs_nothing_and_unknown_half_of_both() -> None:
    costs = LoadCosts()
    costs.observe(LORA, Tier.WARM, 1.0)
    costs.observe(LORA, Tier.COLD, 5.0)
    assert costs.seconds(LORA, Tier.HOT) == 0.0
    assert costs.seconds(LORA, Tier.UNKNOWN) == 3.0


@pytest.mark.parametrize(("tier", "seconds"), [(Tier.HOT, 1.0), (Tier.UNKNOWN, 1.0), (Tier.COLD, -1.0)])
def test_what_teaches_nothing_is_ignored(tier: Tier, seconds: float) -> None:
    costs = LoadCosts()
    costs.observe(LORA, tier, seconds, GB)
    assert costs == LoadCosts()


def resident(shelf: Shelf, vram: int | None) -> ResidentCosts:
    learned = LoadCosts()
    learned.observe(model("x"), Tier.COLD, 1.0, GB)
    learned.observe(model("x"), Tier.WARM, 0.1, GB)
    return ResidentCosts(learned, shelf, SIZES.get, vram)


def test_a_new_lora_costs_a_lora_and_not_a_checkpoint() -> None:
    shelf = Shelf()
    shelf.put(Tier.HOT, "base", "encoder")
    costs = resident(shelf, 24 * GB)
    with_lora: ModelSet = models("base encoder") | {LORA}
    assert costs.load_seconds(models("base encoder")) == 0.0
    assert costs.load_seconds(with_lora) == pytest.approx(0.2)
    assert costs.load_seconds(models("other encoder")) == pytest.approx(12.0)


def test_what_runs_before_displaces_what_does_not_fit_beside_it() -> None:
    shelf = Shelf()
    shelf.put(Tier.HOT, "base")
    costs = resident(shelf, 22 * GB)
    assert costs.load_seconds(models("base"), [models("other")]) == pytest.approx(1.2)
    assert costs.load_seconds(models("base"), [models("base")]) == 0.0
    assert resident(shelf, None).load_seconds(models("base"), [models("other")]) == 0.0
