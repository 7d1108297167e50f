"""Predictions judged by timing, and what loading is learned to cost."""

import pytest

from proxy.core.budget import Machine
from proxy.core.evidence import SizesRead, Use
from proxy.core.flags import GB, CacheMode, UpstreamFlags
from proxy.core.tiers import Tier
from tests.core.residency_stage import ComfyUI, part, ref, use


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


def test_another_lora_makes_the_first_step_late_and_tells_nothing() -> None:
    comfy = ComfyUI()
    comfy.prompt("a")
    prompt_id = comfy.send("a")
    comfy.run(prompt_id, cached="a")
    comfy.end(prompt_id, Use(frozenset({part("a"), part("b", share=0.0)}), "KSampler", 5.0, 1.0))
    assert comfy.residency.accuracy().tiers[Tier.HOT].uses == 0
