"""Warm-ups through the whole proxy: models are there before a client asks."""

import json
from pathlib import Path

import pytest

from proxy.config import GroupSection
from proxy.core.mode import Mode
from simulator import CacheMode
from tests.engine.warm_stage import MODES, encode, entry, is_warmup, node, until, warm_stage

pytestmark = pytest.mark.usefixtures("no_settling")


@MODES
async def test_the_first_prompt_after_a_start_reads_nothing_from_disk(mode: Mode, tmp_path: Path) -> None:
    async with warm_stage(tmp_path, entry("morning", "a", on=["upstream-start"]), mode) as stage:
        await stage.ready()
        assert stage.loads == ["a"]
        await stage.run(encode("a", "the first"))
        assert stage.loads == ["a"]


@MODES
async def test_nor_does_the_first_after_a_crash_and_readiness_waits_for_it(mode: Mode, tmp_path: Path) -> None:
    async with warm_stage(tmp_path, entry("morning", "a", on=["upstream-start"]), mode) as stage:
        await stage.ready()
        await stage.comfy.crash()
        await until(lambda: not stage.proxy.engine.feed.up, "the crash to be seen")
        assert not await stage.is_ready()
        stage.gate.shut_all()
        await stage.comfy.restart()
        begun_before = len(stage.gate.started)
        await until(lambda: len(stage.gate.started) > begun_before, "the warm-up to start")
        answer = await stage.client.get("/comfykeep/ready")
        assert (answer.status, answer.json()["ready"]) == (503, False)
        assert "warmed up" in answer.json()["reason"]
        stage.gate.open()
        await stage.ready()
        assert stage.loads == ["a", "a"]
        await stage.run(encode("a", "the first"))
        assert stage.loads == ["a", "a"]


async def test_readiness_waits_for_nobody_where_it_is_not_to(tmp_path: Path) -> None:
    schedule = entry("morning", "a", on=["upstream-start"])
    async with warm_stage(tmp_path, schedule, gate_readiness=False) as stage:
        stage.gate.shut_all()
        assert await stage.is_ready()


@MODES
async def test_what_is_evicted_comes_back(mode: Mode, tmp_path: Path) -> None:
    """Without pins a prompt with another model drops the one before."""
    schedule = entry("always there", "a", to="ram", on=["evicted"])
    async with warm_stage(tmp_path, schedule, mode, max_chains=0, cache=CacheMode.CLASSIC) as stage:
        await stage.run(encode("a", "used by a client"))
        await stage.run(encode("b", "and displaced by another"))
        assert await stage.result("always there") == "warmed"
        assert stage.loads == ["a", "b", "a"]
        await stage.run(encode("a", "used again"))
        assert stage.loads == ["a", "b", "a"]


async def test_what_was_freed_by_hand_counts_as_evicted(tmp_path: Path) -> None:
    schedule = entry("always there", "a", to="ram", on=["evicted"])
    async with warm_stage(tmp_path, schedule) as stage:
        await stage.run(encode("a", "used by a client"))
        await stage.client.post("/free", {"unload_models": True, "free_memory": True})
        assert await stage.result("always there") == "warmed"
        assert stage.loads == ["a", "a"]


async def test_what_goes_just_after_its_warm_up_comes_back_at_once(tmp_path: Path) -> None:
    schedule = entry("always there", "a", to="ram", on=["upstream-start", "evicted"])
    async with warm_stage(tmp_path, schedule) as stage:
        await stage.ready()
        await stage.client.post("/free", {"unload_models": True, "free_memory": True})
        await until(lambda: stage.loads == ["a", "a"], "the second warm-up")
        await stage.run(encode("a", "the first"))
        assert stage.loads == ["a", "a"]


async def test_what_is_there_is_not_warmed_again(tmp_path: Path) -> None:
    async with warm_stage(tmp_path, entry("a", "a")) as stage:
        assert (await stage.warm(name="a"))["result"] == "warmed"
        again = await stage.warm(name="a")
        assert (again["result"], again["detail"]) == ("skipped", "a.safetensors already in VRAM")
        assert len([request for request in stage.relay.requests if is_warmup(request)]) == 1


async def test_a_workflow_is_warmed_without_saving_anything(tmp_path: Path) -> None:
    workflow = {
        "1": node("CheckpointLoaderSimple", ckpt_name="a.safetensors"),
        "2": node("CLIPTextEncode", text="x", clip=["1", 1]),
        "3": node("EmptyLatentImage", width=1024, height=1024, batch_size=4),
        "4": node(
            "KSampler", model=["1", 0], positive=["2", 0], negative=["2", 0], latent_image=["3", 0], seed=1, steps=30,
            cfg=7.0, sampler_name="euler", scheduler="normal", denoise=1.0,
        ),
        "5": node("VAEDecode", samples=["4", 0], vae=["1", 2]),
        "6": node("SaveImage", images=["5", 0], filename_prefix="portrait"),
    }  # fmt: skip
    (tmp_path / "portrait.api.json").write_text(json.dumps(workflow))
    async with warm_stage(tmp_path, '[[entry]]\nname = "portrait"\nprompt = "portrait.api.json"\n') as stage:
        assert (await stage.warm(name="portrait"))["result"] == "warmed"
        assert stage.loads == ["a"]
        assert list(stage.comfy.directories.output.iterdir()) == []
        await stage.run(workflow)
        assert stage.loads == ["a"]
        assert len(list(stage.comfy.directories.output.iterdir())) == 4


@MODES
async def test_a_group_of_the_configuration_is_warmed_as_a_whole(mode: Mode, tmp_path: Path) -> None:
    schedule = '[[entry]]\nname = "ours"\ngroup = "ours"\nto = "ram"\non = ["upstream-start"]\n'
    groups = (GroupSection(name="ours", models=("a.*", "b.*")),)
    async with warm_stage(tmp_path, schedule, mode, groups=groups) as stage:
        await stage.ready()
        assert sorted(stage.loads) == ["a", "b"]
        for name in "ab":
            await stage.run(encode(name, "the first"))
        assert sorted(stage.loads) == ["a", "b"]


@MODES
async def test_what_is_to_be_kept_outlives_more_models_than_may_be_kept(mode: Mode, tmp_path: Path) -> None:
    schedule = entry("kept", "a", to="ram", keep="'2h'")
    async with warm_stage(tmp_path, schedule, mode, max_chains=1, cache=CacheMode.CLASSIC) as stage:
        await stage.warm(name="kept")
        for name in "bcd":
            await stage.run(encode(name, name))
        await stage.run(encode("a", "still there"))
        assert stage.loads == ["a", "b", "c", "d"]


async def test_in_observe_nothing_is_warmed_and_whoever_asks_is_told(tmp_path: Path) -> None:
    schedule = entry("a", "a", on=["start", "upstream-start"])
    async with warm_stage(tmp_path, schedule, Mode.OBSERVE, gate_readiness=False) as stage:
        answer = await stage.client.post("/comfykeep/warmup", {"name": "a"})
        assert (answer.status, answer.json()["error"]["type"]) == (409, "observing")
        await stage.run(encode("b", "theirs"))
        assert stage.loads == ["b"]
        await stage.client.request("PUT", "/comfykeep/mode", {"mode": "pins"})
        assert await stage.result("a") == "warmed"
        assert stage.loads == ["b", "a"]
