"""A ComfyUI in which everything fails until it is restarted: the queue waits, and nobody hears of those failures."""

from pathlib import Path
from typing import Any

import pytest

from proxy.core.mode import Mode
from simulator import NodeStart
from tests.contract.client import Client
from tests.engine.stage import Stage, encode, fresh_id, staged, until

ASSERT = "CUDA error: device-side assert triggered"


class Device:
    """Every node fails while it is broken."""

    def __init__(self, error: Exception | None = None) -> None:
        self.broken = True
        self.error = error or RuntimeError(ASSERT)

    async def __call__(self, start: NodeStart) -> None:
        del start
        if self.broken:
            raise self.error


async def paused_by(client: Client) -> Any:
    return (await client.get_json("/comfykeep/queue"))["paused_by"]


async def restarted(stage: Stage, device: Device) -> None:
    device.broken = False
    await stage.comfy.crash()
    await stage.comfy.restart()


async def test_the_queue_waits_for_a_restart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    device = Device()
    async with staged(Mode.FULL, tmp_path, before_node=device) as stage, stage.client.socket() as socket:
        ids = [fresh_id(), fresh_id()]
        for prompt_id in ids:
            await stage.client.submit(encode("a", prompt_id), socket.client_id, prompt_id=prompt_id)
        holding = stage.proxy.engine.held.holding if stage.proxy.engine.held else None
        assert holding is not None
        await until(lambda: "poison" in holding.scheduler.context.pauses and not holding.sent(), "the queue to stop")
        assert await paused_by(stage.client) == ["poison"]
        status = await stage.client.get_json("/comfykeep/status")
        assert ASSERT in status["health"]["poisoned"]
        assert any(record.levelname == "CRITICAL" and ASSERT in record.message for record in caplog.records)
        assert await stage.client.get_json(f"/history/{ids[0]}") == {}
        assert ids[0] not in await stage.client.get_json("/history")
        await restarted(stage, device)
        entries = await stage.ended(*ids)
        assert [entry["status"]["status_str"] for entry in entries] == ["success", "success"]
        await socket.until_event("executing", node=None, prompt_id=ids[1])
        assert socket.named("execution_error") == []
        assert sorted(event.data["prompt_id"] for event in socket.named("execution_success")) == sorted(ids)
        assert await paused_by(stage.client) == []
        assert (await stage.client.get_json("/comfykeep/status"))["health"]["poisoned"] is None


async def test_it_is_restarted_by_the_command(tmp_path: Path) -> None:
    device, asked_for = Device(), tmp_path / "asked for"
    command = {"restart_command": f"touch '{asked_for}'"}
    async with staged(Mode.FULL, tmp_path, upstream=command, before_node=device) as stage:
        prompt_id = fresh_id()
        await stage.client.submit(encode("a", prompt_id), prompt_id=prompt_id)
        await until(asked_for.exists, "the restart")
        await restarted(stage, device)
        assert (await stage.ended(prompt_id))[0]["status"]["status_str"] == "success"


async def test_it_is_recycled_when_nothing_runs(tmp_path: Path) -> None:
    device, asked_for = Device(), tmp_path / "asked for"
    device.broken = False
    upstream = {"restart_command": f"touch '{asked_for}'", "recycle_after": 1}
    async with staged(Mode.FULL, tmp_path, upstream=upstream, before_node=device) as stage:
        await stage.ended((await stage.client.submit(encode("a", "first")))["prompt_id"])
        second = (await stage.client.submit(encode("a", "second")))["prompt_id"]
        await until(asked_for.exists, "the restart")
        assert await paused_by(stage.client) == ["recycling"]
        await restarted(stage, device)
        await stage.ended(second)


async def test_the_operator_lets_it_go_on(tmp_path: Path) -> None:
    device = Device()
    async with staged(Mode.FULL, tmp_path, before_node=device) as stage:
        prompt_id = fresh_id()
        await stage.client.submit(encode("a", prompt_id), prompt_id=prompt_id)
        assert stage.proxy.engine.held is not None
        context = stage.proxy.engine.held.holding.scheduler.context
        await until(lambda: "poison" in context.pauses and not context.ledger.upstream, "the queue to stop")
        device.broken = False
        assert (await stage.post("/comfykeep/queue/resume", {})).json() == {"paused_by": []}
        assert (await stage.ended(prompt_id))[0]["status"]["status_str"] == "success"


async def test_old_prompts_are_forgotten(tmp_path: Path) -> None:
    async with staged(Mode.FULL, tmp_path) as stage:
        ids = [(await stage.client.submit(encode("a", str(index))))["prompt_id"] for index in range(3)]
        await stage.ended(*ids)
        await stage.comfy.crash()
        await until(lambda: not stage.proxy.engine.feed.up, "the crash to be seen")
        assert list(await stage.client.get_json("/history")) == ids
        assert stage.proxy.engine.held is not None
        await stage.proxy.engine.held.history.forget(2, 0.0)
        assert list(await stage.client.get_json("/history")) == ids[1:]
        assert (await stage.post("/history", {"clear": True})).status == 200
        assert await stage.client.get_json("/history") == {}


async def test_a_stall_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with staged(Mode.FULL, tmp_path, upstream={"stall_timeout": 0.001}) as stage:
        await stage.blocker()
        engine = stage.proxy.engine
        await until(lambda: engine.pulse.health.stalled_since is not None, "the stall to be seen")
        assert "nothing has started, ended or progressed" in caplog.text
        assert (await stage.client.get_json("/comfykeep/status"))["health"]["stalled_since"] > 1e9
        stage.gate.open()
        await until(lambda: engine.pulse.health.stalled_since is None, "the stall to end")
