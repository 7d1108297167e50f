"""`POST /free` of the proxy's own: before a prompt that would not fit, and when memory is wanted elsewhere."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from proxy.config import ResidencySection
from proxy.core.evidence import ModelsFreed
from proxy.core.mode import Mode
from proxy.core.release import Release
from tests.contract.sockets import Event
from tests.engine.stage import MB, Stage, encode, staged, until

GB = 1024 * MB
LARGE = {"checkpoints": {f"{name}.safetensors": 8 * GB for name in "abcdef"}}
FREED = {"unload_models": True, "free_memory": True}


def freed(stage: Stage) -> list[Any]:
    return [json.loads(request.body) for request in stage.relay.asked("POST", "/free")]


async def run(stage: Stage, checkpoint: str) -> None:
    submitted = await stage.client.submit(encode(checkpoint, "text"))
    await stage.client.history(submitted["prompt_id"])


TIGHT: dict[str, Any] = {"models": LARGE, "ram_gb": 27.0, "vram_gb": 1.0}
"""Beside what ComfyUI needs itself there is room for two models, and for no third while both are there."""


@pytest.mark.parametrize("mode", [Mode.PINS, Mode.FULL])
async def test_a_prompt_that_nobody_foresaw_is_preceded_by_free(mode: Mode, tmp_path: Path) -> None:
    async with staged(mode, tmp_path, **TIGHT) as stage:
        for name in "ab":
            await run(stage, name)
        assert freed(stage) == []
        for name in "cdefabc":
            await run(stage, name)
        assert freed(stage)
        assert all(body == FREED for body in freed(stage))
        assert not stage.comfy.crashed.is_set()


class Collector:
    """Holds ComfyUI's worker where it collects garbage: a request that comes meanwhile wakes nobody."""

    def __init__(self) -> None:
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()
        self.waits = False

    async def __call__(self) -> None:
        self.waits = not self.may_go_on.is_set()
        await self.may_go_on.wait()
        self.waits = False


async def submit_while_it_collects(stage: Stage, collector: Collector, after: str, checkpoint: str) -> None:
    """The checkpoint's prompt comes when ComfyUI has ended the one before and does not wait for the next yet."""
    collector.may_go_on.clear()
    await run(stage, after)
    await until(lambda: collector.waits, "ComfyUI to collect garbage")
    submitted = await stage.client.submit(encode(checkpoint, "text"))
    collector.may_go_on.set()
    history, crashed = stage.comfy.process.queue.history, stage.comfy.crashed
    await until(lambda: crashed.is_set() or submitted["prompt_id"] in history, "its end")


@pytest.mark.parametrize("mode", [Mode.PINS, Mode.FULL])
async def test_so_it_is_where_comfyui_does_not_look_for_requests_just_then(mode: Mode, tmp_path: Path) -> None:
    collector = Collector()
    async with staged(mode, tmp_path, **TIGHT, between_prompts=collector) as stage, stage.client.socket() as page:
        await run(stage, "a")
        await submit_while_it_collects(stage, collector, "b", "c")
        assert freed(stage) == [FREED]
        assert not stage.comfy.crashed.is_set()
        seen = {entry["prompt"][1] for entry in (await stage.client.get_json("/history")).values()}
        assert len(seen) == 3
        told = {frame.data.get("prompt_id") for frame in page.frames if isinstance(frame, Event)}
        assert told - {None} <= seen


async def test_a_request_alone_would_come_too_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collector = Collector()
    async with staged(Mode.PINS, tmp_path, **TIGHT, between_prompts=collector) as stage:

        async def nothing(_now: float) -> None:
            return

        monkeypatch.setattr(stage.proxy.engine.upstream, "between", nothing)
        await run(stage, "a")
        await submit_while_it_collects(stage, collector, "b", "c")
        assert freed(stage) == [FREED]
        assert stage.comfy.crashed.is_set()


async def test_without_that_comfyui_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with staged(Mode.PINS, tmp_path, **TIGHT) as stage:
        monkeypatch.setattr(stage.proxy.engine.upstream.planner, "must_free", lambda _own: False)
        for name in "ab":
            await run(stage, name)
        await stage.client.submit(encode("c", "text"))
        await until(stage.comfy.crashed.is_set, "the kill")


async def test_what_waits_at_comfyui_is_not_robbed_of_its_models(tmp_path: Path) -> None:
    async with staged(Mode.PINS, tmp_path, models=LARGE, ram_gb=64.0) as stage:
        running = await stage.blocker()
        await stage.client.submit(encode("b", "text"))
        planner = stage.proxy.engine.upstream.planner
        assert [sorted(ref.files for ref in models) for models in planner.residency.coming] == [
            [("b.safetensors",)],
        ]
        assert not planner.must_free(stage.proxy.engine.records.get(running).chains)  # type: ignore[union-attr]


async def test_memory_is_given_back_after_the_time_that_was_set(tmp_path: Path) -> None:
    async with staged(Mode.PINS, tmp_path, residency=ResidencySection(release_idle=1e-9)) as stage:
        await run(stage, "a")
        await until(lambda: freed(stage) == [FREED], "the release")
        await until(lambda: not stage.proxy.engine.upstream.planner.residency.lives, "the model to be gone")


async def leave_free(stage: Stage, size: int) -> None:
    """Other programs take RAM, and that is read while nothing runs."""
    upstream, memory = stage.proxy.engine.upstream, stage.comfy.process.machine.memory
    await until(lambda: upstream.idle_since is not None, "the queue to be empty")
    memory._base = memory.ram_total - size
    upstream.memory.set_busy(True)
    upstream.memory.set_busy(False)
    await until(lambda: upstream.planner.budget.ram == 0, "the reading to be taken in")


async def test_pins_go_when_ram_runs_short_between_two_prompts(tmp_path: Path) -> None:
    async with staged(Mode.PINS, tmp_path) as stage:
        for name in "ab":
            await run(stage, name)
        await leave_free(stage, 2 * GB)
        await until(lambda: freed(stage) == [FREED], "the release")


@pytest.mark.parametrize("mode", [Mode.PINS, Mode.FULL])
async def test_with_less_than_the_reserve_they_go_with_the_next_prompt(mode: Mode, tmp_path: Path) -> None:
    async with staged(mode, tmp_path) as stage:
        planner = stage.proxy.engine.upstream.planner
        for name in "ab":
            await run(stage, name)
        await leave_free(stage, planner.ram_reserve * 2 // 3)
        await run(stage, "c")
        held = stage.proxy.engine.upstream.planner.residency
        assert [ref.files for ref in held.there_then] == [("c.safetensors",)]
        assert freed(stage) == []
        await run(stage, "a")
        assert stage.loads == [f"{name}.safetensors" for name in "abca"], "ComfyUI has let go of it"


async def test_observe_frees_nothing(tmp_path: Path) -> None:
    async with staged(Mode.OBSERVE, tmp_path) as stage:
        stage.proxy.engine._release(Release(ModelsFreed(unload_models=True, free_memory=True), "of a test"))
        await run(stage, "a")
        assert freed(stage) == []
