"""What goes wrong with a warm-up, and what is said of it."""

import asyncio
import json
from pathlib import Path

import pytest

from proxy.core.mode import Mode
from tests.engine.relay import Asked, Fate
from tests.engine.warm_stage import (
    MODES,
    encode,
    endless,
    entry,
    is_warmup,
    until,
    warm_stage,
)

pytestmark = pytest.mark.usefixtures("no_settling")


async def test_a_refusal_is_told_with_comfyuis_reason(tmp_path: Path) -> None:
    async with warm_stage(tmp_path, entry("a", "a")) as stage:
        stage.relay.script = _refused
        outcome = await stage.warm(name="a")
        assert outcome["result"] == "failed"
        assert "Value not in list" in outcome["detail"]
        assert stage.proxy.engine.warming.traces.hidden == frozenset()


async def _refused(request: Asked) -> Fate | bytes:
    if not is_warmup(request):
        return Fate.PASSED
    errors = [{"type": "value_not_in_list", "message": "Value not in list", "details": "ckpt_name: 'a'"}]
    body = {
        "error": {"type": "prompt_outputs_failed_validation", "message": "Prompt outputs failed validation"},
        "node_errors": {"1": {"errors": errors, "dependent_outputs": [], "class_type": "CheckpointLoaderSimple"}},
    }
    raw = json.dumps(body).encode()
    return b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        len(raw),
        raw,
    )


@MODES
async def test_the_death_of_comfyui_is_a_failure_of_the_entry(mode: Mode, tmp_path: Path) -> None:
    async with warm_stage(tmp_path, entry("a", "a"), mode) as stage:
        stage.gate.shut_all()
        warmed = asyncio.create_task(stage.warm(name="a"))
        await until(lambda: stage.gate.started, "the warm-up to start")
        await stage.comfy.crash()
        outcome = await warmed
        assert outcome["result"] == "failed"
        assert "died" in outcome["detail"]
        await stage.comfy.restart()
        await until(lambda: stage.proxy.engine.warming.surroundings() is not None, "the new ComfyUI")
        stage.gate.open()
        await stage.run(encode("b", "life goes on"))
        await until(lambda: stage.proxy.engine.warming.idle_for() is not None, "idleness")


async def test_one_that_takes_too_long_is_interrupted(tmp_path: Path) -> None:
    async with warm_stage(tmp_path, endless(tmp_path) + "timeout = 0.1\n", time_scale=1.0) as stage:
        outcome = await stage.warm(name="endless")
        assert outcome["result"] == "timed out"
        await stage.direct.idle()


async def test_somebody_may_interrupt_it(tmp_path: Path) -> None:
    async with warm_stage(tmp_path, endless(tmp_path), time_scale=1.0) as stage:
        warmed = asyncio.create_task(stage.warm(name="endless"))
        await until(lambda: stage.gate.started, "the warm-up to start")
        await stage.client.post("/interrupt", {})
        assert (await warmed)["result"] == "cancelled"


async def test_a_stop_takes_back_what_runs_and_says_so(tmp_path: Path) -> None:
    async with warm_stage(tmp_path, endless(tmp_path), time_scale=1.0) as stage:
        asked = asyncio.create_task(stage.client.post("/comfykeep/warmup", {"name": "endless"}))
        await until(lambda: stage.gate.started, "the warm-up to start")
        await stage.stop()
        answer = await asked
        assert (answer.status, answer.json()["error"]["type"]) == (503, "shutting_down")
        await stage.direct.idle()
