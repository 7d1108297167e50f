"""A failure that may be ComfyUI's fault: its client does not hear of it before that is settled, which is soon."""

import math
from pathlib import Path
from typing import Any

import pytest

from proxy.core import doubts
from proxy.core.jobs import State
from proxy.core.mode import Mode
from simulator import NodeStart
from tests.engine.stage import Gate, Stage, encode, fresh_id, staged, until

STRANGE = RuntimeError("no reason given")


class Faulty(Gate):
    """Some prompts fail."""

    def __init__(self, error: Exception = STRANGE) -> None:
        super().__init__()
        self.failing: set[str] = set()
        self.error = error

    async def __call__(self, start: NodeStart) -> None:
        await super().__call__(start)
        if start.prompt_id in self.failing:
            raise self.error


def doubtful(stage: Stage) -> list[str]:
    """The prompts whose failure is not told yet."""
    assert stage.proxy.engine.held is not None
    jobs = stage.proxy.engine.held.holding.scheduler.context.ledger.jobs.values()
    return [job.prompt_id for job in jobs if job.state is State.DOUBTFUL]


async def in_doubt(stage: Stage, gate: Faulty, socket: Any) -> tuple[str, str]:
    """A prompt that has failed and of whose end nobody knows, and one that runs behind it until it is let."""
    failed, behind = ids = fresh_id(), fresh_id()
    gate.failing = {failed}
    for prompt_id in ids:
        gate.shut(prompt_id)
        await stage.client.submit(encode("a", prompt_id), socket.client_id, prompt_id=prompt_id)
    gate.open(failed)
    await gate.reached(behind)
    await until(lambda: doubtful(stage) == [failed], "the failure to be seen")
    return ids


async def is_told_once(stage: Stage, socket: Any, prompt_id: str) -> None:
    await socket.until_event("executing", node=None, prompt_id=prompt_id)
    (error,) = socket.named("execution_error")
    assert error.data["prompt_id"] == prompt_id
    assert error.data["exception_message"].strip() == str(STRANGE)
    assert error.data["node_id"] in encode("a", "")
    entry = (await stage.client.get_json(f"/history/{prompt_id}"))[prompt_id]
    assert entry["status"]["status_str"] == "error"


async def test_three_in_a_row_are_all_run_again(tmp_path: Path) -> None:
    gate = Faulty()
    async with staged(Mode.FULL, tmp_path, gate=gate) as stage, stage.client.socket() as socket:
        ids = [fresh_id() for _ in "abc"]
        gate.failing = set(ids)
        gate.shut(ids[0])
        for name, prompt_id in zip("abc", ids, strict=True):
            await stage.client.submit(encode(name, prompt_id), socket.client_id, prompt_id=prompt_id)
        gate.open()
        assert stage.proxy.engine.held is not None
        upkeep = stage.proxy.engine.held.caretaker.upkeep
        await until(lambda: upkeep.poisoned, "the queue to stop")
        await stage.comfy.idle()
        assert doubtful(stage) == []
        gate.failing.clear()
        await stage.comfy.crash()
        await stage.comfy.restart()
        entries = await stage.ended(*ids)
        assert [entry["status"]["status_str"] for entry in entries] == ["success"] * 3
        for prompt_id in ids:
            await socket.until_event("executing", node=None, prompt_id=prompt_id)
        assert socket.named("execution_error") == []
        assert sorted(event.data["prompt_id"] for event in socket.named("execution_success")) == sorted(ids)


async def test_until_it_is_told_it_counts_as_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Faulty()
    async with staged(Mode.FULL, tmp_path, gate=gate) as stage, stage.client.socket() as socket:
        failed, behind = await in_doubt(stage, gate, socket)
        running, pending = await stage.client.queue()
        assert ([item[1] for item in running], [item[1] for item in pending]) == ([behind], [failed])
        assert (await stage.client.get_json("/prompt"))["exec_info"]["queue_remaining"] == 2
        assert (await stage.client.get_json(f"/api/jobs/{failed}"))["status"] == "pending"
        assert await stage.client.get_json(f"/history/{failed}") == {}
        assert await stage.client.get_json("/history") == {}
        assert socket.named("execution_error") == []
        monkeypatch.setattr(doubts, "LONGEST", 0.0)
        assert stage.proxy.engine.held is not None
        stage.proxy.engine.held.beat()
        await is_told_once(stage, socket, failed)


