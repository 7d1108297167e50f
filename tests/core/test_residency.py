from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from normalizer import Chain
from normalizer.models import ModelRef
from proxy.core.budget import Machine
from proxy.core.costs import LoadCosts
from proxy.core.evidence import (
    Ending,
    MemoryRead,
    ModelsFreed,
    NodesCached,
    Part,
    PromptEnded,
    PromptRecalled,
    PromptSent,
    PromptStarted,
    ResidencyEvent,
    SizesRead,
    UpstreamDied,
    UpstreamStarted,
    Use,
)
from proxy.core.flags import GB, CacheMode, UpstreamFlags, VramMode
from proxy.core.residency import Residency
from proxy.core.sizes import Sizes, SizeSource
from proxy.core.tiers import Tier

CLASSIC = UpstreamFlags(cache=CacheMode.CLASSIC)
ROOMY = Machine(ram=64 * GB, host_ram=64 * GB, vram=24 * GB)
SIZES = dict.fromkeys("abcdef", 8 * GB)


def ref(name: str) -> ModelRef:
    return ModelRef("UNETLoader", (name,))


def chain(name: str, strength: float = 1.0) -> Chain:
    nodes = {f"node-{name}": {"class_type": "UNETLoader", "inputs": {"name": name, "strength": strength}}}
    return Chain(key=f"node-{name}", signature=f"{name}{strength}", nodes=nodes, models=frozenset({ref(name)}))


def part(name: str, kind: str = "MODEL", share: float = 1.0) -> Part:
    return Part(ref(name), kind, share)


def use(*names: str, waited: float = 0.0) -> Use:
    return Use(frozenset(map(part, names)), "KSampler", 1.0 + waited, 1.0)


class ComfyUI:
    """Plays one upstream to a residency, event by event."""

    def __init__(self, flags: UpstreamFlags = CLASSIC, machine: Machine = ROOMY, *, fresh: bool = True) -> None:
        self.costs = LoadCosts()
        self.residency = Residency(Sizes(), self.costs)
        self.now = 0.0
        self.prompts = 0
        self.tell(UpstreamStarted(flags, machine, fresh), SizesRead(SIZES))

    def tell(self, *events: ResidencyEvent) -> None:
        for event in events:
            self.now += 1.0
            self.residency.handle(event, self.now)

    def send(self, *own: str, pins: str = "", strength: float = 1.0) -> str:
        self.prompts += 1
        prompt_id = f"p{self.prompts}"
        chains = tuple(chain(name, strength) for name in own)
        components = {f"node-{name}": ref(name) for name in own}
        pinned = tuple(map(chain, pins))
        prompt = {node_id: node for each in (*chains, *pinned) for node_id, node in each.nodes.items()}
        others = {str(number): {"class_type": "X", "inputs": {"seed": (self.prompts, number)}} for number in range(3)}
        self.tell(PromptSent(prompt_id, chains, pinned, components, prompt | others))
        return prompt_id

    def run(self, prompt_id: str, *, cached: str = "", loads: Mapping[str, float] | None = None) -> None:
        self.tell(PromptStarted(prompt_id), NodesCached(prompt_id, frozenset(f"node-{name}" for name in cached)))
        self._loads = {f"node-{name}": seconds for name, seconds in (loads or {}).items()}

    def end(self, prompt_id: str, *uses: Use, ending: Ending = Ending.SUCCESS, disk_bytes: int | None = None) -> None:
        self.tell(PromptEnded(prompt_id, ending, self._loads, uses, disk_bytes))

    def prompt(
        self, name: str, *, pins: str = "", loaded: bool = True, waited: float = 0.0, strength: float = 1.0
    ) -> None:
        """One prompt with one model, from sending to success."""
        prompt_id = self.send(name, pins=pins, strength=strength)
        loads = {name: 5.0} if loaded else {}
        self.run(prompt_id, cached=pins if loaded else pins + name, loads=loads)
        self.end(prompt_id, use(name, waited=waited))

    def tiers(self, names: str) -> dict[str, Tier]:
        return {name: self.residency.tier(ref(name)) for name in names}


