"""What readings of RAM and VRAM correct."""

from proxy.core.budget import Machine
from proxy.core.evidence import MemoryRead
from proxy.core.flags import GB, CacheMode, UpstreamFlags, VramMode
from proxy.core.sizes import SizeSource
from proxy.core.tiers import Tier
from tests.core.residency_stage import ComfyUI, chain, in_ram, ref


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


def test_a_size_nobody_lists_is_measured() -> None:
    comfy = ComfyUI()
    assert comfy.residency.sizes.size(ref("x")).source is SizeSource.ASSUMED
    comfy.tell(MemoryRead(ram_free=40 * GB, vram_free=20 * GB, vram_total=24 * GB))
    comfy.prompt("x")
    comfy.tell(MemoryRead(ram_free=39 * GB, vram_free=18 * GB, vram_total=24 * GB))
    size = comfy.residency.sizes.size(ref("x"))
    assert (size.bytes, size.source) == (3 * GB, SizeSource.MEASURED)
