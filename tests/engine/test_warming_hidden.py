"""No client sees a warm-up: not in the queue, not in the history, not by an event, not in a count."""

import asyncio
import json
from pathlib import Path

import pytest

from proxy.core.mode import Mode
from tests.engine.stage import fresh_id
from tests.engine.warm_stage import (
    MODES,
    begun,
    encode,
    is_warmup,
    node,
    until,
    warm_stage,
)

pytestmark = pytest.mark.usefixtures("no_settling")


@MODES
async def test_no_client_sees_a_warm_up(mode: Mode, tmp_path: Path) -> None:
    async with warm_stage(tmp_path, mode=mode) as stage, stage.client.socket() as socket:
        first = len(socket.frames)
        warmed = await begun(stage)
        assert await stage.direct.queue() != ([], [])
        assert await stage.client.queue() == ([], [])
        assert await stage.client.get_json("/prompt") == {"exec_info": {"queue_remaining": 0}}
        assert (await stage.client.get_json("/api/jobs"))["jobs"] == []
        assert (await stage.client.get_json("/api/jobs"))["pagination"]["total"] == 0
        async with stage.client.socket() as late:
            assert late.named("status")[0].data["status"]["exec_info"]["queue_remaining"] == 0
        theirs = fresh_id()
        submitting = asyncio.create_task(stage.client.submit(encode("b", "theirs"), socket.client_id, prompt_id=theirs))
        await until(lambda: stage.comfy.process.queue.pending, "a client's prompt behind it")
        stage.gate.open()
        await submitting
        await socket.until_done(theirs)
        await warmed
        assert list(await stage.client.get_json("/history")) == [theirs]
        seen = socket.frames[first:]
        assert {event.data.get("prompt_id", theirs) for event in seen} == {theirs}  # type: ignore[union-attr]
        counts = [event.data["status"]["exec_info"]["queue_remaining"] for event in socket.named("status")]
        assert set(counts) == {0, 1}
        assert counts[-1] == 0


@MODES
async def test_whoever_asks_sees_it(mode: Mode, tmp_path: Path) -> None:
    async with warm_stage(tmp_path, mode=mode) as stage:
        warmed = await begun(stage)
        running = (await stage.client.get_json("/queue?comfykeep_warmups=1"))["queue_running"]
        assert [item[3]["comfykeep_warmup"] for item in running] == ["a.safetensors"]
        jobs = (await stage.client.get_json("/api/jobs?comfykeep_warmups=1"))["jobs"]
        assert [job["id"] for job in jobs] == [running[0][1]]
        stage.gate.open()
        await warmed


@MODES
async def test_its_history_is_gone_from_comfyui_too_and_nobody_elses(mode: Mode, tmp_path: Path) -> None:
    async with warm_stage(tmp_path, mode=mode) as stage:
        theirs = fresh_id()
        await stage.run(encode("b", "theirs"), theirs)
        await stage.warm(model="a.safetensors")
        await until(lambda: stage.history == [theirs], "the warm-up to be forgotten")


async def test_the_totals_are_of_clients_prompts(tmp_path: Path) -> None:
    async with warm_stage(tmp_path) as stage:
        await stage.warm(model="a.safetensors")
        await stage.run(encode("a", "theirs"))
        totals = (await stage.client.get_json("/comfykeep/status"))["totals"]
        assert (totals["prompts"], totals["loaded"], totals["kept"]) == (1, 0, 1)


async def test_a_warm_up_of_a_proxy_that_has_gone_is_hidden_by_the_next(tmp_path: Path) -> None:
    async with warm_stage(tmp_path) as stage:
        prompt = {
            "1": node("CheckpointLoaderSimple", ckpt_name="a.safetensors"),
            "2": node("PreviewAny", source=["1", 0]),
        }
        await stage.warm(model="a.safetensors")
        left = json.loads(next(request for request in stage.relay.requests if is_warmup(request)).body)
        left_id = fresh_id()
        stage.gate.shut(left_id)
        body = {**left, "prompt": prompt, "prompt_id": left_id, "client_id": "comfykeep-of-another"}
        await stage.direct.post("/prompt", body)
        await stage.gate.reached(left_id)
        stage.relay.break_sockets()
        warm = stage.proxy.engine.warming
        await until(lambda: left_id in warm.traces.hidden, "it to be recognised")
        assert await stage.client.queue() == ([], [])
        assert await stage.client.get_json("/prompt") == {"exec_info": {"queue_remaining": 0}}
        await until(lambda: warm.idle_for() is not None, "idleness")
        stage.gate.open(left_id)
        await until(lambda: stage.history == [], "it to be forgotten")
