"""ComfyUI dies before or after each thing that is asked of it: nobody is refused, and everything runs."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.core.mode import Mode
from tests.contract.sockets import PATIENCE
from tests.engine.relay import Asked, Fate
from tests.engine.stage import PROBES, Stage, encode, fresh_id, staged, until


def is_probe(asked: Asked) -> bool:
    return asked.is_("POST", "/prompt") and json.loads(asked.body).get("number", 0) >= PROBES


def is_dispatch(asked: Asked) -> bool:
    return asked.is_("POST", "/prompt") and not is_probe(asked)


def takes_out(asked: Asked) -> bool:
    return asked.is_("POST", "/queue")


def reads_the_queue(asked: Asked) -> bool:
    return asked.is_("GET", "/queue")


def reads_history(asked: Asked) -> bool:
    return asked.method == "GET" and asked.target.startswith("/history/")


class Dying:
    """ComfyUI dies at the first request of a kind: before it has seen it, or when it has done it and not answered."""

    def __init__(self, stage: Stage, kind: Callable[[Asked], bool], *, after: bool) -> None:
        self.died = asyncio.Event()
        self._stage = stage
        self._kind = kind
        self._after = after

    async def __call__(self, asked: Asked) -> Fate:
        if self.died.is_set() or not self._kind(asked):
            return Fate.PASSED
        if self._after:
            self._after = False
            self._kind = lambda _: True  # it dies at whatever is asked next
            return Fate.UNANSWERED
        await self._stage.comfy.crash()
        self.died.set()
        return Fate.BROKEN


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("kind", [is_probe, takes_out, is_dispatch, reads_the_queue, reads_history])
async def test_comfyui_dies(kind: Callable[[Asked], bool], after: bool, tmp_path: Path) -> None:
    async with staged(Mode.FULL, tmp_path) as stage:
        ids = [await stage.blocker(), fresh_id(), fresh_id()]
        await stage.client.submit(encode("b", "staged"), prompt_id=ids[1])
        await until(lambda: stage.pending() == ids[1:2], "the staged one")
        dying = Dying(stage, kind, after=after)
        stage.relay.script = dying
        asking = asyncio.create_task(stage.client.submit(encode("c", "asked"), prompt_id=ids[2]))
        if kind is is_dispatch:
            await asking
            stage.gate.open()
        async with asyncio.timeout(PATIENCE):
            await dying.died.wait()
        stage.gate.open()
        await stage.comfy.restart()
        assert (await asking)["prompt_id"] == ids[2]
        entries = await stage.ended(*ids)
        assert [entry["status"]["status_str"] for entry in entries] == ["success"] * 3
        await stage.comfy.idle()
        assert stage.pending(probes=True) == []


async def test_in_mode_pins_a_dead_proxy_loses_nothing(tmp_path: Path) -> None:
    async with staged(Mode.PINS, tmp_path) as stage:
        ids = [await stage.blocker(), fresh_id()]
        await stage.client.submit(encode("b", "waits"), prompt_id=ids[1])
        await stage.kill()
        await stage.start()
        await until(lambda: stage.proxy.engine.records.get(ids[1]) is not None, "what ComfyUI has to be read")
        assert (await stage.client.submit(encode("b", "waits"), prompt_id=ids[1]))["prompt_id"] == ids[1]
        stage.gate.open()
        entries = await stage.ended(*ids)
        assert entries[1]["prompt"][2] == encode("b", "waits")
        await stage.comfy.idle()
        assert len(stage.comfy.process.queue.history) == 2
