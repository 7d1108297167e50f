"""ComfyUI's own queue, by which pins are planned in mode `pins`: ours, strangers', what an earlier proxy has sent."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proxy.core.mode import Mode
from proxy.downstream.status_model import UpstreamStatus
from tests.contract.client import Client
from tests.engine.stage import Stage, encode, fresh_id, staged, until


@asynccontextmanager
async def busy(mode: Mode = Mode.PINS, folder: Path = Path("unused")) -> AsyncIterator[tuple[Stage, str]]:
    """ComfyUI holds the checkpoints a, b and c, and runs a prompt with a."""
    async with staged(mode, folder) as stage:
        for name in "abc":
            await stage.ended(await submit(stage.client, name))
        running = await stage.blocker()
        yield stage, running


async def submit(client: Client, checkpoint: str, **fields: Any) -> str:
    return str((await client.submit(encode(checkpoint, fresh_id()), **fields))["prompt_id"])


async def submit_with_one_pin(stage: Stage, checkpoint: str, **fields: Any) -> str:
    """Of all that is there one checkpoint may be carried along."""
    planner = stage.proxy.engine.upstream.planner
    planner.limits = replace(planner.limits, max_chains=1)
    return await submit(stage.client, checkpoint, **fields)


def pinned(stage: Stage, prompt_id: str) -> list[str]:
    """The checkpoints that a prompt was sent with and does not use."""
    bodies = [json.loads(request.body) for request in stage.relay.asked("POST", "/prompt")]
    [sent] = [body for body in bodies if body["prompt_id"] == prompt_id]
    return [sent["prompt"][pin]["inputs"]["ckpt_name"] for pin in sent["extra_data"]["comfykeep"].get("pins", ())]


async def seen(stage: Stage) -> UpstreamStatus:
    answer = await stage.client.get_json("/comfykeep/status")
    return UpstreamStatus.model_validate(answer["upstream"])


async def strangers_seen(stage: Stage, count: int) -> None:
    await until(lambda: sum(not item.ours for item in stage.proxy.engine.visible.waiting()) == count, "a look")


async def test_a_prompt_in_front_carries_what_runs_after_it() -> None:
    async with busy() as (stage, running):
        first, second = [await submit(stage.client, name) for name in "bc"]
        assert pinned(stage, await submit_with_one_pin(stage, "d", front=True)) == ["b.safetensors"]
        stage.gate.open(running)
        await stage.ended(first, second)


async def test_so_does_one_with_a_number_between_others() -> None:
    async with busy() as (stage, running):
        await submit(stage.client, "b")
        second = await stage.client.submit(encode("c", "second"))
        await submit(stage.client, "a")
        between = await submit_with_one_pin(stage, "d", number=second["number"] - 0.5)
        assert pinned(stage, between) == ["c.safetensors"]
        stage.gate.open(running)
        await stage.ended(second["prompt_id"])


async def test_and_one_at_the_end_what_was_given_a_higher_number() -> None:
    async with busy() as (stage, running):
        last = await submit(stage.client, "b", number=1000)
        await submit(stage.client, "c")
        assert pinned(stage, await submit_with_one_pin(stage, "d")) == ["b.safetensors"]
        stage.gate.open(running)
        await stage.ended(last)


async def test_prompts_that_did_not_come_through_here_count() -> None:
    async with busy() as (stage, running):
        strange = await submit(stage.direct, "b")
        await strangers_seen(stage, 1)
        await submit(stage.client, "c")
        assert pinned(stage, await submit_with_one_pin(stage, "d", front=True)) == ["b.safetensors"]
        stage.gate.open(running)
        await stage.direct.history(strange)
        await strangers_seen(stage, 0)


async def test_what_of_a_strangers_prompt_cannot_be_understood_needs_nothing() -> None:
    async with busy() as (stage, running):
        loop = {"1": {"class_type": "CLIPTextEncode", "inputs": {"text": "x", "clip": ["1", 0]}}}
        stage.comfy.process.queue.put((99, fresh_id(), loop, {}, [], {}))
        stage.comfy.process.queue.put((100, fresh_id(), {"1": "nothing"}, {}, [], {}))
        await strangers_seen(stage, 2)
        assert [item.models for item in stage.proxy.engine.visible.waiting()] == [frozenset()] * 2
        stage.comfy.process.queue.clear()
        stage.gate.open(running)


async def test_one_that_has_ended_is_shown_no_longer_though_our_own_explain_all_that_is_left() -> None:
    async with busy() as (stage, running):
        strange = await submit(stage.direct, "b")
        ours = await submit(stage.client, "c")
        for prompt_id in (strange, ours):
            stage.gate.shut(prompt_id)
        stage.gate.open(running)
        await stage.gate.reached(strange)
        visible = stage.proxy.engine.visible
        await until(lambda: [item.prompt_id for item in visible.running()] == [strange], "a look")
        stage.gate.open(strange)
        await stage.gate.reached(ours)
        await until(lambda: [item.prompt_id for item in visible.running()] == [ours], "another")
        stage.gate.open()
        await stage.ended(ours)


@pytest.mark.parametrize("mode", [Mode.PINS, Mode.FULL])
async def test_the_status_shows_them_apart(mode: Mode, tmp_path: Path) -> None:
    async with busy(mode, tmp_path) as (stage, running):
        strange = await submit(stage.direct, "b")
        await strangers_seen(stage, 1)
        ours = await submit(stage.client, "c")
        shown = await seen(stage)
        assert [(item.prompt_id, item.ours) for item in shown.running] == [(running, True)]
        assert [(item.prompt_id, item.ours) for item in shown.queue] == [(strange, False), (ours, True)]
        assert [item.models for item in shown.queue] == [("b.safetensors",), ("c.safetensors",)]
        assert shown.waiting == 2
        needed = {item.label: (item.needed_by, item.needed_in) for item in shown.components}
        assert needed["b.safetensors"] == (strange, 1)
        assert needed["c.safetensors"] == (ours, 2)
        stage.gate.shut(strange)
        stage.gate.open(running)
        await stage.gate.reached(strange)
        await until(lambda: [item.prompt_id for item in stage.proxy.engine.visible.running()] == [strange], "a look")
        shown = await seen(stage)
        assert [(item.prompt_id, item.ours, item.models) for item in shown.running] == [
            (strange, False, ("b.safetensors",))
        ]
        stage.gate.open()
        await stage.ended(ours)


async def test_what_an_earlier_proxy_has_sent_is_shown_with_its_models(tmp_path: Path) -> None:
    async with busy(Mode.PINS, tmp_path) as (stage, running):
        waits = await submit(stage.client, "b")
        await stage.kill()
        await stage.start()
        await until(lambda: stage.proxy.engine.records.get(waits) is not None, "what ComfyUI has")
        shown = await seen(stage)
        assert [(item.prompt_id, item.ours, item.models) for item in shown.running] == [
            (running, True, ("a.safetensors",))
        ]
        assert [(item.prompt_id, item.ours, item.models) for item in shown.queue] == [(waits, True, ("b.safetensors",))]
        stage.gate.open()
        await stage.ended(waits)
