"""Before ComfyUI has said what it is, and when only the connection to it broke: no pins too many, and nothing lost."""

import asyncio
import json
from pathlib import Path

import pytest

from normalizer.models import ModelRef
from proxy.core.mode import Mode
from proxy.core.sizes import Size, SizeSource
from tests.engine import relay
from tests.engine.relay import Asked, Fate
from tests.engine.stage import Stage, encode, fresh_id, staged, until

MODES = pytest.mark.parametrize("mode", [Mode.PINS, Mode.FULL])


async def run(stage: Stage, checkpoint: str) -> str:
    submitted = await stage.client.submit(encode(checkpoint, fresh_id()))
    entry = await stage.client.history(submitted["prompt_id"])
    assert entry["status"]["status_str"] == "success"
    return str(submitted["prompt_id"])


def pins(stage: Stage, prompt_id: str) -> int:
    """How many pins a prompt was sent with to run."""
    bodies = [json.loads(request.body) for request in stage.relay.asked("POST", "/prompt")]
    sent = [body for body in bodies if body["prompt_id"] == prompt_id and body.get("number", 0) < 1e15]
    return len(sent[-1].get("extra_data", {}).get("comfykeep", {}).get("pins", ()))


class Secretive:
    """ComfyUI does not say what it is: it fails, or does not answer at all, until it is let."""

    def __init__(self, path: str, *, silent: bool) -> None:
        self.let = asyncio.Event()
        self._path = path
        self._silent = silent

    async def __call__(self, asked: Asked) -> Fate | bytes:
        if not asked.target.startswith(self._path) or self.let.is_set():
            return Fate.PASSED
        if self._silent:
            await self.let.wait()
            return Fate.PASSED
        return relay.answer(500, b"no")


@MODES
@pytest.mark.parametrize("silent", [False, True])
async def test_prompts_run_without_pins_until_it_has_said_what_it_is(
    mode: Mode, tmp_path: Path, *, silent: bool
) -> None:
    async with staged(mode, tmp_path) as stage:
        await stage.stop()
        secretive = Secretive("/system_stats", silent=silent)
        await stage.start(secretive, wait=False)
        for name in "aba":
            assert pins(stage, await run(stage, name)) == 0
        assert stage.proxy.engine.upstream.stats is None
        secretive.let.set()
        await until(lambda: stage.proxy.engine.upstream.schema.complete, "the rest")
        assert pins(stage, await run(stage, "b")) == 1


@MODES
async def test_without_sizes_models_count_as_large(mode: Mode, tmp_path: Path) -> None:
    async with staged(mode, tmp_path) as stage:
        await stage.stop()
        await stage.start(Secretive("/experiment/models", silent=False))
        for name in "ab":
            await run(stage, name)
        assert pins(stage, await run(stage, "a")) == 1
        shown = (await stage.client.get_json("/comfykeep/status"))["upstream"]["components"]
        assert {(item["size"], item["size_source"]) for item in shown} == {(4 * 2**30, "assumed")}


@MODES
async def test_a_file_that_came_later_is_listed_when_it_is_first_used(mode: Mode, tmp_path: Path) -> None:
    models = {"checkpoints": {"a.safetensors": 2**20}}
    async with staged(mode, tmp_path, models=models) as stage:
        models["checkpoints"]["b.safetensors"] = 3 * 2**30
        await run(stage, "a")
        await run(stage, "b")
        sizes = stage.proxy.engine.upstream.planner.residency.sizes
        b = ModelRef("CheckpointLoaderSimple", ("b.safetensors",))
        await until(lambda: sizes.size(b) == Size(3 * 2**30, SizeSource.FILE), "its size")
        asked = len(stage.relay.asked("GET", "/experiment/models"))
        await run(stage, "b")
        assert len(stage.relay.asked("GET", "/experiment/models")) == asked == 2


@MODES
async def test_a_broken_connection_is_no_death(mode: Mode, tmp_path: Path) -> None:
    async with staged(mode, tmp_path) as stage:
        await run(stage, "b")
        running = await stage.blocker()
        planner = stage.proxy.engine.upstream.planner
        allowed = planner.budget.pins
        assert pins(stage, running) == 1
        stage.relay.break_sockets()
        await until(lambda: not stage.proxy.engine.feed.up, "the break to be seen")
        await until(lambda: stage.proxy.engine.feed.up and stage.proxy.engine.upstream.schema.complete, "the return")
        assert planner.budget.pins == allowed
        stage.gate.open(running)
        await stage.ended(running)
        assert pins(stage, await run(stage, "c")) == 2
        assert stage.loads.count("b.safetensors") == 1


@MODES
async def test_a_death_is_one(mode: Mode, tmp_path: Path) -> None:
    async with staged(mode, tmp_path) as stage:
        await run(stage, "b")
        await stage.blocker()
        planner = stage.proxy.engine.upstream.planner
        allowed = planner.budget.pins
        await stage.comfy.crash()
        await until(lambda: not stage.proxy.engine.feed.up, "the death to be seen")
        stage.gate.open()
        await stage.comfy.restart()
        await until(lambda: stage.proxy.engine.feed.up and stage.proxy.engine.upstream.schema.complete, "the return")
        assert planner.budget.pins == allowed // 2
