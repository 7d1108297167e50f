"""ComfyUI's classes are read once for each of its starts, unknown ones when they turn up, and no prompt waits long."""

import asyncio
import json
from typing import Any

import pytest

from normalizer import mentions_sent_id
from proxy.upstream import schema
from tests.contract.client import Client
from tests.contract.prompts import Prompt, link, node
from tests.engine.relay import Asked, Fate, answer
from tests.engine.stage import encode, staged, until

ONE = "/object_info/FakeCheckpointLoader"


def custom() -> Prompt:
    return {"1": node("FakeCheckpointLoader", ckpt_name="m1"), "2": node("FakeOutput", value=link("1"))}


class Forgetful:
    """Leaves a class out of the whole answer; asked for it alone, tells it, or never answers."""

    def __init__(self, info: dict[str, Any], *, mute: bool = False) -> None:
        self.info = {name: entry for name, entry in info.items() if name != "FakeCheckpointLoader"}
        self.mute = mute

    async def __call__(self, asked: Asked) -> Fate | bytes:
        if asked.is_("GET", "/object_info"):
            return answer(200, json.dumps(self.info).encode())
        if asked.is_("GET", ONE) and self.mute:
            await asyncio.Event().wait()
        return Fate.PASSED


async def info_of(url: str) -> dict[str, Any]:
    async with Client(url) as client:
        info: dict[str, Any] = await client.get_json("/object_info")
        return info


async def test_the_whole_is_read_once_for_each_start() -> None:
    async with staged() as stage, stage.client.socket() as socket:
        for text in ("1", "2", "3"):
            await stage.client.run(encode("a", text), socket)
        assert len(stage.relay.asked("GET", "/object_info")) == 1
        stage.relay.break_sockets()
        await until(lambda: len(stage.relay.asked("GET", "/object_info")) == 2, "the schema to be read again")


async def test_an_unknown_class_is_asked_for_once() -> None:
    async with staged() as first:
        info = await info_of(first.comfy.url)
    async with staged(script=Forgetful(info)) as stage, stage.client.socket() as socket:
        for _ in range(2):
            run = await stage.client.run(custom(), socket)
            assert run.end.kind == "execution_success"
        assert len(stage.relay.asked("GET", ONE)) == 1
        assert all(mentions_sent_id(asked.body) for asked in stage.relay.asked("POST", "/prompt"))


async def test_a_prompt_does_not_wait_for_an_answer_that_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "PATIENCE", 0.01)
    async with staged() as first:
        info = await info_of(first.comfy.url)
    async with staged(script=Forgetful(info, mute=True)) as stage, stage.client.socket() as socket:
        run = await stage.client.run(custom(), socket)
        assert run.end.kind == "execution_success"
        (sent,) = stage.relay.asked("POST", "/prompt")
        assert json.loads(sent.body)["prompt"] == custom(), "what is not understood goes as it came"


async def test_names_of_classes_are_escaped() -> None:
    async with staged() as stage:
        await stage.client.refuse({"1": node("any/thing? #1 ü", value=1)})
        (asked,) = [asked for asked in stage.relay.requests if asked.target.startswith("/object_info/")]
        assert asked.target == "/object_info/any%2Fthing%3F%20%231%20%C3%BC"
