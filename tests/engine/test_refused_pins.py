"""A class that a pin needs is gone from ComfyUI: the client's prompt runs all the same, and keeps the other pins."""

from pathlib import Path
from typing import Any, cast

import pytest

from proxy.core.mode import Mode
from tests.contract.prompts import Prompt, link, node
from tests.engine.relay import Asked, Fate, answer
from tests.engine.stage import Stage, encode, staged


def custom(name: str) -> Prompt:
    return {"1": node(name, ckpt_name="m1"), "2": node("FakeOutput", value=link("1"))}


def vanish(stage: Stage, *names: str) -> None:
    for name in names:
        del cast("dict[str, Any]", stage.comfy.process.classes)[name]


def sent(stage: Stage) -> list[bytes]:
    return [asked.body for asked in stage.relay.asked("POST", "/prompt")]


@pytest.mark.parametrize("mode", [Mode.PINS, Mode.FULL])
async def test_a_vanished_class_costs_nothing_but_its_own_pin(mode: Mode, tmp_path: Path) -> None:
    async with staged(mode, tmp_path) as stage, stage.client.socket() as socket:
        await stage.client.run(custom("FakeCheckpointLoader"), socket)
        await stage.client.run(encode("a", "1"), socket)
        vanish(stage, "FakeCheckpointLoader")
        before = len(sent(stage))
        run = await stage.client.run(encode("b", "1", ids="1 2 3"), socket)
        refused, taken = sent(stage)[before:][-2:]
        assert b"FakeCheckpointLoader" in refused
        assert b"FakeCheckpointLoader" not in taken
        assert b"a.safetensors" in taken, "the other pin stays"
        assert run.answer["node_errors"] == {}
        assert (await stage.client.run(encode("a", "2"), socket)).cached == ["4"]
        assert b"FakeCheckpointLoader" not in sent(stage)[-1], "it is not tried again"


async def test_two_vanished_classes(tmp_path: Path) -> None:
    async with staged(Mode.PINS, tmp_path) as stage, stage.client.socket() as socket:
        await stage.client.run(custom("FakeCheckpointLoader"), socket)
        await stage.client.run(encode("a", "1"), socket)
        vanish(stage, "FakeCheckpointLoader", "CheckpointLoaderSimple")
        vae = {"1": node("VAELoader", vae_name="v.safetensors"), "2": node("FakeOutput", value=link("1"))}
        run = await stage.client.run(vae, socket)
        assert run.end.kind == "execution_success"


async def test_an_error_that_names_nothing_is_tried_without_pins(tmp_path: Path) -> None:
    """ComfyUI 0.33 stumbles over a vanished class with a registered replacement where `_meta` is missing."""

    async def stumble(asked: Asked) -> Fate | bytes:
        if asked.is_("POST", "/prompt") and b"a.safetensors" in asked.body and b"b.safetensors" in asked.body:
            return answer(500, b"500 Internal Server Error", "text/plain")
        return Fate.PASSED

    async with staged(Mode.PINS, tmp_path, script=stumble) as stage, stage.client.socket() as socket:
        await stage.client.run(encode("a", "1"), socket)
        run = await stage.client.run(encode("b", "1", ids="1 2 3"), socket)
        assert run.end.kind == "execution_success"
        assert run.answer["node_errors"] == {}
        assert stage.proxy.engine.upstream.schema.schema.get("CheckpointLoaderSimple") is not None


async def test_a_refusal_of_the_clients_own_nodes_is_passed_on(tmp_path: Path) -> None:
    async with staged(Mode.PINS, tmp_path) as stage, stage.client.socket() as socket:
        await stage.client.run(encode("a", "1"), socket)
        before = len(sent(stage))
        refusal = await stage.client.refuse(encode("no such", "1", ids="1 2 3"))
        assert list(refusal["node_errors"]) == ["1"]
        assert len(sent(stage)) == before + 1