async def test_it_is_told_when_the_next_one_succeeds(tmp_path: Path) -> None:
    gate = Faulty()
    async with staged(Mode.FULL, tmp_path, gate=gate) as stage, stage.client.socket() as socket:
        failed, behind = await in_doubt(stage, gate, socket)
        gate.open(behind)
        await is_told_once(stage, socket, failed)
        await stage.ended(behind)


async def test_who_cancels_it_is_told(tmp_path: Path) -> None:
    gate = Faulty()
    async with staged(Mode.FULL, tmp_path, gate=gate) as stage, stage.client.socket() as socket:
        failed, _ = await in_doubt(stage, gate, socket)
        assert (await stage.post("/queue", {"delete": [failed]})).status == 200
        await is_told_once(stage, socket, failed)


async def test_a_new_comfyui_runs_it_again(tmp_path: Path) -> None:
    gate = Faulty()
    async with staged(Mode.FULL, tmp_path, gate=gate) as stage, stage.client.socket() as socket:
        failed, behind = await in_doubt(stage, gate, socket)
        gate.failing.clear()
        await stage.comfy.crash()
        gate.open()
        await stage.comfy.restart()
        entries = await stage.ended(failed, behind)
        assert [entry["status"]["status_str"] for entry in entries] == ["success", "success"]
        await socket.until_event("executing", node=None, prompt_id=failed)
        assert socket.named("execution_error") == []


async def test_a_proxy_that_is_killed_meanwhile_tells_it_afterwards(tmp_path: Path) -> None:
    gate = Faulty()
    async with staged(Mode.FULL, tmp_path, gate=gate) as stage:
        async with stage.client.socket() as socket:
            failed, _ = await in_doubt(stage, gate, socket)
        await stage.kill()
        await stage.start()
        assert (await stage.ended(failed))[0]["status"]["status_str"] == "error"


@pytest.fixture
def _for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not told at once is not told by the time."""
    monkeypatch.setattr(doubts, "PATIENCE", math.inf)
    monkeypatch.setattr(doubts, "LONGEST", math.inf)


@pytest.mark.usefixtures("_for_ever")
async def test_where_nothing_follows_it_is_told_at_once(tmp_path: Path) -> None:
    gate = Faulty()
    async with staged(Mode.FULL, tmp_path, gate=gate) as stage, stage.client.socket() as socket:
        prompt_id = fresh_id()
        gate.failing = {prompt_id}
        await stage.client.submit(encode("a", prompt_id), socket.client_id, prompt_id=prompt_id)
        await is_told_once(stage, socket, prompt_id)


@pytest.mark.usefixtures("_for_ever")
async def test_what_is_a_prompts_own_fault_is_told_at_once(tmp_path: Path) -> None:
    gate = Faulty(ValueError("no such sampler"))
    async with staged(Mode.FULL, tmp_path, gate=gate) as stage, stage.client.socket() as socket:
        ids = [fresh_id() for _ in "abcd"]
        gate.failing = set(ids)
        await stage.blocker()
        for name, prompt_id in zip("abcd", ids, strict=True):
            await stage.client.submit(encode(name, name), socket.client_id, prompt_id=prompt_id)
        behind = fresh_id()
        gate.shut(behind)
        await stage.client.submit(encode("a", "behind"), prompt_id=behind)
        gate.open(gate.started[0])
        for prompt_id in ids:
            await socket.until_event("executing", node=None, prompt_id=prompt_id)
            assert (await stage.ended(prompt_id))[0]["status"]["status_str"] == "error"
        assert (await stage.client.get_json("/comfykeep/queue"))["paused_by"] == []
