"""Where ComfyUI has a prompt is not known: it is looked up for as long as that takes, and never sent twice."""

import asyncio
import json
from pathlib import Path

import pytest

from proxy.core.mode import Mode
from proxy.engine.holding import Holding
from tests.engine.relay import Asked, Fate, answer
from tests.engine.stage import Stage, encode, fresh_id, staged, until


class Unsure:
    """ComfyUI takes submissions and deletions, but answers neither; nor, for a while, what it is asked then."""

    def __init__(self, path: str, silences: int = 4) -> None:
        self.path = path
        self.done = False
        self.silences = silences

    async def __call__(self, asked: Asked) -> Fate | bytes:
        if not self.done and asked.is_("POST", self.path):
            self.done = True
            return Fate.UNANSWERED
        if self.done and self.silences and asked.method == "GET" and asked.target.startswith(("/queue", "/history")):
            self.silences -= 1
            return answer(500, b"busy") if self.silences % 2 else Fate.BROKEN
        return Fate.PASSED


def holding_of(stage: Stage) -> Holding:
    assert stage.proxy.engine.held is not None
    return stage.proxy.engine.held.holding


async def test_a_dispatch_without_an_answer(tmp_path: Path) -> None:
    async with staged(Mode.FULL, tmp_path) as stage:
        stage.relay.script = Unsure("/prompt")
        prompt_id = fresh_id()
        assert (await stage.client.submit(encode("a", "1"), prompt_id=prompt_id))["prompt_id"] == prompt_id
        await stage.ended(prompt_id)
        await stage.comfy.idle()
        assert stage.gate.started == [prompt_id]
        assert len(stage.relay.asked("POST", "/prompt")) == 1


async def test_a_dispatch_that_comfyui_reads_late(tmp_path: Path) -> None:
    """It hung, and answers what it is asked before it reads what had been sent."""
    async with staged(Mode.FULL, tmp_path) as stage:
        unread: list[Asked] = []
        looks = 0

        async def late(asked: Asked) -> Fate:
            nonlocal looks
            if not looks and asked.is_("POST", "/prompt"):
                unread.append(asked)
                return Fate.BROKEN
            if looks == 2 and unread:
                await stage.direct.post("/prompt", json.loads(unread.pop().body))
            looks += asked.target == f"/history/{prompt_id}"
            return Fate.PASSED

        stage.relay.script = late
        prompt_id = fresh_id()
        assert (await stage.client.submit(encode("a", "1"), prompt_id=prompt_id))["prompt_id"] == prompt_id
        await stage.ended(prompt_id)
        await stage.comfy.idle()
        assert stage.gate.started == [prompt_id]
        assert len(stage.relay.asked("POST", "/prompt")) == 1


async def test_a_probe_without_an_answer(tmp_path: Path) -> None:
    async with staged(Mode.FULL, tmp_path) as stage:
        running, first = await stage.blocker(), await stage.client.submit(encode("b", "staged"))
        stage.relay.script = Unsure("/prompt")
        probed = await stage.client.submit(encode("b", "probed"))
        await until(lambda: not stage.pending(probes=True), "the probe to be taken out")
        stage.gate.open()
        await stage.ended(running, first["prompt_id"], probed["prompt_id"])
        assert len(stage.gate.started) == 3


async def test_a_recall_without_an_answer(tmp_path: Path) -> None:
    """The staged prompt is taken back for one of higher priority; its deletion happens, the answer gets lost."""
    async with staged(Mode.FULL, tmp_path) as stage:
        await stage.blocker()
        low, high = fresh_id(), fresh_id()
        await stage.client.submit(encode("b", "low"), prompt_id=low)
        await until(lambda: stage.pending() == [low], "the low one to be staged")
        stage.relay.script = Unsure("/queue")
        await stage.post("/prompt", {"prompt": encode("b", "high"), "prompt_id": high}, X_Comfykeep_Priority="5")
        await until(lambda: stage.pending() == [high], "the high one to be staged")
        stage.gate.open()
        await stage.ended(low, high)
        assert stage.gate.started[1:] == [high, low]


@pytest.mark.parametrize("lost_at", ["before", "after"])
async def test_the_connection_breaks_while_a_submission_is_on_its_way(tmp_path: Path, lost_at: str) -> None:
    """ComfyUI does not have it yet when it is asked what it has; sent again, the prompt would run twice."""
    async with staged(Mode.FULL, tmp_path) as stage:
        arrived, go_on = asyncio.Event(), asyncio.Event()

        async def slow(asked: Asked) -> Fate:
            if asked.is_("POST", "/prompt"):
                arrived.set()
                await go_on.wait()
                if lost_at == "after":
                    return Fate.UNANSWERED
            return Fate.PASSED

        stage.relay.script = slow
        prompt_id = fresh_id()
        submitting = asyncio.create_task(stage.client.submit(encode("a", "1"), prompt_id=prompt_id))
        await arrived.wait()
        engine = stage.proxy.engine
        stage.relay.break_sockets()
        await until(lambda: not engine.feed.up, "the break to be seen")
        before = len(stage.relay.asked("GET", "/queue"))
        await until(lambda: engine.feed.up, "the connection to stand again")
        await until(lambda: len(stage.relay.asked("GET", "/queue")) > before, "the queue to be read")
        for _ in range(20):  # turns in which it could be sent again
            await stage.client.get_json("/system_stats")
        go_on.set()
        await submitting
        await stage.ended(prompt_id)
        await stage.comfy.idle()
        assert stage.gate.started == [prompt_id]
        assert len(stage.relay.asked("POST", "/prompt")) == 1


async def test_a_fault_of_ours_does_not_stop_the_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with staged(Mode.FULL, tmp_path) as stage:
        original = stage.proxy.engine.upstream.pins_for
        failures = iter([True, False])

        def fail_once(*args: object) -> object:
            if next(failures, False):
                raise RuntimeError("a fault of ours")
            return original(*args)  # type: ignore[arg-type]

        monkeypatch.setattr(stage.proxy.engine.upstream, "pins_for", fail_once)
        prompt_id = fresh_id()
        await stage.client.submit(encode("a", "1"), prompt_id=prompt_id)
        await stage.ended(prompt_id)
        assert "a fault of ours" in caplog.text
        assert not holding_of(stage).lookahead.waiting()