def test_nothing_is_known_of_a_process_that_was_there_before() -> None:
    comfy = ComfyUI(fresh=False)
    assert comfy.tiers("a") == {"a": Tier.UNKNOWN}
    comfy.prompt("b")
    assert comfy.tiers("ab") == {"a": Tier.COLD, "b": Tier.HOT}


def test_a_fresh_process_holds_nothing() -> None:
    assert ComfyUI().tiers("a") == {"a": Tier.COLD}


def test_what_is_not_carried_is_gone_and_what_is_pinned_stays() -> None:
    comfy = ComfyUI()
    comfy.prompt("a")
    comfy.prompt("b")
    assert comfy.tiers("ab") == {"a": Tier.COLD, "b": Tier.HOT}
    comfy.prompt("c", pins="b")
    assert comfy.tiers("bc") == {"b": Tier.HOT, "c": Tier.HOT}


def test_without_a_cache_nothing_survives_its_prompt() -> None:
    comfy = ComfyUI(UpstreamFlags(cache=CacheMode.NONE))
    comfy.prompt("a")
    assert comfy.tiers("a") == {"a": Tier.COLD}


def test_what_does_not_fit_into_vram_waits_in_ram() -> None:
    comfy = ComfyUI(machine=Machine(64 * GB, 64 * GB, 12 * GB))
    comfy.prompt("a")
    comfy.prompt("b", pins="a")
    assert comfy.tiers("ab") == {"a": Tier.WARM, "b": Tier.HOT}


@pytest.mark.parametrize("vram", [VramMode.CPU, VramMode.NONE])
def test_without_vram_everything_is_warm(vram: VramMode) -> None:
    comfy = ComfyUI(UpstreamFlags(cache=CacheMode.CLASSIC, vram=vram))
    comfy.prompt("a")
    assert comfy.tiers("a") == {"a": Tier.WARM}


def test_models_that_cannot_leave_vram_are_hot_while_they_live() -> None:
    comfy = ComfyUI(UpstreamFlags(cache=CacheMode.CLASSIC, vram=VramMode.GPU_ONLY), Machine(64 * GB, 64 * GB, 12 * GB))
    comfy.prompt("a")
    comfy.prompt("b", pins="a")
    assert comfy.tiers("ab") == {"a": Tier.HOT, "b": Tier.HOT}


def test_without_smart_memory_models_leave_vram_after_each_prompt() -> None:
    comfy = ComfyUI(UpstreamFlags(cache=CacheMode.CLASSIC, smart_memory=False))
    comfy.prompt("a")
    assert comfy.tiers("a") == {"a": Tier.WARM}


def test_dynamic_vram_leaves_what_was_displaced_unknown() -> None:
    flags = UpstreamFlags(cache=CacheMode.CLASSIC, dynamic_vram=True)
    comfy = ComfyUI(flags, Machine(64 * GB, 64 * GB, 12 * GB))
    comfy.prompt("a")
    comfy.prompt("b", pins="a")
    assert comfy.tiers("ab") == {"a": Tier.UNKNOWN, "b": Tier.HOT}


def test_an_out_of_memory_error_empties_vram_but_not_the_cache() -> None:
    comfy = ComfyUI()
    prompt_id = comfy.send("a")
    comfy.run(prompt_id, loads={"a": 5.0})
    comfy.end(prompt_id, use("a"), ending=Ending.OUT_OF_VRAM)
    assert comfy.tiers("a") == {"a": Tier.WARM}


@pytest.mark.parametrize(("free_memory", "tier"), [(False, Tier.WARM), (True, Tier.COLD)])
def test_free(free_memory: bool, tier: Tier) -> None:
    comfy = ComfyUI()
    comfy.prompt("a")
    comfy.tell(ModelsFreed(unload_models=True, free_memory=free_memory))
    assert comfy.tiers("a") == {"a": tier}


