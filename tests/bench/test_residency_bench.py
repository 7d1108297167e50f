import asyncio
import json
import random
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import residency, tiers
from bench.caching import TRACES, greedy_dual_loads, lru_loads, optimal_loads, our_loads
from bench.tiers import MEDIUM, Setting, measure, ram_for_three
from proxy.core.budget import Limits
from proxy.core.tiers import Tier
from simulator.config import CacheMode, VramMode

SHORT_TRACES = st.lists(st.integers(0, 3), max_size=9)


def least_loads(trace: tuple[int, ...], room: int) -> int:
    """The least number of loads, by trying everything."""

    @cache
    def from_here(place: int, held: frozenset[int]) -> int:
        if place == len(trace):
            return 0
        model = trace[place]
        if model in held:
            return from_here(place + 1, held)
        kept = [held] if len(held) < room else [held - {victim} for victim in held]
        return 1 + min(from_here(place + 1, rest | {model}) for rest in kept)

    return from_here(0, frozenset())


@given(SHORT_TRACES, st.integers(1, 3))
def test_the_optimum_is_the_least_possible(trace: list[int], room: int) -> None:
    assert optimal_loads(trace, room) == least_loads(tuple(trace), room)


@given(st.lists(st.integers(0, 5), max_size=40), st.integers(1, 4))
def test_no_rule_is_better_than_the_optimum(trace: list[int], room: int) -> None:
    least = optimal_loads(trace, room)
    assert least <= lru_loads(trace, room) <= len(trace)
    assert least <= greedy_dual_loads(trace, room) <= len(trace)
    assert least <= our_loads(trace, room, visible=3) <= len(trace)


@settings(max_examples=50)
@given(st.lists(st.integers(0, 5), max_size=30), st.integers(1, 4))
def test_with_the_whole_queue_in_sight_ours_is_the_optimum(trace: list[int], room: int) -> None:
    assert our_loads(trace, room, visible=len(trace)) == optimal_loads(trace, room)


def test_least_recently_used_is_what_it_says() -> None:
    assert lru_loads([0, 1, 0, 2, 0, 1], room=2) == 4
    assert lru_loads([0, 1, 2, 0, 1, 2], room=2) == 6
    assert lru_loads([0, 1, 2, 0, 1, 2], room=5) == 3


@pytest.mark.parametrize("name", TRACES)
def test_sixteen_visible_prompts_beat_caches_that_see_none(name: str) -> None:
    trace = TRACES[name](random.Random(3), 8, 200)  # noqa: S311 - a seeded trace, no secret
    ours = our_loads(trace, 3, visible=16)
    assert ours <= lru_loads(trace, 3)
    assert ours <= greedy_dual_loads(trace, 3)


@pytest.mark.parametrize(
    ("changes", "limits"),
    [
        ({}, Limits()),
        ({"cache": CacheMode.CLASSIC}, Limits()),
        ({"cache": CacheMode.LRU, "cache_lru": 40}, Limits()),
        ({"cache": CacheMode.NONE}, Limits()),
        ({"cache_ram": (6.0, 16.0)}, Limits(max_chains=0)),
        ({"disable_smart_memory": True}, Limits()),
        ({"vram_mode": VramMode.LOW}, Limits()),
        ({"vram_mode": VramMode.NONE}, Limits()),
        ({"dynamic_vram": True, "page_cache_gbps": 8.0}, Limits()),
        ({"dynamic_vram": True, "page_cache_gbps": 8.0, "ram_gb": 32, "vram_gb": 12}, Limits()),
        ({"dynamic_vram": True, "page_cache_gbps": 8.0, "fast_disk": True}, Limits()),
        ({"vram_mode": VramMode.HIGH, "vram_gb": 48.0}, Limits()),
    ],
    ids=[
        *("default", "classic", "lru", "none", "low thresholds", "no smart memory", "lowvram", "novram", "dynamic"),
        *("dynamic and small", "fast disk", "highvram"),
    ],
)
def test_the_tier_model_agrees_with_the_simulators_ledger(changes: dict[str, object], limits: Limits) -> None:
    config = replace(MEDIUM, **changes)  # type: ignore[arg-type]  # the changes are those of the line above
    tally = asyncio.run(measure(Setting("one", config, limits), prompts=60, seed=5))
    assert tally.killed_after is None
    share = tally.share()
    assert share is not None
    assert share >= 0.9
    assert tally.share(Tier.COLD) == 1.0
    assert tally.judged_share is not None
    assert tally.judged_share >= 0.85


def test_planned_pins_do_not_get_comfyui_killed_and_unplanned_ones_do() -> None:
    queue_seen, no_queue_seen, unplanned = ram_for_three()
    assert asyncio.run(measure(queue_seen, prompts=500, seed=2)).killed_after is None
    assert asyncio.run(measure(no_queue_seen, prompts=500, seed=2)).killed_after is None
    assert asyncio.run(measure(unplanned, prompts=500, seed=2)).killed_after is not None


def test_the_figures_come_as_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(residency, "PROMPTS", 20)
    monkeypatch.setattr(residency, "TIER_PROMPTS", 3)
    chosen = list(tiers.settings())[:2]
    monkeypatch.setattr(residency, "settings", lambda: chosen)
    residency.run(json_output=True)
    figures = json.loads(capsys.readouterr().out)
    assert {row["trace"] for row in figures["eviction"]} == set(TRACES)
    assert figures["eviction"][0]["extra_over_optimum"]["ours, 16 visible"] >= 0
    assert [(row["cache"], row["vram"]) for row in figures["tiers"]] == [(one.name, one.vram) for one in chosen]
    assert figures["tiers"][0]["accuracy"] == 1.0
    assert sum(tier["uses"] for tier in figures["tiers"][0]["by_predicted_tier"].values()) > 0
    assert len(figures["ram_for_three_of_eight"]) == 3


def test_the_figures_come_as_tables(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(residency, "PROMPTS", 20)
    monkeypatch.setattr(residency, "TIER_PROMPTS", 3)
    monkeypatch.setattr(residency, "settings", lambda: list(tiers.settings())[:1])
    residency.run(json_output=False)
    printed = capsys.readouterr().out
    assert "planned pins, 20 prompts: no kill" in printed
    assert "100.0%" in printed
