"""Dynamic VRAM: a cached loader tells nothing, and the tier comes from what was paged in, copied and read."""

from dataclasses import replace

import pytest

from normalizer.models import ModelRef
from proxy.core.budget import Machine
from proxy.core.evidence import MemoryRead, ModelsFreed, PromptStarted
from proxy.core.flags import GB, CacheMode, UpstreamFlags
from proxy.core.paging import FilePages
from proxy.core.tiers import Tier
from tests.core.residency_stage import ComfyUI, in_ram, ref, use

DYNAMIC = UpstreamFlags(cache=CacheMode.CLASSIC, dynamic_vram=True)
"""Files of 8 GB each: of two, one fits 12 GB of VRAM, and both 64 GB of RAM."""
TIGHT = Machine(ram=64 * GB, host_ram=64 * GB, vram=12 * GB)


def comfy(flags: UpstreamFlags = DYNAMIC, machine: Machine = TIGHT, free: int = 60) -> ComfyUI:
    played = ComfyUI(flags, machine)
    played.tell(in_ram(free * GB))
    return played


def test_what_left_vram_is_warm_while_its_copy_is_in_ram() -> None:
    played = comfy()
    played.prompt("a")
    played.prompt("b", pins="a")
    assert played.tiers("ab") == {"a": Tier.WARM, "b": Tier.HOT}


def test_what_was_used_longest_ago_leaves_first_and_only_as_far_as_it_must() -> None:
    played = comfy(machine=replace(TIGHT, vram=24 * GB))
    played.prompt("a")
    played.prompt("b", pins="a")
    played.prompt("c", pins="ab")
    assert played.tiers("abc") == {"a": Tier.HOT, "b": Tier.HOT, "c": Tier.HOT}  # a has 7 of its 8 GB there
    played.prompt("d", pins="abc")
    assert played.tiers("abcd") == {"a": Tier.WARM, "b": Tier.HOT, "c": Tier.HOT, "d": Tier.HOT}


def test_headroom_is_left_to_others() -> None:
    flags = replace(DYNAMIC, reserve_vram=5.0, vram_headroom=4.0)
    played = comfy(flags, replace(TIGHT, vram=24 * GB))
    for name, pins in (("a", ""), ("b", "a"), ("c", "ab")):
        played.prompt(name, pins=pins)
    assert played.tiers("abc") == {"a": Tier.WARM, "b": Tier.HOT, "c": Tier.HOT}  # without it a would be hot too


def test_a_model_that_lives_may_be_cold_where_ram_is_short() -> None:
    played = comfy(free=18)
    for name, pins in (("a", ""), ("b", "a"), ("c", "ab")):
        played.prompt(name, pins=pins)
    assert played.tiers("c") == {"c": Tier.HOT}
    # One copy beside the 3.2 GB that stay free: that of b went for that of c, and a is older still.
    assert played.tiers("ab") == {"a": Tier.WARM, "b": Tier.COLD}


def test_high_ram_keeps_all_copies() -> None:
    played = comfy(replace(DYNAMIC, high_ram=True), free=18)
    for name, pins in (("a", ""), ("b", "a"), ("c", "ab")):
        played.prompt(name, pins=pins)
    assert played.tiers("ab") == {"a": Tier.WARM, "b": Tier.WARM}


def test_a_fast_disk_leaves_it_to_the_page_cache() -> None:
    for free, expected in ((60, Tier.WARM), (20, Tier.UNKNOWN), (12, Tier.COLD)):
        played = comfy(replace(DYNAMIC, fast_disk=True), free=free)
        played.prompt("a")
        played.prompt("b", pins="a")
        assert played.tiers("ab") == {"a": expected, "b": Tier.HOT}


