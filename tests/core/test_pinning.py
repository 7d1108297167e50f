from collections.abc import Sequence

import pytest

from normalizer import Chain
from normalizer.models import ModelRef
from proxy.core.budget import CALM_PROMPTS, Limits, Machine
from proxy.core.costs import LoadCosts
from proxy.core.eviction import Candidate
from proxy.core.evidence import (
    Ending,
    MemoryRead,
    ModelsFreed,
    NodesCached,
    PromptEnded,
    PromptSent,
    PromptStarted,
    SizesRead,
    UpstreamDied,
    UpstreamStarted,
)
from proxy.core.flags import GB, CacheMode, UpstreamFlags, VramMode
from proxy.core.groups import Group, Keep
from proxy.core.pinning import PinPlanner
from proxy.core.residency import Residency
from proxy.core.sizes import Sizes

FLAGS = UpstreamFlags(version=(0, 33, 0), cache=CacheMode.CLASSIC)
MACHINE = Machine(ram=64 * GB, host_ram=64 * GB, vram=24 * GB)


def ref(name: str) -> ModelRef:
    return ModelRef("UNETLoader", (name,))


def chain(name: str) -> Chain:
    nodes = {name: {"class_type": "UNETLoader", "inputs": {"name": name}}}
    return Chain(key=name, signature=name, nodes=nodes, models=frozenset({ref(name)}))


def planner(
    cache: CacheMode = CacheMode.CLASSIC,
    limits: Limits | None = None,
    lru_size: int = 0,
    vram: VramMode = VramMode.NORMAL,
) -> PinPlanner:
    made = PinPlanner(Residency(Sizes(), LoadCosts()), limits or Limits(), ())
    flags = UpstreamFlags(version=(0, 33, 0), cache=cache, lru_size=lru_size, vram=vram)
    made.handle(UpstreamStarted(flags, MACHINE, fresh=True), 0.0)
    made.handle(SizesRead(dict.fromkeys("abcdefgh", 8 * GB)), 0.0)
    return made


def begin(made: PinPlanner, name: str, pins: str = "") -> str:
    prompt_id = f"prompt-{name}"
    sent = PromptSent(prompt_id, (chain(name),), tuple(map(chain, pins)), {name: ref(name)}, chain(name).nodes)
    made.handle(sent, 1.0)
    made.handle(PromptStarted(prompt_id), 2.0)
    made.handle(NodesCached(prompt_id, frozenset(pins)), 2.0)
    return prompt_id


def run(made: PinPlanner, name: str, pins: str = "", ending: Ending = Ending.SUCCESS) -> None:
    made.handle(PromptEnded(begin(made, name, pins), ending, {name: 4.0}), 3.0)


def planned(made: PinPlanner, names: str, own: str = "z") -> Sequence[str]:
    candidates = [Candidate(chain(name), float(place)) for place, name in enumerate(names)]
    return [item.key for item in made.plan(candidates, [chain(own)], (), 10.0).chosen]


def test_pins_what_is_there_and_fits() -> None:
    made = planner()
    run(made, "a")
    run(made, "b", pins="a")
    assert planned(made, "abc") == ["b", "a"]


def test_free_ram_under_the_reserve_lets_pins_go() -> None:
    made = planner()
    run(made, "a")
    run(made, "b", pins="a")
    made.handle(MemoryRead(ram_free=4 * GB), 5.0)
    assert planned(made, "ab") == []


def test_a_death_halves_the_budget_and_calm_brings_it_back() -> None:
    made = planner(limits=Limits(ram_share=0.5))
    run(made, "a")
    begin(made, "b", pins="a")
    made.handle(UpstreamDied(), 4.0)
    made.handle(UpstreamStarted(FLAGS, MACHINE, fresh=True), 5.0)
    assert made.budget.pins == 16 * GB
    for _ in range(4 * CALM_PROMPTS):
        run(made, "a")
    assert made.budget.pins == 32 * GB


@pytest.mark.parametrize("pins", ["", "a"])
def test_a_death_teaches_only_when_pins_were_carried_by_what_ran(pins: str) -> None:
    made = planner()
    run(made, "a")
    begin(made, "b", pins=pins)
    made.handle(UpstreamDied(), 4.0)
    made.handle(UpstreamStarted(FLAGS, MACHINE, fresh=True), 5.0)
    assert made.budget.pins == (16 * GB if pins else 32 * GB)
    made.handle(UpstreamDied(), 6.0)
    made.handle(UpstreamStarted(FLAGS, MACHINE, fresh=True), 7.0)
    assert made.budget.pins == (16 * GB if pins else 32 * GB)


