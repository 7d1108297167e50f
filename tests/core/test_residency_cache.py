"""Held or gone, by the rules that ComfyUI's node cache forgets by."""

import pytest

from proxy.core.evidence import Ending, MemoryRead, PromptRecalled
from proxy.core.flags import GB, CacheMode, UpstreamFlags
from proxy.core.tiers import Tier
from tests.core.residency_stage import ComfyUI, chain


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
