"""A prompt that runs out of memory with pins of others: one run for its client, one success, one entry."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.core.mode import Mode
from simulator import NodeStart
from simulator.memory import DeviceOutOfMemoryError
from tests.contract.sockets import Socket
from tests.engine.relay import Asked, Fate, Script, answer, pass_all
from tests.engine.stage import Gate, Stage, encode, fresh_id, staged, until

MODES = pytest.mark.parametrize("mode", [Mode.PINS, Mode.FULL])


class Trouble(Gate):
    """Makes runs of prompts fail at their first computation, `times` times for each that is to have trouble."""

    def __init__(self) -> None:
        super().__init__()
        self.error: Exception = DeviceOutOfMemoryError("Allocation on device")
        self.runs = 0
        self._left: dict[str, int] = {}

    def strike(self, times: int = 1) -> str:
        """The id of a prompt that will have trouble."""
        prompt_id = fresh_id()
        self._left[prompt_id] = times
        return prompt_id

    async def __call__(self, start: NodeStart) -> None:
        await super().__call__(start)
        if start.prompt_id in self._left and start.class_type == "CLIPTextEncode":
            self.runs += 1
            if self._left[start.prompt_id]:
                self._left[start.prompt_id] -= 1
                raise self.error


@asynccontextmanager
async def troubled(mode: Mode, folder: Path, script: Script = pass_all) -> AsyncIterator[tuple[Stage, Trouble, Socket]]:
    """A stage on which another model is there to be pinned, and a socket of the client "client"."""
    trouble = Trouble()
    async with staged(mode, folder, gate=trouble, script=script) as stage:
        await run(stage, "a")
        async with stage.client.socket("client") as socket:
            yield stage, trouble, socket


async def run(stage: Stage, checkpoint: str, **fields: Any) -> Any:
    submitted = await stage.client.submit(encode(checkpoint, fresh_id()), **fields)
    return await stage.client.history(submitted["prompt_id"])


def pins_of(request: Asked) -> list[str]:
    way_back = json.loads(request.body)["extra_data"]["comfykeep"]
    return list(way_back.get("pins", ()))


def is_second(request: Asked) -> bool:
    return request.is_("POST", "/prompt") and json.loads(request.body).get("number", 0) < 0


def posts(stage: Stage, prompt_id: str) -> list[Asked]:
    """The submissions of a prompt that were to run."""
    found = [each for each in stage.relay.asked("POST", "/prompt") if prompt_id.encode() in each.body]
    return [each for each in found if json.loads(each.body).get("number", 0) < 1e15]


@MODES
async def test_the_client_sees_one_success(mode: Mode, tmp_path: Path) -> None:
    async with troubled(mode, tmp_path) as (stage, trouble, socket):
        prompt_id = trouble.strike()
        await stage.client.submit(encode("b", "x"), prompt_id=prompt_id, client_id="client")
        await socket.until_done(prompt_id)
        entry = await stage.client.history(prompt_id)
        kinds = [event.kind for event in socket.events(prompt_id)]
        assert trouble.runs == 2
        assert kinds.count("execution_start") == kinds.count("execution_success") == 1
        assert "execution_error" not in kinds
        assert [event.data["node"] for event in socket.named("executing")].count(None) == 1
        assert [event.data["node"] for event in socket.named("executed")] == ["9"]
        assert entry["status"]["status_str"] == "success"
        first, second = posts(stage, prompt_id)
        assert pins_of(first)
        assert not pins_of(second)


@MODES
async def test_the_budget_learns(mode: Mode, tmp_path: Path) -> None:
    async with troubled(mode, tmp_path) as (stage, trouble, _):
        planner = stage.proxy.engine.upstream.planner
        allowed = planner.budget.pins
        await run(stage, "b", prompt_id=trouble.strike())
        assert planner.budget.pins < allowed


@MODES
async def test_it_runs_once_more_and_not_again(mode: Mode, tmp_path: Path) -> None:
    async with troubled(mode, tmp_path) as (stage, trouble, socket):
        prompt_id = trouble.strike(times=9)
        await stage.client.submit(encode("b", "x"), prompt_id=prompt_id, client_id="client")
        await socket.until_done(prompt_id)
        assert trouble.runs == 2
        assert len([event for event in socket.events(prompt_id) if event.kind == "execution_error"]) == 1
        assert (await stage.client.history(prompt_id))["status"]["status_str"] == "error"


@MODES
async def test_another_error_is_told_at_once(mode: Mode, tmp_path: Path) -> None:
    async with troubled(mode, tmp_path) as (stage, trouble, _):
        trouble.error = ValueError("no")
        entry = await run(stage, "b", prompt_id=trouble.strike())
        assert trouble.runs == 1
        assert entry["status"]["status_str"] == "error"


@MODES
async def test_so_is_want_of_memory_without_pins_of_others(mode: Mode, tmp_path: Path) -> None:
    async with troubled(mode, tmp_path) as (stage, trouble, _):
        entry = await run(stage, "a", prompt_id=trouble.strike())
        assert trouble.runs == 1
        assert entry["status"]["status_str"] == "error"


@MODES
async def test_the_failure_is_in_no_history_meanwhile(mode: Mode, tmp_path: Path) -> None:
    reached, go = asyncio.Event(), asyncio.Event()

    async def delay_the_second(request: Asked) -> Fate | bytes:
        if is_second(request):
            reached.set()
            await go.wait()
        return Fate.PASSED

    async with troubled(mode, tmp_path, delay_the_second) as (stage, trouble, _):
        prompt_id = trouble.strike()
        await stage.client.submit(encode("b", "x"), prompt_id=prompt_id)
        await reached.wait()
        await until(lambda: prompt_id in stage.comfy.process.queue.history, "the failure")
        await stage.proxy.engine._watch.look()
        assert await stage.client.get_json(f"/history/{prompt_id}") == {}
        assert prompt_id not in await stage.client.get_json("/history")
        jobs = (await stage.client.get_json("/api/jobs"))["jobs"]
        assert "failed" not in {job["status"] for job in jobs if job["id"] == prompt_id}
        assert (await stage.client.get_json(f"/api/jobs/{prompt_id}"))["status"] == "pending"
        go.set()
        assert (await stage.client.history(prompt_id))["status"]["status_str"] == "success"


@MODES
async def test_where_it_cannot_be_sent_again_the_error_is_told(mode: Mode, tmp_path: Path) -> None:
    async def refuse_the_second(request: Asked) -> Fate | bytes:
        refusal = b'{"error": {"type": "x", "message": "gone"}, "node_errors": {}}'
        return answer(400, refusal) if is_second(request) else Fate.PASSED

    async with troubled(mode, tmp_path, refuse_the_second) as (stage, trouble, socket):
        prompt_id = trouble.strike()
        await stage.client.submit(encode("b", "x"), prompt_id=prompt_id, client_id="client")
        await socket.until_done(prompt_id)
        kinds = [event.kind for event in socket.events(prompt_id)]
        assert kinds.count("execution_start") == kinds.count("execution_error") == 1
        assert (await stage.client.history(prompt_id))["status"]["status_str"] == "error"


@MODES
async def test_it_comes_before_what_waits_there(mode: Mode, tmp_path: Path) -> None:
    async with troubled(mode, tmp_path) as (stage, trouble, _):
        running = await stage.blocker()
        prompt_id = trouble.strike()
        await stage.client.submit(encode("b", "x"), prompt_id=prompt_id)
        await stage.client.submit(encode("c", "y"))
        last = await stage.client.submit(encode("d", "z"))
        stage.gate.open(running)
        await stage.ended(prompt_id, last["prompt_id"])
        assert list(stage.comfy.process.queue.history)[-1] == last["prompt_id"]
