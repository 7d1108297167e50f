"""Clients go first: a warm-up costs them no more than the prompt that already runs."""

import asyncio
import json
from pathlib import Path

import pytest

from proxy.core.mode import Mode
from tests.engine.relay import Asked, Fate
from tests.engine.stage import fresh_id
from tests.engine.warm_stage import (
    MODES,
    encode,
    entry,
    eventually,
    is_warmup,
    node,
    until,
    warm_stage,
)

pytestmark = pytest.mark.usefixtures("no_settling")


@MODES
async def test_a_client_waits_for_the_running_prompt_of_a_warm_up_and_no_longer(mode: Mode, tmp_path: Path) -> None:
    """A group of three models is warmed by three prompts; the client's comes after the first."""
    workflow = {str(n): node("CheckpointLoaderSimple", ckpt_name=f"{name}.safetensors") for n, name in enumerate("abc")}
    shown = {f"{n}0": node("PreviewAny", source=[n, 0]) for n in workflow}
    (tmp_path / "three.api.json").write_text(json.dumps(workflow | shown))
    schedule = '[[entry]]\nname = "three"\nprompt = "three.api.json"\nto = "ram"\n'
    async with warm_stage(tmp_path, schedule, mode) as stage:
        stage.gate.shut_all()
        warmed = asyncio.create_task(stage.warm(name="three"))
        await until(lambda: stage.gate.started, "the first prompt of the warm-up")
        theirs = fresh_id()
        submitting = asyncio.create_task(stage.client.submit(encode("d", "a client's"), prompt_id=theirs))
        await until(lambda: any(item[1] == theirs for item in stage.comfy.process.queue.pending), "its arrival")
        stage.gate.open()
        await submitting
        assert (await warmed)["result"] == "warmed"
        assert stage.gate.started[1] == theirs
        assert len(stage.gate.started) == 4
        assert stage.loads == ["a", "d", "b", "c"]


@MODES
async def test_one_that_has_not_begun_is_taken_back_for_a_client(mode: Mode, tmp_path: Path) -> None:
    """Somebody submits to ComfyUI directly just before the warm-up gets there, so that it has to wait."""
    async with warm_stage(tmp_path, entry("a", "a"), mode) as stage:
        blocker, theirs = fresh_id(), fresh_id()
        stage.gate.shut(blocker)

        async def come_first(request: Asked) -> Fate:
            if is_warmup(request) and blocker not in stage.gate.started:
                await stage.direct.submit(encode("b", "somebody else's"), prompt_id=blocker)
                await stage.gate.reached(blocker)
            return Fate.PASSED

        stage.relay.script = come_first
        queue = stage.comfy.process.queue
        warmed = asyncio.create_task(stage.warm(name="a"))
        await until(lambda: any("comfykeep_warmup" in item[3] for item in queue.pending), "the warm-up to wait")
        submitting = asyncio.create_task(stage.client.submit(encode("c", "a client's"), prompt_id=theirs))
        await until(lambda: not any("comfykeep_warmup" in item[3] for item in queue.pending), "it to be taken back")
        assert not warmed.done()
        stage.gate.open(blocker)
        await submitting
        assert (await warmed)["result"] == "warmed"
        assert stage.gate.started[:2] == [blocker, theirs]


@MODES
async def test_nothing_is_sent_while_a_clients_prompt_runs(mode: Mode, tmp_path: Path) -> None:
    async with warm_stage(tmp_path, entry("a", "a"), mode) as stage:
        theirs = fresh_id()
        stage.gate.shut(theirs)
        await stage.client.submit(encode("b", "a client's"), prompt_id=theirs)
        await stage.gate.reached(theirs)
        warmed = asyncio.create_task(stage.warm(name="a"))

        async def runs() -> bool:
            rows = (await stage.client.get_json("/comfykeep/warmup"))["entries"]
            return [row["status"] for row in rows] == ["running"]

        await eventually(runs, "the warm-up to want its turn")
        for _ in range(10):
            await stage.client.get_json("/queue")
        assert not any(map(is_warmup, stage.relay.requests))
        stage.gate.open(theirs)
        assert (await warmed)["result"] == "warmed"
        assert stage.gate.started[0] == theirs


async def test_only_when_idle_waits_for_the_last_client(tmp_path: Path) -> None:
    async with warm_stage(tmp_path, entry("a", "a", on=["upstream-start"], only_when_idle="true")) as stage:
        assert await stage.result("a") == "warmed"
        theirs = fresh_id()
        stage.gate.shut(theirs)
        await stage.client.submit(encode("b", "a client's"), prompt_id=theirs)
        await stage.gate.reached(theirs)
        assert stage.proxy.engine.warming.idle_for() is None
        stage.gate.open(theirs)
        await until(lambda: stage.proxy.engine.warming.idle_for() is not None, "idleness")


async def test_a_paused_queue_sends_no_warm_up(tmp_path: Path) -> None:
    async with warm_stage(tmp_path, mode=Mode.FULL) as stage:
        held = stage.proxy.engine.held
        assert held is not None
        held.holding.scheduler.context.pauses.add("operator")
        warmed = asyncio.create_task(stage.warm(model="a.safetensors"))

        async def waits() -> bool:
            rows = (await stage.client.get_json("/comfykeep/warmup"))["entries"]
            return [row["status"] for row in rows] == ["running"]

        await eventually(waits, "the warm-up to wait")
        assert stage.loads == []
        held.holding.scheduler.context.pauses.clear()
        assert (await warmed)["result"] == "warmed"
