"""The strategy `inspire` at work: models stay under `--cache-none`, and clients read nothing of how."""

import json
from pathlib import Path
from typing import Any

import pytest

from proxy.app import memory_watch
from proxy.config import NormalizerSection
from proxy.core.advice import Advice, Severity
from proxy.core.budget import Limits
from proxy.core.mode import Mode
from proxy.core.strategy import Strategy
from proxy.engine.report import Report, Wanted, survey
from simulator.config import CacheMode
from tests.contract.prompts import Prompt, link, node
from tests.engine.stage import MB, Stage, encode, fresh_id, staged

MODELS = {
    "checkpoints": {f"{name}.safetensors": MB for name in "ab"},
    "diffusion_models": {f"unet_{name}.safetensors": MB for name in "ab"},
    "text_encoders": dict.fromkeys(("clip_l.safetensors", "t5xxl.safetensors"), MB),
}
NONE: dict[str, Any] = {"cache": CacheMode.NONE, "inspire_pack": True, "models": MODELS}
SIX_FILES = [
    "a.safetensors", "clip_l.safetensors", "t5xxl.safetensors", "b.safetensors", "unet_a.safetensors",
]  # fmt: skip


async def look(stage: Stage, strategy: Strategy) -> Report:
    client = stage.proxy.engine.upstream.client
    memory = memory_watch(stage.proxy.config, client)
    return await survey(client, memory, Wanted(Limits(), (), strategy), (), ())


def problems(report: Report) -> list[Advice]:
    """What `comfykeep check` has to say, hints aside."""
    return [problem for problem in report.problems if problem.severity is not Severity.HINT]


def both_kinds(text: str) -> list[Prompt]:
    """Workflows in turn: a checkpoint; a diffusion model with two text encoders; another checkpoint."""
    flux = {
        "1": node("UNETLoader", unet_name="unet_a.safetensors", weight_dtype="default"),
        "2": node("DualCLIPLoader", clip_name1="clip_l.safetensors", clip_name2="t5xxl.safetensors", type="flux"),
        "3": node("CLIPTextEncode", text=text, clip=link("2")),
        "4": node("PreviewAny", source=link("3")),
        "5": node("PreviewAny", source=link("1")),
    }
    return [encode("a", text), flux, encode("b", text, ids="1 2 3")]


async def in_turn(stage: Stage, turns: int = 3) -> None:
    async with stage.client.socket() as socket:
        for turn in range(turns):
            for prompt in both_kinds(f"{turn}"):
                run = await stage.client.run(prompt, socket)
                assert run.end.kind == "execution_success"


@pytest.mark.parametrize("strategy", [Strategy.PINS, Strategy.OFF])
async def test_without_a_node_cache_pins_do_not_help(strategy: Strategy) -> None:
    async with staged(strategy=strategy, **NONE) as stage:
        await in_turn(stage)
        assert len(stage.loads) == 3 * len(SIX_FILES)


@pytest.mark.parametrize("mode", [Mode.PINS, Mode.FULL])
async def test_with_shared_loaders_each_model_is_loaded_once(mode: Mode, tmp_path: Path) -> None:
    async with staged(mode, tmp_path, strategy=Strategy.INSPIRE, **NONE) as stage:
        await in_turn(stage)
        assert sorted(stage.loads) == sorted(SIX_FILES)


async def test_what_has_no_shared_sibling_is_pinned(tmp_path: Path) -> None:
    def decode(vae: str) -> Prompt:
        return {"1": node("VAELoader", vae_name=vae), "2": node("PreviewAny", source=link("1"))}

    async with staged(strategy=Strategy.INSPIRE, inspire_pack=True, folder=tmp_path) as stage:
        async with stage.client.socket() as socket:
            for _ in range(2):
                await stage.client.run({**encode("a", "x"), **decode("v.safetensors")}, socket)
                await stage.client.run(encode("b", "x"), socket)
        assert sorted(stage.loads) == ["a.safetensors", "b.safetensors", "v.safetensors"]


async def test_clients_read_what_a_direct_run_tells(tmp_path: Path) -> None:
    prompt = both_kinds("x")[1]
    async with staged(Mode.PINS, tmp_path, strategy=Strategy.INSPIRE, **NONE) as stage:
        told = []
        for client in (stage.direct, stage.client):
            async with client.socket() as socket:
                run = await client.run(prompt, socket)
            entry = await client.history(run.prompt_id)
            job = await client.get_json(f"/api/jobs/{run.prompt_id}")
            told.append((run, entry, job))
        (direct, direct_entry, _), (proxied, entry, job) = told
        sent = await stage.direct.history(proxied.prompt_id)
    assert "LoadTextEncoderShared //Inspire" in json.dumps(sent)
    assert entry["prompt"][2] == direct_entry["prompt"][2] == prompt
    assert entry["outputs"] == direct_entry["outputs"]
    assert proxied.kinds == direct.kinds
    for text in (json.dumps(entry), json.dumps(job), *map(str, proxied.frames)):
        assert "Inspire" not in text
        assert "comfykeep-" not in text