def test_what_will_be_freed_can_not_be_kept() -> None:
    comfy = ComfyUI()
    comfy.prompt("a")
    comfy.run(comfy.send("b", pins="a"), cached="a")
    assert comfy.residency.there_then == {ref("a"), ref("b")}
    comfy.tell(ModelsFreed(unload_models=True, free_memory=True))
    assert not comfy.residency.will_hold(chain("a"))
    assert not comfy.residency.will_hold(chain("b"))
    assert comfy.residency.there_then == frozenset()
    comfy.send("c")
    assert comfy.residency.will_hold(chain("c"))
    assert comfy.residency.there_then == {ref("c")}


def test_free_waits_for_the_running_prompt() -> None:
    comfy = ComfyUI()
    prompt_id = comfy.send("a")
    comfy.run(prompt_id, loads={"a": 5.0})
    comfy.tell(ModelsFreed(unload_models=True, free_memory=False))
    comfy.end(prompt_id, use("a"))
    assert comfy.tiers("a") == {"a": Tier.WARM}


def test_somebody_elses_prompt_leaves_everything_in_doubt() -> None:
    comfy = ComfyUI()
    comfy.prompt("a")
    comfy.tell(PromptStarted("not ours"))
    assert comfy.tiers("a") == {"a": Tier.UNKNOWN}
    comfy.prompt("a", loaded=False)
    assert comfy.tiers("a") == {"a": Tier.HOT}


def test_a_death_takes_everything_along() -> None:
    comfy = ComfyUI()
    comfy.prompt("a")
    comfy.tell(UpstreamDied())
    assert comfy.tiers("a") == {"a": Tier.COLD}


def test_a_pin_that_was_not_there_is_cold() -> None:
    comfy = ComfyUI()
    comfy.prompt("a")
    prompt_id = comfy.send("b", pins="a")
    comfy.run(prompt_id, cached="")
    assert comfy.tiers("a") == {"a": Tier.COLD}


def test_a_loader_that_never_ran_is_not_there() -> None:
    comfy = ComfyUI()
    prompt_id = comfy.send("a", "b")
    comfy.run(prompt_id, loads={"a": 5.0})
    comfy.end(prompt_id, ending=Ending.FAILURE)
    assert comfy.tiers("ab") == {"a": Tier.WARM, "b": Tier.COLD}


def test_low_thresholds_keep_models_while_ram_lasts() -> None:
    comfy = ComfyUI(UpstreamFlags(version=(0, 33, 0), cache=CacheMode.RAM_PRESSURE, cache_ram=(4.0, 4.0)))
    comfy.tell(MemoryRead(host_ram_free=60 * GB))
    comfy.prompt("a")
    comfy.prompt("b")
    assert comfy.tiers("a") == {"a": Tier.HOT}
    comfy.tell(MemoryRead(host_ram_free=8 * GB))
    comfy.prompt("c")
    assert comfy.tiers("a") == {"a": Tier.COLD}


def test_near_a_threshold_nobody_can_tell() -> None:
    comfy = ComfyUI(UpstreamFlags(version=(0, 33, 0), cache=CacheMode.RAM_PRESSURE, cache_ram=(4.0, 4.0)))
    comfy.prompt("a")
    comfy.tell(MemoryRead(host_ram_free=12 * GB))
    comfy.prompt("b")
    assert comfy.tiers("a") == {"a": Tier.UNKNOWN}


def test_the_default_thresholds_forget_like_the_classic_cache() -> None:
    comfy = ComfyUI(UpstreamFlags(version=(0, 33, 0), cache=CacheMode.RAM_PRESSURE))
    comfy.prompt("a")
    comfy.prompt("b")
    assert comfy.tiers("a") == {"a": Tier.COLD}