@pytest.mark.parametrize(("free", "tier"), [(60, Tier.WARM), (10, Tier.UNKNOWN)])
def test_after_free_the_file_may_still_be_in_the_page_cache(free: int, tier: Tier) -> None:
    played = comfy(free=60)
    played.prompt("a")
    played.tell(ModelsFreed(unload_models=True, free_memory=False), in_ram(free * GB))
    assert played.tiers("a") == {"a": tier}


@pytest.mark.parametrize(("free", "tier"), [(60, Tier.WARM), (10, Tier.COLD)])
def test_without_smart_memory_only_files_are_left_after_each_prompt(free: int, tier: Tier) -> None:
    played = comfy(replace(DYNAMIC, smart_memory=False), free=free)
    played.prompt("a")
    assert played.tiers("a") == {"a": tier}


def test_somebody_elses_prompt_leaves_everything_in_doubt() -> None:
    played = comfy()
    played.prompt("a")
    played.tell(PromptStarted("not ours"))
    assert played.tiers("a") == {"a": Tier.UNKNOWN}


def test_a_reading_of_vram_tells_what_was_pushed_out() -> None:
    played = comfy(machine=replace(TIGHT, vram=24 * GB))
    played.prompt("a")
    played.prompt("b", pins="a")
    assert played.tiers("ab") == {"a": Tier.HOT, "b": Tier.HOT}
    played.tell(MemoryRead(vram_total=24 * GB, vram_free=14 * GB))
    assert played.tiers("ab") == {"a": Tier.WARM, "b": Tier.HOT}
    played.tell(MemoryRead(vram_total=24 * GB, vram_free=24 * GB))
    assert played.tiers("ab") == {"a": Tier.WARM, "b": Tier.WARM}


def test_vram_that_was_taken_before_is_not_counted_on() -> None:
    played = comfy(machine=replace(TIGHT, vram=24 * GB))
    played.tell(MemoryRead(vram_total=24 * GB, vram_free=12 * GB))
    played.prompt("a")
    played.prompt("b", pins="a")
    assert played.tiers("ab") == {"a": Tier.WARM, "b": Tier.HOT}


def test_disk_reads_go_to_those_that_were_waited_for_longest() -> None:
    """Two are thought to be in RAM, 8 GB are read: it was the one with the later first step."""
    played = comfy(machine=replace(TIGHT, vram=10 * GB))
    for name, pins in (("a", ""), ("b", "a"), ("c", "ab")):
        played.prompt(name, pins=pins)
    prompt_id = played.send("a", "b", pins="c")
    played.run(prompt_id, cached="abc")
    played.end(prompt_id, use("a", waited=1.5), use("b", waited=7.0), disk_bytes=8 * GB)
    counts = played.residency._judge.scores._counts
    assert (counts[Tier.WARM, Tier.WARM], counts[Tier.WARM, Tier.COLD]) == (1, 1)


def test_moving_is_learned_where_nothing_was_read() -> None:
    played = comfy()
    played.prompt("a", waited=6.0)
    played.prompt("b", pins="a", waited=6.0)
    prompt_id = played.send("a", pins="b")
    played.run(prompt_id, cached="ab")
    played.end(prompt_id, use("a", waited=2.0), disk_bytes=0)
    assert played.costs.bandwidth(Tier.WARM) == 4 * GB


def test_files_that_were_read_last_are_trusted_to_be_there_by_what_was_seen() -> None:
    a, b = ref("a"), ModelRef("VAELoader", ("b",))
    files = FilePages()
    files.read(a, 8 * GB)
    files.read(b, 2 * GB)
    assert [files.tier(each, 16 * GB) for each in (a, b)] == [Tier.UNKNOWN, Tier.WARM]
    files.learn(kept=True)
    assert files.tier(a, 16 * GB) is Tier.WARM
    files.learn(kept=False)
    assert files.tier(a, 16 * GB) is Tier.UNKNOWN
    files.room(9 * GB)
    assert [files.tier(each, 9 * GB) for each in (a, b)] == [Tier.COLD, Tier.WARM]
    assert files.tier(a, None) is Tier.UNKNOWN