async def test_an_error_in_a_shared_loader_names_the_clients_own() -> None:
    async def fail(start: Any) -> None:
        if start.class_type == "CheckpointLoaderSimpleShared //Inspire":
            raise RuntimeError("the file is damaged")

    async with staged(strategy=Strategy.INSPIRE, **{**NONE, "before_node": fail}) as stage:
        async with stage.client.socket() as socket:
            run = await stage.client.run(encode("a", "x"), socket)
        entry = await stage.client.history(run.prompt_id)
    data = run.end.data
    assert (run.end.kind, data["node_id"], data["node_type"]) == ("execution_error", "4", "CheckpointLoaderSimple")
    told = dict(entry["status"]["messages"])["execution_error"]
    assert (told["node_id"], told["node_type"]) == ("4", "CheckpointLoaderSimple")


@pytest.mark.parametrize("mode", [Mode.PINS, Mode.FULL])
async def test_a_file_that_vanished_is_refused_as_comfyui_would(mode: Mode, tmp_path: Path) -> None:
    models = {"checkpoints": {"a.safetensors": MB}}
    async with staged(mode, tmp_path, strategy=Strategy.INSPIRE, **{**NONE, "models": models}) as stage:
        del models["checkpoints"]["a.safetensors"]
        models["checkpoints"]["b.safetensors"] = MB
        prompt = encode("a", "x")
        assert await stage.client.refuse(prompt) == await stage.direct.refuse(prompt)


async def test_a_slot_that_the_clients_loader_does_not_have_yields_no_key(tmp_path: Path) -> None:
    prompt = {**encode("a", "x"), "10": node("PreviewAny", source=link("4", 3))}
    async with staged(Mode.PINS, tmp_path, strategy=Strategy.INSPIRE, **NONE) as stage:
        answers = [await client.submit(prompt) for client in (stage.direct, stage.client)]
        entry = await stage.client.history(answers[1]["prompt_id"])
    (direct, proxied) = (answer["node_errors"]["10"]["errors"][0] for answer in answers)
    assert proxied["type"] == direct["type"] == "exception_during_validation"
    assert entry["outputs"].keys() == {"9"}


async def test_diff_shows_the_exchange() -> None:
    async with staged(strategy=Strategy.INSPIRE, **NONE) as stage:
        async with stage.client.socket() as socket:
            run = await stage.client.run(encode("a", "x"), socket)
        shown = await stage.client.get_json(f"/comfykeep/prompts/{run.prompt_id}")
    (change,) = [change for change in shown["changes"] if change["rule"] == "shared-loader"]
    assert change["before"] == encode("a", "x")["4"]
    assert change["after"]["class_type"] == "CheckpointLoaderSimpleShared //Inspire"


async def test_without_the_pack_it_says_so_and_pins() -> None:
    async with staged(strategy=Strategy.INSPIRE) as stage, stage.client.socket() as socket:
        for name in ("a", "b", "a"):
            await stage.client.run(encode(name, fresh_id()), socket)
        assert stage.loads == ["a.safetensors", "b.safetensors"]
        assert [problem.problem for problem in problems(await look(stage, Strategy.INSPIRE))] == [
            '[normalizer] strategy = "inspire", but this ComfyUI has no shared loaders: models are pinned instead.'
        ]
        assert not problems(await look(stage, Strategy.PINS))


async def test_check_finds_nothing_wrong_with_shared_loaders_and_no_cache() -> None:
    async with staged(strategy=Strategy.INSPIRE, **NONE) as stage:
        report = await look(stage, Strategy.INSPIRE)
        assert not problems(report)
        assert list(report.lines())[-1] == (
            "Sent as Inspire's shared loaders: CLIPLoader, CheckpointLoaderSimple, DualCLIPLoader, UNETLoader"
        )
        (problem,) = problems(await look(stage, Strategy.PINS))
    assert "--cache-none" in problem.problem
    assert '"inspire"' in problem.remedy


async def test_off_renames_and_does_not_pin() -> None:
    async with staged(strategy=Strategy.OFF, inspire_pack=True) as stage:
        async with stage.client.socket() as socket:
            await stage.client.run(encode("a", "1"), socket)
            run = await stage.client.run(encode("b", "1"), socket)
        sent = (await stage.direct.history(run.prompt_id))["prompt"][2]
    classes = [item["class_type"] for item in sent.values()]
    assert classes == ["CheckpointLoaderSimple", "CLIPTextEncode", "PreviewAny"]
    assert "4" not in sent
    assert NormalizerSection().strategy is Strategy.PINS
