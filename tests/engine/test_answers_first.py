"""Hazard: a client hears of a prompt before it knows the prompt's id, because events overtook its answer."""

import json
from pathlib import Path

import pytest

from proxy.core.mode import Mode
from proxy.downstream.answers_first import Submitting
from proxy.wire.frames import PreviewWithMetadata, build_text
from tests.contract.sockets import Event, Frame
from tests.engine.relay import Asked, Fate, answer, pass_all
from tests.engine.stage import Stage, encode, fresh_id, staged

ROUNDS = 20
"""Requests that are answered one after the other meanwhile: time enough for frames that do not wait."""


def about(prompt_id: str, frames: list[Frame]) -> list[Frame]:
    return [frame for frame in frames if isinstance(frame, Event) and frame.data.get("prompt_id") == prompt_id]


async def run_before_it_is_answered(stage: Stage, asked: Asked) -> bytes:
    """ComfyUI's answer to a submission, given when the prompt is over and told."""
    given = await stage.direct.post("/prompt", json.loads(asked.body))
    await stage.direct.history(given.json()["prompt_id"])
    for _ in range(ROUNDS):
        await stage.client.get_json("/features")
    return answer(200, given.body)


@pytest.mark.parametrize("fields", [{}, {"prompt_id": fresh_id()}])
@pytest.mark.parametrize("mode", Mode)
async def test_what_is_told_of_a_prompt_waits_for_the_answer(
    mode: Mode, fields: dict[str, str], tmp_path: Path
) -> None:
    async with staged(mode, tmp_path) as stage, stage.client.socket() as socket:
        before: list[Frame] = []

        async def slow(asked: Asked) -> Fate | bytes:
            if not asked.is_("POST", "/prompt"):
                return Fate.PASSED
            answered = await run_before_it_is_answered(stage, asked)
            before.extend(socket.frames)
            return answered

        stage.relay.script = slow
        prompt_id = (await stage.client.submit(encode("a", "x"), socket.client_id, **fields))["prompt_id"]
        frames = await socket.until_done(prompt_id)
        assert about(prompt_id, before) == []
        kinds = [
            frame.kind for frame in frames if isinstance(frame, Event) and frame.data.get("prompt_id") == prompt_id
        ]
        assert kinds[0] == "execution_start"


@pytest.mark.parametrize("mode", Mode)
async def test_what_is_told_of_other_prompts_does_not_wait(mode: Mode, tmp_path: Path) -> None:
    running, second = fresh_id(), fresh_id()
    async with staged(mode, tmp_path) as stage, stage.client.socket() as socket:

        async def slow(asked: Asked) -> Fate | bytes:
            if not asked.is_("POST", "/prompt"):
                return Fate.PASSED
            given = await stage.direct.post("/prompt", json.loads(asked.body))
            stage.gate.open(running)
            await socket.until_done(running)
            return answer(200, given.body)

        stage.gate.shut(running)
        await stage.client.submit(encode("a", "x"), socket.client_id, prompt_id=running)
        await stage.gate.reached(running)
        stage.relay.script = slow
        await stage.client.submit(encode("a", "y"), socket.client_id, prompt_id=second)
        stage.relay.script = pass_all
        await socket.until_done(second)


def test_ids_are_found_however_json_writes_them() -> None:
    submitting = Submitting()
    assert not submitting.is_meant(build_text("execution_start", {}), "ann")
    submitting.named('"ä"', "ann")
    assert submitting.is_meant(build_text("executing", {"prompt_id": '"ä"'}), "bob")
    assert submitting.is_meant(PreviewWithMetadata({"prompt_id": '"ä"'}, b"").build(), "bob")
    assert not submitting.is_meant(build_text("executing", {"prompt_id": "ä"}), "ann")


def test_an_id_that_is_a_word_of_the_protocol_is_no_other_frame() -> None:
    submitting = Submitting()
    submitting.named("status", "ann")
    assert not submitting.is_meant(build_text("status", {}), "ann")
    assert submitting.is_meant(build_text("executing", {"prompt_id": "status"}), "ann")


def test_where_comfyui_chooses_the_id_other_clients_do_not_wait() -> None:
    submitting, start = Submitting(), build_text("execution_start", {"prompt_id": "chosen"})
    submitting.named(None, "ann")
    assert submitting.is_meant(start, "ann")
    assert not submitting.is_meant(start, "bob")
    assert not submitting.is_meant(build_text("executing", {"prompt_id": "before"}), "ann")