def test_a_connection_that_broke_teaches_nothing_and_leaves_pins_worth_trying() -> None:
    made = planner()
    run(made, "a")
    begin(made, "b", pins="a")
    made.handle(UpstreamDied(), 4.0)
    assert planned(made, "a") == []
    made.handle(UpstreamStarted(FLAGS, MACHINE, fresh=False), 5.0)
    assert made.budget.pins == 32 * GB
    assert planned(made, "a") == ["a"]


def test_what_is_sent_before_comfyui_has_said_what_it_is_is_not_forgotten() -> None:
    made = planner()
    made.handle(UpstreamDied(), 4.0)
    begin(made, "a")
    made.handle(UpstreamStarted(FLAGS, MACHINE, fresh=True), 5.0)
    made.handle(PromptEnded("prompt-a", Ending.SUCCESS, {"a": 4.0}), 6.0)
    assert planned(made, "ab") == ["a"]


@pytest.mark.parametrize("ending", [Ending.OUT_OF_VRAM, Ending.OUT_OF_RAM])
def test_running_out_of_memory_cuts_pins_back(ending: Ending) -> None:
    made = planner()
    run(made, "a")
    run(made, "b", pins="a", ending=ending)
    assert made.budget.pins == 6 * GB
    run(made, "c", ending=ending)
    assert made.budget.pins == 6 * GB


@pytest.mark.parametrize(
    ("cache", "free"), [(CacheMode.RAM_PRESSURE, True), (CacheMode.LRU, True), (CacheMode.CLASSIC, False)]
)
def test_a_new_model_that_does_not_fit_beside_the_old_ones_needs_room_made(cache: CacheMode, free: bool) -> None:
    made = planner(cache, lru_size=100)
    held = "abcdef"
    for place, name in enumerate(held):
        run(made, name, pins=held[:place])
    assert not made.must_free([chain("g")])
    run(made, "g", pins=held)
    assert made.must_free([chain("h")]) is free
    assert not made.must_free([chain("a")])
    made.handle(ModelsFreed(unload_models=True, free_memory=True), 5.0)
    assert not made.must_free([chain("h")])


@pytest.mark.parametrize(("cache", "free"), [(CacheMode.RAM_PRESSURE, False), (CacheMode.LRU, True)])
def test_only_the_lru_cache_takes_all_new_models_beside_the_old_ones(cache: CacheMode, free: bool) -> None:
    made = planner(cache, lru_size=100)
    held = "abcdef"
    for place, name in enumerate(held):
        run(made, name, pins=held[:place])
    assert made.must_free([chain("g"), chain("h")]) is free


def test_where_nothing_would_be_freed_nothing_is() -> None:
    made = planner(CacheMode.LRU, lru_size=100)
    run(made, "a")
    assert not made.must_free([chain(name) for name in "abcdefgh"])


def test_in_vram_that_models_cannot_leave_room_is_made_too() -> None:
    made = planner(CacheMode.RAM_PRESSURE, vram=VramMode.GPU_ONLY)
    run(made, "a")
    assert not made.must_free([chain("b")])
    run(made, "b", pins="a")
    assert made.must_free([chain("c")])


@pytest.mark.parametrize(
    ("cache", "now", "overdue"),
    [
        (CacheMode.CLASSIC, 69.0, ""),
        (CacheMode.CLASSIC, 71.0, "a"),
        (CacheMode.RAM_PRESSURE, 71.0, "a"),
        (CacheMode.LRU, 71.0, ""),
    ],
)
def test_what_a_group_keeps_no_longer_is_overdue_where_any_prompt_lets_it_go(
    cache: CacheMode, now: float, overdue: str
) -> None:
    made = planner(cache, lru_size=100)
    made.groups = (Group("films", ("a", "c"), Keep.ON_DEMAND),)
    run(made, "a")
    run(made, "b", pins="a")
    candidates = [Candidate(chain(name), 10.0) for name in "abc"]
    assert made.overdue(candidates, now) == {ref(name) for name in overdue}


def test_what_is_kept_after_its_warm_up_is_not_overdue() -> None:
    made = planner()
    made.groups = (Group("films", ("a",), Keep.ON_DEMAND),)
    run(made, "a")
    made.keep(frozenset({ref("a")}), until=100.0)
    assert made.overdue([Candidate(chain("a"), 0.0)], 99.0) == frozenset()
    assert made.overdue([Candidate(chain("a"), 0.0)], 101.0) == {ref("a")}


def test_without_a_cache_nothing_is_pinned() -> None:
    made = planner(CacheMode.NONE)
    run(made, "a")
    assert planned(made, "a") == []
