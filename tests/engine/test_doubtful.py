"""A failure that may be ComfyUI's fault: its client does not hear of it before that is settled, which is soon."""

from pathlib import Path
from typing import Any

import pytest

from proxy.core import doubts
from proxy.core.jobs import State
from proxy.core.mode import Mode
from tests.engine.stage import Stage, encode, fresh_id, staged, until
from tests.engine.test_poisoned import Device, restarted

STRANGE = RuntimeError("no reason given")


def doubtful(stage: Stage) -> list[str]:
    """The prompts whose failure is not told yet, and that are not at ComfyUI any more."""
    assert stage.proxy.engine.held is not None
    jobs = stage.proxy.engine.held.holding.scheduler.context.ledger.jobs.values()
    return [job.prompt_id for job in jobs if job.state is State.DOUBTFUL]


async def in_doubt(stage: Stage, socket: Any) -> str:
    """A prompt that has failed and of whose end nobody knows."""
    prompt_id = fresh_id()
    await stage.client.submit(encode("a", prompt_id), socket.client_id, prompt_id=prompt_id)
    await until(lambda: doubtful(stage) == [prompt_id], "the failure")
    await stage.comfy.idle()
    return prompt_id


async def is_told_once(stage: Stage, socket: Any, prompt_id: str) -> None:
    await socket.until_event("executing", node=None, prompt_id=prompt_id)
    (error,) = socket.named("execution_error")
    assert error.data["prompt_id"] == prompt_id
    assert error.data["exception_message"].strip() == str(STRANGE)
    assert error.data["node_id"] in encode("a", "")
    entry = (await stage.client.get_json(f"/history/{prompt_id}"))[prompt_id]
    assert entry["status"]["status_str"] == "error"
    assert await stage.client.get_json("/queue") == {"queue_running": [], "queue_pending": []}


async def test_three_in_a_row_are_all_run_again(tmp_path: Path) -> None:
    device = Device(STRANGE)
    async with staged(Mode.FULL, tmp_path, before_node=device) as stage, stage.client.socket() as socket:
        ids = [fresh_id() for _ in "abc"]
        for name, prompt_id in zip("abc", ids, strict=True):
            await stage.client.submit(encode(name, prompt_id), socket.client_id, prompt_id=prompt_id)
        assert stage.proxy.engine.held is not None
        upkeep = stage.proxy.engine.held.caretaker.upkeep
        await until(lambda: upkeep.poisoned, "the queue to stop")
        await stage.comfy.idle()
        assert doubtful(stage) == []
        await restarted(stage, device)
        entries = await stage.ended(*ids)
        assert [entry["status"]["status_str"] for entry in entries] == ["success"] * 3
        await socket.until_event("executing", node=None, prompt_id=ids[2])
        assert socket.named("execution_error") == []
        assert sorted(event.data["prompt_id"] for event in socket.named("execution_success")) == sorted(ids)


async def test_until_it_is_told_it_counts_as_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(STRANGE)
    async with staged(Mode.FULL, tmp_path, before_node=device) as stage, stage.client.socket() as socket:
        prompt_id = await in_doubt(stage, socket)
        assert [item[1] for item in (await stage.client.get_json("/queue"))["queue_pending"]] == [prompt_id]
        assert (await stage.client.get_json("/prompt"))["exec_info"]["queue_remaining"] == 1
        assert (await stage.client.get_json(f"/api/jobs/{prompt_id}"))["status"] == "pending"
        assert await stage.client.get_json(f"/history/{prompt_id}") == {}
        assert await stage.client.get_json("/history") == {}
        assert socket.named("execution_error") == []
        monkeypatch.setattr(doubts, "PATIENCE", 0.0)
        assert stage.proxy.engine.held is not None
        stage.proxy.engine.held.beat()
        await is_told_once(stage, socket, prompt_id)


async def test_it_is_told_when_the_next_one_succeeds(tmp_path: Path) -> None:
    device = Device(STRANGE)
    async with staged(Mode.FULL, tmp_path, before_node=device) as stage, stage.client.socket() as socket:
        prompt_id = await in_doubt(stage, socket)
        device.broken = False
        await stage.ended((await stage.client.submit(encode("b", "next")))["prompt_id"])
        await is_told_once(stage, socket, prompt_id)


async def test_who_cancels_it_is_told(tmp_path: Path) -> None:
    device = Device(STRANGE)
    async with staged(Mode.FULL, tmp_path, before_node=device) as stage, stage.client.socket() as socket:
        prompt_id = await in_doubt(stage, socket)
        assert (await stage.post("/queue", {"delete": [prompt_id]})).status == 200
        await is_told_once(stage, socket, prompt_id)


async def test_a_new_comfyui_runs_it_again(tmp_path: Path) -> None:
    device = Device(STRANGE)
    async with staged(Mode.FULL, tmp_path, before_node=device) as stage, stage.client.socket() as socket:
        prompt_id = await in_doubt(stage, socket)
        await restarted(stage, device)
        assert (await stage.ended(prompt_id))[0]["status"]["status_str"] == "success"
        await socket.until_event("executing", node=None, prompt_id=prompt_id)
        assert socket.named("execution_error") == []


async def test_a_proxy_that_is_killed_meanwhile_tells_it_afterwards(tmp_path: Path) -> None:
    device = Device(STRANGE)
    async with staged(Mode.FULL, tmp_path, before_node=device) as stage:
        async with stage.client.socket() as socket:
            prompt_id = await in_doubt(stage, socket)
        await stage.kill()
        await stage.start()
        assert (await stage.ended(prompt_id))[0]["status"]["status_str"] == "error"


async def test_what_is_a_prompts_own_fault_is_told_at_once(tmp_path: Path) -> None:
    device = Device(ValueError("no such sampler"))
    async with staged(Mode.FULL, tmp_path, before_node=device) as stage, stage.client.socket() as socket:
        for name in "abcd":
            prompt_id = (await stage.client.submit(encode(name, name), socket.client_id))["prompt_id"]
            await socket.until_event("execution_error", prompt_id=prompt_id)
            await socket.until_event("executing", node=None, prompt_id=prompt_id)
            assert (await stage.ended(prompt_id))[0]["status"]["status_str"] == "error"
        assert (await stage.client.get_json("/comfykeep/queue"))["paused_by"] == []
