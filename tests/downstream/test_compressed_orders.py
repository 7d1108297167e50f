"""Orders with a compressed body: ComfyUI's server reads them like all others."""

import gzip
import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from proxy.core.mode import Mode
from tests.contract.client import Answer
from tests.engine.stage import Stage, encode, fresh_id, staged, until

CODINGS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}


async def order(stage: Stage, path: str, body: Any, coding: str) -> Answer:
    packed = CODINGS[coding](json.dumps(body).encode())
    return await stage.post(path, packed, Content_Encoding=coding)


@pytest.mark.parametrize("coding", CODINGS)
async def test_a_clear_of_the_queue_and_an_interruption(coding: str, tmp_path: Path) -> None:
    async with staged(Mode.FULL, tmp_path) as stage:
        await stage.blocker()
        for number in range(3):
            await stage.client.submit(encode("b", str(number)))
        assert (await order(stage, "/queue", {"clear": True}, coding)).status == 200
        assert stage.proxy.engine._remaining() == 1
        assert (await order(stage, "/interrupt", {}, coding)).status == 200
        await until(lambda: stage.comfy.process.executor.interrupt.wanted, "the interruption")


@pytest.mark.parametrize("coding", CODINGS)
async def test_a_clear_of_the_history(coding: str, tmp_path: Path) -> None:
    async with staged(Mode.FULL, tmp_path) as stage:
        prompt_id = fresh_id()
        await stage.client.submit(encode("a", "1"), prompt_id=prompt_id)
        await stage.ended(prompt_id)
        assert (await order(stage, "/history", {"clear": True}, coding)).status == 200
        assert await stage.client.get_json("/history") == {}


@pytest.mark.parametrize("coding", CODINGS)
async def test_several_jobs_that_are_cancelled(coding: str, tmp_path: Path) -> None:
    async with staged(Mode.FULL, tmp_path) as stage:
        await stage.blocker()
        ids = [fresh_id() for _ in range(2)]
        for prompt_id in ids:
            await stage.client.submit(encode("b", prompt_id), prompt_id=prompt_id)
        assert (await order(stage, "/api/jobs/cancel", {"job_ids": ids}, coding)).json() == {"cancelled": True}
        assert stage.proxy.engine._remaining() == 1


@pytest.mark.parametrize("coding", CODINGS)
async def test_what_is_freed(coding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    freed: list[Mapping[str, bool]] = []
    async with staged(Mode.PINS) as stage:
        monkeypatch.setattr(stage.proxy.engine, "freed", lambda **wanted: freed.append(wanted))
        assert (await order(stage, "/free", {"unload_models": True}, coding)).status == 200
        assert freed == [{"unload_models": True, "free_memory": False}]


@pytest.mark.parametrize("path", ["/queue", "/interrupt"])
async def test_what_is_not_what_its_header_says(path: str, tmp_path: Path) -> None:
    async with staged(Mode.FULL, tmp_path) as stage:
        assert (await stage.post(path, b'{"clear": true}', Content_Encoding="gzip")).status == 400
