"""Inspire's cache is kept to what the pin planner would keep, behind clients' backs and never at their cost."""

import logging
import re
from pathlib import Path
from typing import Any

import pytest

from proxy.config import PinsSection
from proxy.core.groups import Group, Keep
from proxy.core.mode import Mode
from proxy.core.strategy import Strategy
from proxy.core.tiers import Tier
from simulator.config import CacheMode
from tests.contract.prompts import node
from tests.engine.stage import Stage, encode, staged, until

SHARED_CHECKPOINT = "CheckpointLoaderSimpleShared //Inspire"
NONE: dict[str, Any] = {"cache": CacheMode.NONE, "inspire_pack": True}

LET_GO = re.compile(r"let go of ([ab])\.safetensors: as many chains as may stay are chosen already: 1")

LOADED = {Tier.HOT, Tier.WARM}


def kept(stage: Stage) -> list[str]:
    """The keys in the pack's cache, without what is not a key of ours."""
    lines = stage.comfy.process.machine.shared.listing().splitlines()
    return [line.partition(":")[0] for line in lines if line.startswith("comfykeep-")]


def tiers(stage: Stage) -> dict[str, Tier]:
    residency = stage.proxy.engine.upstream.planner.residency
    return {state.ref.label: state.tier for state in residency.components()}


@pytest.mark.parametrize("mode", [Mode.PINS, Mode.FULL])
async def test_what_is_not_worth_its_memory_is_let_go(
    mode: Mode, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    pins = PinsSection(max_chains=1)
    async with staged(mode, tmp_path, strategy=Strategy.INSPIRE, pins=pins, **NONE) as stage:
        async with stage.client.socket() as socket:
            await stage.client.run(encode("a", "1"), socket)
            await stage.client.run(encode("b", "1"), socket)
            await until(lambda: LET_GO.search(caplog.text), "one of the models to be let go")
            (gone,) = LET_GO.findall(caplog.text)
            stays = {"a": "b", "b": "a"}[gone]
            assert len(kept(stage)) == 1
            await stage.client.run(encode(stays, "2"), socket)
            assert stage.loads == ["a.safetensors", "b.safetensors"]
            assert "Remove" not in str(socket.frames)
        found = tiers(stage)
        assert found[f"{gone}.safetensors"] is Tier.COLD
        assert found[f"{stays}.safetensors"] in LOADED
        assert len(await stage.client.get_json("/history")) == 3
        assert "; housekeeping" in caplog.text
        assert "warm-up" not in caplog.text
        assert await stage.client.queue() == ([], [])


async def test_a_key_that_has_come_back_goes_again_whatever_comfyui_has_cached() -> None:
    lru: dict[str, Any] = {"cache": CacheMode.LRU, "cache_lru": 3, "inspire_pack": True}
    pins = PinsSection(max_chains=0)
    async with staged(strategy=Strategy.INSPIRE, pins=pins, **lru) as stage, stage.client.socket() as socket:
        for turn in range(2):
            await stage.client.run(encode("a", f"{turn}"), socket)
            await until(lambda: kept(stage), "the model to be kept")
            await until(lambda: not kept(stage), "the key to be removed")
            # Pushes the loader's result out of the node cache, and not yet the younger one of the removal.
            await stage.client.run({"1": node("PreviewAny", source="x")}, socket)
        assert stage.loads == ["a.safetensors"] * 2


async def test_all_that_may_stay_stays_and_is_known_to() -> None:
    async with staged(strategy=Strategy.INSPIRE, **NONE) as stage:
        async with stage.client.socket() as socket:
            for name in "abcab":
                await stage.client.run(encode(name, name), socket)
        shared = stage.proxy.engine.upstream.planner.residency.shared
        await until(lambda: not shared.puzzling and shared.limits, "the list to be read")
        assert shared.limits["ckpt"] == 5
        assert len(kept(stage)) == 3
        assert set(tiers(stage).values()) <= LOADED
        assert stage.proxy.engine.totals.loaded == 3
        assert stage.proxy.engine.totals.kept == 2


async def test_after_a_broken_connection_it_is_read_again() -> None:
    async with staged(strategy=Strategy.INSPIRE, **NONE) as stage:
        async with stage.client.socket() as socket:
            await stage.client.run(encode("a", "1"), socket)
        shared = stage.proxy.engine.upstream.planner.residency.shared
        await until(lambda: shared.limits and not shared.puzzling, "the list to be read")
        lists = len(stage.relay.asked("GET", "/inspire/cache/list"))
        stage.relay.break_sockets()
        await until(lambda: not shared.refs(), "the break to be noticed")
        await until(shared.refs, "the list to be read again")
        assert len(stage.relay.asked("GET", "/inspire/cache/list")) > lists
        assert [ref.label for ref in shared.refs()] == ["a.safetensors"]


async def test_another_strategy_leaves_no_keys_of_ours(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    theirs = {**encode("b", "1"), "4": node(SHARED_CHECKPOINT, ckpt_name="b.safetensors", key_opt="mine", mode="Auto")}
    async with staged(folder=tmp_path, strategy=Strategy.INSPIRE, **NONE) as stage:
        async with stage.client.socket() as socket:
            await stage.client.run(encode("a", "1"), socket)
            await stage.client.run(theirs, socket)
            await stage.stop()
            stage.strategy = Strategy.PINS
            await stage.start()
            await until(lambda: not kept(stage), "the key that the earlier proxy left to go")
        assert "mine: ckpt" in stage.comfy.process.machine.shared.listing()
    assert re.search(r'let go of comfykeep-\w+: the strategy is "pins"', caplog.text)


async def test_pins_do_not_make_tiers_under_cache_none() -> None:
    async with staged(strategy=Strategy.PINS, **NONE) as stage:
        async with stage.client.socket() as socket:
            await stage.client.run(encode("a", "1"), socket)
        assert tiers(stage) == {"a.safetensors": Tier.COLD}


async def test_a_new_comfyui_holds_nothing() -> None:
    async with staged(strategy=Strategy.INSPIRE, **NONE) as stage:
        async with stage.client.socket() as socket:
            await stage.client.run(encode("a", "1"), socket)
        residency = stage.proxy.engine.upstream.planner.residency
        assert residency.shared.refs()
        await stage.comfy.restart()
        await until(lambda: not residency.shared.refs(), "the loss to be noticed")


@pytest.mark.parametrize("mode", [Mode.PINS, Mode.FULL])
async def test_what_a_group_keeps_no_longer_goes_though_nobody_submits_anything(mode: Mode, tmp_path: Path) -> None:
    async with staged(mode, tmp_path) as stage, stage.client.socket() as socket:
        stage.proxy.engine.upstream.planner.groups = (Group("films", ("a.*",), Keep.ON_DEMAND, ttl=0.0),)
        for name in "ba":
            await stage.client.run(encode(name, "1"), socket)
        await until(lambda: tiers(stage)["a.safetensors"] is Tier.COLD, "it to be let go")
        await stage.client.run(encode("b", "2"), socket)
        assert stage.loads == ["b.safetensors", "a.safetensors"]
        await stage.client.run(encode("a", "2"), socket)
        assert stage.loads == ["b.safetensors", "a.safetensors", "a.safetensors"]
        assert len(await stage.client.get_json("/history")) == 4