@pytest.mark.parametrize(("size", "tier"), [(7, Tier.COLD), (8, Tier.HOT)])
def test_the_lru_cache_keeps_by_generation(size: int, tier: Tier) -> None:
    comfy = ComfyUI(UpstreamFlags(cache=CacheMode.LRU, lru_size=size))
    for name in "abc":  # each brings four results, and old ones go when the next prompt begins
        comfy.prompt(name)
    assert comfy.tiers("abc") == {"a": tier, "b": Tier.HOT, "c": Tier.HOT}


def test_a_chain_can_be_kept_only_while_every_prompt_before_carries_it() -> None:
    comfy = ComfyUI()
    comfy.prompt("a")
    assert comfy.residency.will_hold(chain("a"))
    running = comfy.send("b", pins="a")
    comfy.run(running, cached="a")
    staged = comfy.send("c", pins="b")
    assert not comfy.residency.will_hold(chain("a"))
    assert comfy.residency.will_hold(chain("b"))
    assert comfy.residency.will_hold(chain("c"))
    comfy.tell(PromptRecalled(staged))
    assert comfy.residency.will_hold(chain("a"))


def test_a_cache_that_keeps_by_itself_keeps_what_is_not_carried() -> None:
    comfy = ComfyUI(UpstreamFlags(cache=CacheMode.LRU, lru_size=100))
    comfy.prompt("a")
    comfy.send("b")
    assert comfy.residency.will_hold(chain("a"))


def test_a_changed_knob_is_no_load() -> None:
    comfy = ComfyUI()
    comfy.prompt("a")
    comfy.prompt("a", strength=0.5)
    tiers = comfy.residency.accuracy().tiers
    assert tiers[Tier.COLD].uses == 1
    assert comfy.tiers("a") == {"a": Tier.HOT}


def test_predictions_are_judged_by_loaders_that_ran() -> None:
    comfy = ComfyUI()
    comfy.prompt("a")
    comfy.prompt("a")  # its loader ran again although we thought it was there
    scores = comfy.residency.accuracy().tiers
    assert (scores[Tier.COLD].uses, scores[Tier.COLD].right) == (1, 1)
    assert (scores[Tier.HOT].uses, scores[Tier.HOT].right) == (1, 0)
    assert comfy.residency.accuracy().share == 0.5


@pytest.mark.parametrize(("waited", "right"), [(0.0, 1), (2.0, 0)])
def test_predictions_are_judged_by_the_wait_for_the_first_step(waited: float, right: int) -> None:
    comfy = ComfyUI()
    comfy.prompt("a")
    comfy.prompt("a", loaded=False, waited=waited)
    score = comfy.residency.accuracy().tiers[Tier.HOT]
    assert (score.uses, score.right) == (1, right)


