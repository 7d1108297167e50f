"""Orders whose clients hang up before the answer: what ComfyUI does in one turn is not left half done."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from proxy.core.mode import Mode
from proxy.engine.holding import Holding
from tests.engine.relay import Asked, Fate
from tests.engine.stage import Stage, encode, fresh_id, staged, until


@asynccontextmanager
async def left_alone(stage: Stage, path: str, body: Any) -> AsyncIterator[None]:
    """Post an order; its client hangs up at the end of the context, and the proxy has noticed when that is left."""
    address = urlsplit(stage.proxy.url)
    _, writer = await asyncio.open_connection(address.hostname, address.port)
    sent = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: {len(sent)}\r\n\r\n"
    writer.write(head.encode() + sent)
    yield
    writer.transport.abort()
    for _ in range(3):  # whatever the proxy makes of that, it has made when it has answered others
        await stage.client.get_json("/comfykeep/mode")


class Pause:
    """Holds back what ComfyUI answers to one kind of request, after it has done what was asked."""

    def __init__(self, path: str) -> None:
        self.reached = asyncio.Event()
        self.over = asyncio.Event()
        self._path = path

    async def __call__(self, asked: Asked) -> Fate:
        if asked.is_("POST", self._path):
            self.reached.set()
            await self.over.wait()
        return Fate.PASSED


async def test_a_clear_of_the_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with staged(Mode.FULL, tmp_path) as stage:
        await stage.blocker()
        ids = [fresh_id() for _ in range(8)]
        for prompt_id in ids:
            await stage.client.submit(encode("b", prompt_id), prompt_id=prompt_id)
        reached, over, clear = asyncio.Event(), asyncio.Event(), Holding.clear

        async def late(holding: Holding) -> None:
            reached.set()
            await over.wait()
            await clear(holding)

        monkeypatch.setattr(Holding, "clear", late)
        async with left_alone(stage, "/queue", {"clear": True}):
            await reached.wait()
        over.set()
        await until(lambda: stage.proxy.engine._remaining() == 1, "the queue to be cleared")


async def test_a_clear_of_the_history(tmp_path: Path) -> None:
    pause = Pause("/history")
    async with staged(Mode.FULL, tmp_path, script=pause) as stage:
        ids = [fresh_id() for _ in range(3)]
        for prompt_id in ids:
            await stage.client.submit(encode("a", prompt_id), prompt_id=prompt_id)
        await stage.ended(*ids)
        async with left_alone(stage, "/history", {"clear": True}):
            await pause.reached.wait()
        pause.over.set()
        await stage.proxy.engine.departure.finished()
        assert await stage.direct.get_json("/history") == {}
        assert await stage.client.get_json("/history") == {}


async def test_what_is_freed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pause = Pause("/free")
    freed: list[Mapping[str, bool]] = []
    async with staged(Mode.PINS, tmp_path, script=pause) as stage:
        monkeypatch.setattr(stage.proxy.engine, "freed", lambda **wanted: freed.append(wanted))
        async with left_alone(stage, "/free", {"unload_models": True}):
            await pause.reached.wait()
        pause.over.set()
        await stage.proxy.engine.departure.finished()
        assert freed == [{"unload_models": True, "free_memory": False}]


async def test_several_jobs_that_are_cancelled(tmp_path: Path) -> None:
    pause = Pause("/queue")
    async with staged(Mode.FULL, tmp_path) as stage:
        await stage.blocker()
        at_comfyui, here = fresh_id(), fresh_id()
        await stage.client.submit(encode("a", "staged"), prompt_id=at_comfyui)
        await until(lambda: stage.pending() == [at_comfyui], "it to be staged")
        await stage.client.submit(encode("a", "waits"), prompt_id=here)
        stage.relay.script = pause
        async with left_alone(stage, "/api/jobs/cancel", {"job_ids": [at_comfyui, here]}):
            await pause.reached.wait()
        pause.over.set()
        await stage.proxy.engine.departure.finished()
        assert stage.proxy.engine._remaining() == 1
