"""What is at ComfyUI only to be validated must never stay there: not when the proxy stops, not when it is killed."""

import asyncio
from pathlib import Path

import pytest

from proxy.core.mode import Mode
from proxy.engine import engine
from tests.engine.relay import Asked, Fate
from tests.engine.stage import Stage, encode, fresh_id, staged, until


async def busy(stage: Stage) -> None:
    """Something runs and something is staged: what is submitted now is probed."""
    await stage.blocker()
    await stage.client.submit(encode("b", "staged"))


async def park(stage: Stage, prompt_id: str) -> "asyncio.Task[object]":
    """Submit a prompt whose probe then stays in ComfyUI's queue: its deletion hangs."""
    hanging = asyncio.Event()

    async def hang_once(asked: Asked) -> Fate:
        if asked.is_("POST", "/queue") and not hanging.is_set():
            hanging.set()
            await asyncio.Event().wait()
        return Fate.PASSED

    stage.relay.script = hang_once
    body = {"prompt": encode("b", "parked"), "prompt_id": prompt_id}
    task = asyncio.create_task(stage.client.post("/prompt", body))
    await hanging.wait()
    assert stage.pending(probes=True) == [prompt_id]
    return task


def probe_number(stage: Stage, prompt_id: str) -> float:
    return next(float(item[0]) for item in stage.comfy.process.queue.pending if item[1] == prompt_id)


async def test_what_comfyui_says_of_a_probe_is_what_the_client_is_told(tmp_path: Path) -> None:
    wrong = {**encode("a", "wrong"), "6": {"class_type": "CLIPTextEncode", "inputs": {}}}
    partly = {**encode("a", "partly"), "10": {"class_type": "PreviewAny", "inputs": {}}}
    unknown = {"1": {"class_type": "NoSuchClass", "inputs": {}}}
    async with staged(Mode.FULL, tmp_path) as stage:
        await busy(stage)
        for prompt, status in ((wrong, 400), (partly, 200), (unknown, 400)):
            body = {"prompt": prompt, "prompt_id": fresh_id(), "number": 5}
            ours, theirs = await stage.post("/prompt", body), await stage.direct.post("/prompt", body)
            assert (ours.status, ours.json()) == (theirs.status, theirs.json())
            assert ours.status == status
            assert ours.json()["node_errors"] or prompt is unknown
        assert stage.pending(probes=True) == []


async def test_a_proxy_that_stops_takes_its_probes_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "SETTLING", 0.01)  # the answer to the probe never comes
    async with staged(Mode.FULL, tmp_path) as stage:
        await busy(stage)
        task = await park(stage, fresh_id())
        await stage.stop()
        assert stage.pending(probes=True) == []
        task.cancel()


@pytest.mark.parametrize("mode", [Mode.FULL, Mode.PINS])
async def test_the_next_proxy_takes_out_what_a_killed_one_left(tmp_path: Path, mode: Mode) -> None:
    """Its client was never told that it was accepted, and it is not in the journal."""
    async with staged(Mode.FULL, tmp_path) as stage:
        await busy(stage)
        prompt_id = fresh_id()
        task = await park(stage, prompt_id)
        await stage.kill()
        assert stage.pending(probes=True) == [prompt_id]
        stage.mode = mode
        await stage.start()
        await until(lambda: not stage.pending(probes=True), "the probe to be taken out")
        assert not any(item[1] == prompt_id for items in await stage.client.queue() for item in items)
        task.cancel()


async def test_an_id_that_comes_again_after_a_kill_is_harmless(tmp_path: Path) -> None:
    """The same id with the same number twice in ComfyUI's queue would end its worker."""
    async with staged(Mode.FULL, tmp_path) as stage:
        await busy(stage)
        prompt_id = fresh_id()
        numbers = []
        for _ in range(3):
            task = await park(stage, prompt_id)
            numbers.append(probe_number(stage, prompt_id))
            await stage.kill()
            task.cancel()
            await stage.start()
            await until(lambda: not stage.pending(probes=True), "the probe to be taken out")
        assert len(set(numbers)) == 3