def test_small_components_are_not_judged_by_timing() -> None:
    comfy = ComfyUI()
    comfy.tell(SizesRead({"a": GB // 10}))
    comfy.prompt("a")
    comfy.prompt("a", loaded=False, waited=2.0)
    assert comfy.residency.accuracy().tiers[Tier.HOT].uses == 0


def test_under_dynamic_vram_disk_reads_tell_warm_from_cold() -> None:
    flags = UpstreamFlags(cache=CacheMode.CLASSIC, dynamic_vram=True)
    for disk_bytes, seen in ((0, Tier.WARM), (8 * GB, Tier.COLD)):
        comfy = ComfyUI(flags)
        comfy.prompt("a")
        prompt_id = comfy.send("a")
        comfy.run(prompt_id, cached="a")
        comfy.end(prompt_id, use("a", waited=20.0), disk_bytes=disk_bytes)
        assert comfy.residency._judge.scores._counts[Tier.HOT, seen] == 1


def test_encoders_are_judged_once_their_bare_computing_time_is_known() -> None:
    comfy = ComfyUI()
    encode = Use(frozenset({part("a")}), "CLIPTextEncode", 3.0)
    again = Use(frozenset({part("a")}), "CLIPTextEncode", 0.1)
    for cached, uses in (("", [encode, again]), ("a", [again, again]), ("a", [encode, again])):
        prompt_id = comfy.send("a")
        comfy.run(prompt_id, cached=cached, loads={} if cached else {"a": 5.0})
        comfy.end(prompt_id, *uses)
    score = comfy.residency.accuracy().tiers[Tier.HOT]
    assert (score.uses, score.right) == (2, 1)


def test_loading_teaches_what_it_costs() -> None:
    comfy = ComfyUI()
    comfy.prompt("a", waited=2.0)
    assert comfy.costs.seconds(ref("a"), Tier.COLD) == 7.0
    assert comfy.costs.seconds(ref("a"), Tier.WARM) == 2.0
    assert comfy.costs.bandwidth(Tier.WARM) == 4 * GB


def test_a_wrong_guess_of_vram_is_corrected() -> None:
    comfy = ComfyUI(machine=Machine(64 * GB, 64 * GB, 18 * GB))
    comfy.prompt("a", waited=2.0)
    for _ in range(20):
        comfy.prompt("b", pins="a", loaded=False, waited=2.0)
        comfy.prompt("a", pins="b", loaded=False, waited=2.0)
    assert comfy.tiers("ab") == {"a": Tier.HOT, "b": Tier.WARM}


def test_a_reading_that_refutes_vram_leaves_doubt() -> None:
    comfy = ComfyUI()
    comfy.prompt("a")
    comfy.tell(MemoryRead(vram_total=24 * GB, vram_free=23 * GB))
    assert comfy.tiers("a") == {"a": Tier.UNKNOWN}


def test_what_others_take_is_told_apart_from_components() -> None:
    comfy = ComfyUI(machine=Machine(64 * GB, 64 * GB, 12 * GB))
    comfy.tell(MemoryRead(ram_free=54 * GB))
    assert comfy.residency.usage().ram_others == 10 * GB
    comfy.prompt("a")
    comfy.prompt("b", pins="a")
    comfy.tell(MemoryRead(ram_free=44 * GB))
    others = comfy.residency.usage().ram_others
    assert others is not None
    assert 12 * GB <= others <= 16 * GB  # 8 GB of what is taken are the one that left VRAM, and part of the other


def test_while_a_prompt_loads_the_higher_figure_holds() -> None:
    comfy = ComfyUI()
    comfy.tell(MemoryRead(ram_free=40 * GB))
    prompt_id = comfy.send("a")
    comfy.run(prompt_id)
    comfy.tell(MemoryRead(ram_free=39 * GB))
    assert comfy.residency.usage().ram_others == 24 * GB
    comfy.tell(MemoryRead(ram_free=10 * GB))
    assert comfy.residency.usage().ram_others == 46 * GB


def test_other_processes_are_told_by_the_driver() -> None:
    comfy = ComfyUI()
    comfy.prompt("a")
    comfy.tell(MemoryRead(vram_total=24 * GB, vram_free=2 * GB, vram_others=12 * GB))
    comfy.prompt("b", pins="a")
    assert comfy.tiers("ab") == {"a": Tier.WARM, "b": Tier.HOT}


def in_ram(free: int) -> MemoryRead:
    return MemoryRead(ram_free=free, host_ram_free=free)


KEEPS_IN_RAM = UpstreamFlags(version=(0, 33, 0), cache=CacheMode.RAM_PRESSURE, vram=VramMode.CPU, cache_ram=(2.0, 2.0))


def test_ram_that_holds_less_than_believed_leaves_doubt_and_then_certainty() -> None:
    comfy = ComfyUI(KEEPS_IN_RAM)
    for place, name in enumerate("abc"):
        comfy.tell(in_ram((60 - 8 * place) * GB))
        comfy.prompt(name)
    comfy.tell(in_ram(36 * GB))
    assert set(comfy.tiers("abc").values()) == {Tier.WARM}
    comfy.tell(in_ram(60 * GB - 23 * GB))
    assert comfy.tiers("abc") == {"a": Tier.UNKNOWN, "b": Tier.WARM, "c": Tier.WARM}
    comfy.tell(in_ram(60 * GB - 17 * GB))
    assert comfy.tiers("abc") == {"a": Tier.COLD, "b": Tier.WARM, "c": Tier.WARM}
    assert comfy.residency.will_hold(chain("a"))


def test_weights_in_mapped_files_do_not_show_in_ram() -> None:
    comfy = ComfyUI(KEEPS_IN_RAM)
    for name in "abc":
        comfy.tell(in_ram(60 * GB))
        comfy.prompt(name)
    comfy.tell(in_ram(60 * GB))
    assert set(comfy.tiers("abc").values()) == {Tier.WARM}
    assert comfy.residency.usage().ram_others == 4 * GB


def test_one_step_that_fits_is_no_proof() -> None:
    comfy = ComfyUI(KEEPS_IN_RAM)
    for free, name in ((60, "a"), (52, "b"), (52, "c"), (44, "d")):
        comfy.tell(in_ram(free * GB))
        comfy.prompt(name)
    comfy.tell(in_ram(44 * GB))
    assert set(comfy.tiers("abcd").values()) == {Tier.WARM}


def test_vram_that_others_take_is_not_counted_on() -> None:
    comfy = ComfyUI()
    comfy.tell(MemoryRead(vram_total=24 * GB, vram_free=11 * GB))
    comfy.prompt("a")
    comfy.prompt("b", pins="a")
    assert comfy.tiers("ab") == {"a": Tier.WARM, "b": Tier.HOT}


def test_the_parts_of_a_checkpoint_move_one_by_one() -> None:
    comfy = ComfyUI(machine=Machine(64 * GB, 64 * GB, 9 * GB))
    prompt_id = comfy.send("a")
    comfy.run(prompt_id, loads={"a": 5.0})
    encode = Use(frozenset({part("a", "CLIP", 0.24)}), "CLIPTextEncode", 0.1)
    comfy.end(prompt_id, encode)
    assert comfy.tiers("a") == {"a": Tier.WARM}
    prompt_id = comfy.send("a")
    comfy.run(prompt_id, cached="a")
    comfy.end(prompt_id, Use(frozenset({part("a", "MODEL", 0.74)}), "KSampler", 1.0, 1.0))
    assert comfy.tiers("a") == {"a": Tier.HOT}


def test_a_lora_has_no_weights_in_vram() -> None:
    comfy = ComfyUI()
    prompt_id = comfy.send("a", "b")
    comfy.run(prompt_id, loads={"a": 5.0, "b": 1.0})
    comfy.end(prompt_id, Use(frozenset({part("a"), part("b", share=0.0)}), "KSampler", 1.0, 1.0))
    assert comfy.tiers("ab") == {"a": Tier.HOT, "b": Tier.WARM}


def test_another_lora_makes_the_first_step_late_and_tells_nothing() -> None:
    comfy = ComfyUI()
    comfy.prompt("a")
    prompt_id = comfy.send("a")
    comfy.run(prompt_id, cached="a")
    comfy.end(prompt_id, Use(frozenset({part("a"), part("b", share=0.0)}), "KSampler", 5.0, 1.0))
    assert comfy.residency.accuracy().tiers[Tier.HOT].uses == 0


def test_lowvram_keeps_text_encoders_in_ram() -> None:
    comfy = ComfyUI(UpstreamFlags(cache=CacheMode.CLASSIC, vram=VramMode.LOW))
    prompt_id = comfy.send("a", "b")
    comfy.run(prompt_id, loads={"a": 5.0, "b": 5.0})
    comfy.end(prompt_id, use("a"), Use(frozenset({part("b", "CLIP")}), "CLIPTextEncode", 1.0))
    assert comfy.tiers("ab") == {"a": Tier.HOT, "b": Tier.WARM}


def test_a_size_nobody_lists_is_measured() -> None:
    comfy = ComfyUI()
    assert comfy.residency.sizes.size(ref("x")).source is SizeSource.ASSUMED
    comfy.tell(MemoryRead(ram_free=40 * GB, vram_free=20 * GB, vram_total=24 * GB))
    comfy.prompt("x")
    comfy.tell(MemoryRead(ram_free=39 * GB, vram_free=18 * GB, vram_total=24 * GB))
    size = comfy.residency.sizes.size(ref("x"))
    assert (size.bytes, size.source) == (3 * GB, SizeSource.MEASURED)


def test_status_tells_each_component() -> None:
    comfy = ComfyUI()
    comfy.prompt("a")
    comfy.run(comfy.send("b", pins="a"), cached="a")
    newest, older = comfy.residency.components([frozenset({ref("a")})])
    assert (newest.ref, newest.pinned, newest.needed_in) == (ref("b"), False, None)
    assert (older.ref, older.pinned, older.needed_in, older.size.bytes) == (ref("a"), True, 1, 8 * GB)


EVENTS = st.one_of(
    st.builds(PromptStarted, st.sampled_from(["p1", "p2", "p3", "x"])),
    st.builds(PromptRecalled, st.sampled_from(["p1", "p2"])),
    st.builds(NodesCached, st.sampled_from(["p1", "p2", "p3"]), st.frozensets(st.sampled_from(["node-a", "node-b"]))),
    st.builds(
        PromptEnded,
        st.sampled_from(["p1", "p2", "p3", "x"]),
        st.sampled_from(Ending),
        st.dictionaries(st.sampled_from(["node-a", "node-b"]), st.floats(0, 100)),
        st.lists(st.sampled_from([use("a"), use("a", "b", waited=9.0), use("c")])).map(tuple),
        st.none() | st.integers(0, 9 * GB),
    ),
    st.builds(ModelsFreed, st.booleans(), st.booleans()),
    st.builds(MemoryRead, *[st.none() | st.integers(0, 64 * GB) for _ in range(4)]),
    st.just(UpstreamDied()),
)
FLAGS = st.builds(
    UpstreamFlags,
    version=st.just((0, 33, 0)),
    cache=st.sampled_from(CacheMode),
    lru_size=st.integers(0, 9),
    cache_ram=st.sampled_from([(), (2.0, 2.0), (8.0, 30.0)]),
    vram=st.sampled_from(VramMode),
    dynamic_vram=st.booleans(),
    smart_memory=st.booleans(),
)


@given(
    FLAGS, st.booleans(), st.lists(EVENTS | st.tuples(st.sampled_from(["a", "ab", "c"]), st.sampled_from(["", "b"])))
)
def test_any_order_of_events_leaves_a_sane_state(
    flags: UpstreamFlags, fresh: bool, events: Sequence[ResidencyEvent | tuple[str, str]]
) -> None:
    comfy = ComfyUI(flags, Machine(64 * GB, 64 * GB, 12 * GB), fresh=fresh)
    for event in events:
        if isinstance(event, tuple):
            comfy.send(*event[0], pins=event[1])
        else:
            comfy.tell(event)
        usage = comfy.residency.usage()
        assert (usage.ram_others or 0) >= 0
        assert (usage.vram_others or 0) >= 0
        for state in comfy.residency.components():
            assert state.tier is comfy.residency.tier(state.ref)
            assert state.tier is not Tier.HOT or flags.uses_vram
    share = comfy.residency.accuracy().share
    assert share is None or 0.0 <= share <= 1.0
    comfy.tell(UpstreamDied())
    assert set(comfy.tiers("abc").values()) == {Tier.COLD}
