"""Clients that submit, cancel, reorder, look and leave as they please, while connections break and processes die.

Whatever the interleaving, at the end every prompt is accounted for: what was accepted has run, once, unless somebody
wanted it gone; what was refused has not; and nothing is left over anywhere.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proxy.config import QueueSection
from proxy.core.mode import Mode
from simulator import NodeStart
from tests.contract.prompts import Prompt
from tests.engine.stage import Gate, Stage, encode, fresh_id, staged, until

CLIENTS = 4
STEPS = 8
ROUNDS = 2


class Runs(Gate):
    """Counts how often the last node of each prompt began; no two prompts here share one."""

    def __init__(self) -> None:
        super().__init__()
        self.of: Counter[str] = Counter()

    async def __call__(self, start: NodeStart) -> None:
        await super().__call__(start)
        if start.class_type == "PreviewAny":
            self.of[start.prompt_id] += 1


class Account:
    """What clients were told, and what they wanted."""

    def __init__(self) -> None:
        self.accepted: set[str] = set()
        self.refused: set[str] = set()
        self.unknown: set[str] = set()
        """Its client left before it was answered."""
        self.unwanted: set[str] = set()
        """Somebody wanted it deleted, cancelled or interrupted."""

    def pick(self, dice: random.Random) -> str:
        return dice.choice([*sorted(self.accepted | self.unknown), "no such prompt"])


class Clients:
    """All clients of one stage. Each does one thing after the other, chosen by its dice."""

    def __init__(self, stage: Stage, account: Account) -> None:
        self._stage = stage
        self._account = account
        self._bodies: dict[str, Any] = {}
        self.there = asyncio.Event()
        self.there.set()
        self.whims: list[Callable[[random.Random], Awaitable[None]]] = [
            *[self.submit] * 8,
            self.submit_and_leave,
            self.submit_again,
            self.submit_nonsense,
            self.delete,
            self.cancel,
            self.interrupt,
            self.move,
            self.look,
            self.pause_a_moment,
        ]

    async def act(self, dice: random.Random) -> None:
        for _ in range(STEPS):
            await self.there.wait()
            with suppress(aiohttp.ClientError, RuntimeError):  # the proxy was killed, and its client closed
                await dice.choice(self.whims)(dice)

    async def submit(self, dice: random.Random) -> None:
        await self._post(self._new(dice))

    async def submit_and_leave(self, dice: random.Random) -> None:
        prompt_id = self._new(dice)
        self._account.unknown.add(prompt_id)
        leaving = asyncio.create_task(self._post(prompt_id))
        for _ in range(dice.randrange(30)):
            await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait([leaving])

    async def submit_again(self, dice: random.Random) -> None:
        prompt_id = self._account.pick(dice)
        if prompt_id in self._bodies and prompt_id not in self._account.unwanted:
            await self._post(prompt_id)

    async def submit_nonsense(self, dice: random.Random) -> None:
        prompt_id = self._new(dice)
        self._bodies[prompt_id]["prompt"] = {"1": {"class_type": "PreviewAny", "inputs": {}}}
        self._account.refused.add(prompt_id)
        # what waits unchecked, because ComfyUI is idle or away, is accepted and fails when it is sent
        await self._stage.post("/prompt", self._bodies[prompt_id])

    async def delete(self, dice: random.Random) -> None:
        await self._unwanted("/queue", dice, lambda prompt_id: {"delete": [prompt_id]})

    async def cancel(self, dice: random.Random) -> None:
        await self._unwanted("/api/jobs/cancel", dice, lambda prompt_id: {"job_ids": [prompt_id]})

    async def interrupt(self, dice: random.Random) -> None:
        await self._unwanted("/interrupt", dice, lambda prompt_id: {"prompt_id": prompt_id})

    async def move(self, dice: random.Random) -> None:
        await self._stage.post("/comfykeep/queue/front", {"prompt_id": self._account.pick(dice)})

    async def look(self, dice: random.Random) -> None:
        await self._stage.client.get(dice.choice(["/queue", "/api/jobs", "/history", "/prompt", "/comfykeep/queue"]))

    async def pause_a_moment(self, dice: random.Random) -> None:
        await self._stage.post("/comfykeep/queue/pause", {})
        await self.submit(dice)
        await self._stage.post("/comfykeep/queue/resume", {})

    def _new(self, dice: random.Random) -> str:
        prompt_id = fresh_id()
        prompt: Prompt = encode(dice.choice("abcd"), prompt_id)
        body: dict[str, Any] = {"prompt": prompt, "prompt_id": prompt_id, "client_id": f"client {dice.randrange(3)}"}
        match dice.randrange(6):
            case 0:
                body["extra_data"] = {"comfykeep_priority": dice.randrange(-2, 3)}
            case 1:
                body["extra_data"] = {"comfykeep_order_key": dice.choice("kl")}
            case 2:
                body["number"] = dice.choice([-1.5, 0, 7])
            case 3:
                body["front"] = True
        self._bodies[prompt_id] = body
        return prompt_id

    async def _post(self, prompt_id: str) -> None:
        self._account.unknown.add(prompt_id)
        answer = await self._stage.post("/prompt", self._bodies[prompt_id])
        assert (answer.status, answer.json()["prompt_id"]) == (200, prompt_id)
        self._account.accepted.add(prompt_id)

    async def _unwanted(self, path: str, dice: random.Random, body: Callable[[str], Any]) -> None:
        prompt_id = self._account.pick(dice)
        self._account.unwanted.add(prompt_id)
        await self._stage.post(path, body(prompt_id))


def dice(seed: str) -> random.Random:
    return random.Random(seed)  # noqa: S311 - what happens is to happen again


async def nothing(_: Stage) -> None:
    """All goes well."""


async def break_sockets(stage: Stage) -> None:
    stage.relay.break_sockets()


async def crash_comfyui(stage: Stage) -> None:
    await stage.comfy.crash()
    await stage.comfy.restart()


async def kill_the_proxy(stage: Stage) -> None:
    await stage.kill()
    await stage.start()


async def change_modes(stage: Stage) -> None:
    for mode in (Mode.PINS, Mode.OBSERVE, Mode.FULL):
        await stage.client.request("PUT", "/comfykeep/mode", {"mode": mode})
        await stage.client.get("/queue")


def left_over(stage: Stage) -> dict[str, Any]:
    """Everything that should not be there when all has ended."""
    engine = stage.proxy.engine
    assert engine.held is not None
    ledger = engine.held.holding.scheduler.context.ledger
    left = {
        "held": [held.prompt_id for held in engine.held.holding.prompts],
        "unfinished": [job.prompt_id for job in ledger.unfinished()],
        "arrived": list(ledger.arrived),
        "accepted": ledger.accepted,
        "records": [record.prompt_id for record in engine.records.unfinished()],
        "foreign": list(engine.held.holding.scheduler.context.foreign),
        "submissions": engine.departure._under_way,
        "sockets": [name for name, bridge in engine.feed._named.items() if bridge._hold._count],
        "at ComfyUI": [*stage.comfy.process.queue.pending, *stage.comfy.process.queue.running],
    }
    return {name: found for name, found in left.items() if found}


@pytest.mark.parametrize("seed", [1])
@pytest.mark.parametrize("mishap", [nothing, break_sockets, crash_comfyui, kill_the_proxy, change_modes])
async def test_every_prompt_is_accounted_for(
    tmp_path: Path, mishap: Callable[[Stage], Awaitable[None]], seed: int
) -> None:
    runs, account = Runs(), Account()
    queue = QueueSection(max_attempts=ROUNDS + 1)
    async with staged(Mode.FULL, tmp_path, queue=queue, before_node=runs) as stage:
        stage.gate = runs
        clients = Clients(stage, account)
        if mishap is change_modes:
            clients.whims.remove(clients.submit_again)  # in `observe` an id that comes again is no concern of ours
        for turn in range(ROUNDS):
            runs.shut_all()
            acting = [asyncio.create_task(clients.act(dice(f"{seed} {turn} {client}"))) for client in range(CLIENTS)]
            await asyncio.wait(acting, return_when=asyncio.FIRST_COMPLETED)
            clients.there.clear()
            await mishap(stage)
            clients.there.set()
            runs.open()
            await asyncio.gather(*acting)
        await stage.post("/comfykeep/queue/resume", {})
        await until(lambda: not left_over(stage), "everything to end")
        entries = await stage.client.get_json("/history")
        assert stage.proxy.engine.held is not None
        assert (await stage.proxy.engine.held._journal.load()).unfinished == ()
    wanted = account.accepted - account.unwanted
    failed = {key: entries[key]["status"] for key in wanted if entries[key]["status"]["status_str"] != "success"}
    assert failed == {}, [entry["messages"][-1][1]["exception_message"] for entry in failed.values()]
    if mishap is not crash_comfyui:
        assert {key for key in account.unknown - account.unwanted if runs.of[key] > 1} == set()
    assert not any(runs.of[key] for key in account.refused)
    assert len(wanted) > CLIENTS * ROUNDS
