"""Models under keys of the Inspire Pack: where they are, what a loader of theirs that ran tells, which ones go."""

from collections.abc import Mapping

import pytest

from normalizer import Chain
from normalizer.models import ModelRef
from normalizer.shared import cache_key
from proxy.core.budget import Limits, Machine
from proxy.core.costs import LoadCosts
from proxy.core.eviction import Candidate
from proxy.core.evidence import (
    Ending,
    ModelsFreed,
    NodesCached,
    PromptEnded,
    PromptSent,
    PromptStarted,
    SizesRead,
    UpstreamDied,
    UpstreamStarted,
)
from proxy.core.flags import GB, CacheMode, UpstreamFlags
from proxy.core.pinning import PinPlanner
from proxy.core.residency import Residency
from proxy.core.sizes import Sizes
from proxy.core.tiers import Tier

MACHINE = Machine(ram=64 * GB, host_ram=64 * GB)


def ref(name: str) -> ModelRef:
    return ModelRef("UNETLoader", (name,))


def chain(name: str) -> Chain:
    nodes = {name: {"class_type": "UNETLoader", "inputs": {"name": name}}}
    return Chain(key=name, signature=name, nodes=nodes, models=frozenset({ref(name)}))


def key(name: str) -> str:
    return cache_key("UNETLoader", {"unet_name": name})


class ComfyUI:
    """One that caches no node results, with the pack."""

    def __init__(self, limits: Limits | None = None, cache: CacheMode = CacheMode.NONE) -> None:
        self.costs = LoadCosts()
        self.planner = PinPlanner(Residency(Sizes(), self.costs), limits or Limits(), ())
        self.planner.handle(UpstreamStarted(UpstreamFlags(cache=cache), MACHINE, fresh=True), 0.0)
        self.planner.handle(SizesRead(dict.fromkeys("abcdefgh", 8 * GB)), 0.0)
        self.runs = 0

    @property
    def residency(self) -> Residency:
        return self.planner.residency

    def run(
        self, name: str, seconds: float = 8.0, shared: Mapping[str, str] | None = None, *, cached: bool = False
    ) -> None:
        self.runs += 1
        keys = {name: key(name)} if shared is None else shared
        mine = chain(name)
        sent = PromptSent(f"p{self.runs}", (mine,), (), {name: ref(name)}, mine.nodes, keys)
        self.planner.handle(sent, self.runs)
        self.planner.handle(PromptStarted(sent.prompt_id), self.runs)
        self.planner.handle(NodesCached(sent.prompt_id, frozenset(mine.nodes if cached else ())), self.runs)
        ran = {} if cached else {name: seconds}
        self.planner.handle(PromptEnded(sent.prompt_id, Ending.SUCCESS, ran), self.runs)

    def gone(self, names: str) -> dict[str, str]:
        candidates = [Candidate(chain(name), float(place)) for place, name in enumerate(names)]
        return {item.ref.label: item.reason for item in self.planner.let_go(candidates, 100.0) if item.ref}


@pytest.mark.parametrize("cache", [CacheMode.NONE, CacheMode.CLASSIC])
def test_what_is_under_a_key_stays_whatever_the_node_cache_does(cache: CacheMode) -> None:
    comfy = ComfyUI(cache=cache)
    for name in "abc":
        comfy.run(name)
    assert [comfy.residency.tier(ref(name)) for name in "abcd"] == [Tier.WARM, Tier.WARM, Tier.WARM, Tier.COLD]


def test_without_a_key_nothing_stays_under_cache_none() -> None:
    comfy = ComfyUI()
    comfy.run("a", shared={})
    assert comfy.residency.tier(ref("a")) is Tier.COLD


def test_a_loader_whose_result_is_cached_asks_for_no_key() -> None:
    comfy = ComfyUI(cache=CacheMode.LRU)
    for name in "ab":
        comfy.run(name)
    comfy.residency.shared.remove([key("b")])
    for name in "ab":
        comfy.run(name, cached=True)
    assert list(comfy.residency.shared.ours()) == [key("a")]
    for name in "ba":
        comfy.run(name)
    comfy.run("b", cached=True)
    assert list(comfy.residency.shared.ours()) == [key("b"), key("a")]


def test_freeing_memory_does_not_reach_keys_and_death_does() -> None:
    comfy = ComfyUI()
    comfy.run("a")
    comfy.planner.handle(ModelsFreed(unload_models=True, free_memory=True), 2.0)
    assert comfy.residency.tier(ref("a")) is Tier.WARM
    comfy.planner.handle(UpstreamDied(), 3.0)
    assert comfy.residency.tier(ref("a")) is Tier.COLD


def test_a_loader_that_found_its_model_teaches_no_loading_cost() -> None:
    comfy = ComfyUI()
    comfy.run("a", seconds=8.0)
    comfy.run("a", seconds=0.01)
    assert comfy.costs.seconds(ref("a"), Tier.COLD) == 8.0


def test_a_loader_that_took_long_has_read_its_file_whatever_was_thought() -> None:
    comfy = ComfyUI()
    comfy.run("a", seconds=8.0)
    comfy.run("a", seconds=4.0)
    assert comfy.costs.seconds(ref("a"), Tier.COLD) < 8.0


def test_what_fits_stays() -> None:
    comfy = ComfyUI()
    for name in "abc":
        comfy.run(name)
    assert comfy.gone("abc") == {}


def test_what_does_not_fit_into_its_share_of_the_ram_goes_the_longest_unused_first() -> None:
    comfy = ComfyUI(Limits(ram_share=0.25))
    for name in "abc":
        comfy.run(name)
    gone = comfy.gone("abc")
    assert list(gone) == ["a"]
    assert "would pass the" in gone["a"]


def test_more_chains_than_may_be_kept_go() -> None:
    comfy = ComfyUI(Limits(max_chains=1))
    for name in "ab":
        comfy.run(name)
    assert list(comfy.gone("ab")) == ["a"]


def test_what_is_to_be_kept_after_a_warm_up_stays() -> None:
    comfy = ComfyUI(Limits(max_chains=1))
    for name in "ab":
        comfy.run(name)
    comfy.planner.keep(frozenset({ref("a")}), until=1000.0)
    assert list(comfy.gone("ab")) == ["b"]
