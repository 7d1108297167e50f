"""What the log says of prompts that end without having run, and of a ComfyUI that died with some of them."""

import logging
from pathlib import Path

import pytest

from proxy.config import QueueSection
from proxy.core.mode import Mode
from tests.engine.relay import Asked, Fate
from tests.engine.stage import Stage, encode, fresh_id, staged, until

MODES = (Mode.PINS, Mode.FULL)


async def waiting(stage: Stage, count: int) -> list[str]:
    """Prompts behind one that runs until the gate is opened."""
    await stage.blocker()
    ids = [fresh_id() for _ in range(count)]
    for prompt_id in ids:
        await stage.client.submit(encode("b", prompt_id), prompt_id=prompt_id)
    return ids


async def deleted(stage: Stage, how: dict[str, object], line: str, caplog: pytest.LogCaptureFixture) -> None:
    """Take prompts out through the proxy, whose own look into ComfyUI's queue is late, and wait for the line."""

    async def late(asked: Asked) -> Fate:
        if asked.is_("GET", "/queue"):
            await until(lambda: line in caplog.messages, "the line")
        return Fate.PASSED

    stage.relay.script = late
    await stage.post("/queue", how)
    await until(lambda: line in caplog.messages, "the line")


@pytest.mark.parametrize("mode", MODES)
async def test_a_deleted_prompt_has_its_line(mode: Mode, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with staged(mode, tmp_path, queue=QueueSection(depth=1)) as stage:
        (prompt_id,) = await waiting(stage, 1)
        await deleted(stage, {"delete": [prompt_id]}, f"prompt {prompt_id}: deleted before it ran", caplog)
    assert sum(prompt_id in line for line in caplog.messages) == 1


@pytest.mark.parametrize("mode", MODES)
async def test_what_is_cleared_has_one_line(mode: Mode, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with staged(mode, tmp_path, queue=QueueSection(depth=1)) as stage:
        ids = await waiting(stage, 3)
        await deleted(stage, {"clear": True}, "3 prompts: deleted before they ran", caplog)
    assert not [line for line in caplog.messages if any(prompt_id in line for prompt_id in ids)]


async def test_a_prompt_that_somebody_else_deleted_has_its_line(caplog: pytest.LogCaptureFixture) -> None:
    async with staged(Mode.PINS) as stage:
        (prompt_id,) = await waiting(stage, 1)
        await stage.direct.request("POST", "/queue", {"delete": [prompt_id]})
        gone = f"prompt {prompt_id}: ComfyUI has it no more, and its history does not"
        await until(lambda: gone in caplog.messages, "the line")


async def test_how_many_are_sent_again_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with staged(Mode.FULL, tmp_path, queue=QueueSection(max_attempts=1)) as stage:
        ids = await waiting(stage, 3)
        await until(stage.pending, "the next one to be staged")
        await stage.comfy.crash()
        await stage.comfy.restart()
        await stage.ended(*ids)
    assert "ComfyUI is a new process; of the prompts that the old one had, 1 are sent again" in caplog.messages
    (failed,) = [line for line in caplog.messages if ": failed; " in line]
    assert "that was attempt 1 of 1" in failed
