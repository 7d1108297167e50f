"""Hot or warm, by the rules that ComfyUI moves weights by when dynamic VRAM is off."""

import pytest

from proxy.core.budget import Machine
from proxy.core.evidence import Ending, Use
from proxy.core.flags import GB, CacheMode, UpstreamFlags, VramMode
from proxy.core.tiers import Tier
from tests.core.residency_stage import ComfyUI, part, use


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


def test_an_out_of_memory_error_empties_vram_but_not_the_cache() -> None:
    comfy = ComfyUI()
    prompt_id = comfy.send("a")
    comfy.run(prompt_id, loads={"a": 5.0})
    comfy.end(prompt_id, use("a"), ending=Ending.OUT_OF_VRAM)
    assert comfy.tiers("a") == {"a": Tier.WARM}


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


def test_lowvram_keeps_text_encoders_in_ram() -> None:
    comfy = ComfyUI(UpstreamFlags(cache=CacheMode.CLASSIC, vram=VramMode.LOW))
    prompt_id = comfy.send("a", "b")
    comfy.run(prompt_id, loads={"a": 5.0, "b": 5.0})
    comfy.end(prompt_id, use("a"), Use(frozenset({part("b", "CLIP")}), "CLIPTextEncode", 1.0))
    assert comfy.tiers("ab") == {"a": Tier.HOT, "b": Tier.WARM}
