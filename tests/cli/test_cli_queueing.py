"""`comfykeep queue` and `comfykeep explain` against a running proxy."""

import asyncio
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from proxy.cli import commands, queueing, remote
from proxy.core.mode import Mode
from proxy.journal_peek import unfinished
from tests.engine.stage import Stage, encode, fresh_id, staged, until


async def comfykeep(stage: Stage, *arguments: str, fails: bool = False) -> str:
    """What the command prints; it blocks, so it runs beside the event loop."""

    def run() -> str:
        result = CliRunner(env={"COLUMNS": "300"}).invoke(commands.app, [*arguments, "--proxy", stage.proxy.url])
        if isinstance(result.exception, remote.RemoteError):
            assert fails, result.exception
            return str(result.exception)
        assert result.exit_code == 0, result.output
        return result.output

    return await asyncio.to_thread(run)


async def test_the_queue_is_listed_paused_moved_and_explained(tmp_path: Path) -> None:
    async with staged(Mode.FULL, tmp_path) as stage:
        running, ids = await stage.blocker(), [fresh_id() for _ in range(3)]
        for prompt_id in ids:
            await stage.client.submit(encode("b", prompt_id), prompt_id=prompt_id)
        listed = await comfykeep(stage, "queue", "--limit", "1")
        assert running in listed
        assert "b.safetensors" in listed
        assert "1 more wait" in listed
        assert [row["prompt_id"] for row in json.loads(await comfykeep(stage, "queue", "--json"))["waiting"]] == ids[1:]
        await comfykeep(stage, "queue", "front", ids[2])
        await until(lambda: stage.pending() == [ids[2]], "it to be staged")
        await comfykeep(stage, "queue", "pause")
        assert "Paused by operator" in await comfykeep(stage, "queue")
        assert "waits: paused by operator" in await comfykeep(stage, "explain", ids[0])
        told = json.loads(await comfykeep(stage, "explain", ids[2], "--json"))
        assert "moved" in [passage["code"] for passage in told["story"]]
        await comfykeep(stage, "queue", "resume")
        await comfykeep(stage, "queue", "cancel", ids[0])
        stage.gate.open()
        await stage.ended(running, ids[1], ids[2])
        assert ids[0] not in stage.gate.started


async def test_what_a_change_of_mode_leaves_stuck_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with staged(Mode.FULL, tmp_path) as stage:
        await stage.blocker()
        await comfykeep(stage, "queue", "pause")
        await stage.client.submit(encode("b", "waits"))
        said = await comfykeep(stage, "mode", "pins")
        assert said.startswith("pins\n1 prompts still wait here")
        assert "comfykeep queue resume" in said
        assert "mode full → pins" in caplog.messages
        assert any("1 prompts still wait here, and the queue is paused" in line for line in caplog.messages)
        await comfykeep(stage, "queue", "resume")
        assert "resume" not in await comfykeep(stage, "mode", "pins")
        assert sum("→" in line for line in caplog.messages) == 1
        stage.gate.open()


async def test_prompts_that_another_mode_leaves_in_the_journal_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with staged(Mode.FULL, tmp_path) as stage:
        await stage.blocker()
        await comfykeep(stage, "queue", "pause")
        for text in "xy":
            await stage.client.submit(encode("b", text))
        waiting = unfinished(stage.proxy.config.journal.file)
        assert waiting == 3
        stage.gate.open()
        await until(lambda: unfinished(stage.proxy.config.journal.file) == 2, "the blocker to be over")
    assert unfinished(stage.proxy.config.journal.file) == 2
    async with staged(Mode.PINS, tmp_path) as stage:
        assert "2 prompts wait in the journal; `comfykeep mode full` runs them" in caplog.messages
        assert "2 prompts wait in the journal" in await comfykeep(stage, "status")
        await comfykeep(stage, "mode", "full")
        assert "in the journal" not in await comfykeep(stage, "status")


async def test_faults_are_told_in_one_sentence(tmp_path: Path) -> None:
    async with staged(Mode.FULL, tmp_path) as stage:
        assert "No prompt x waits or runs here." in await comfykeep(stage, "queue", "cancel", "x", fails=True)
        assert "No prompt a/b is known here." in await comfykeep(stage, "explain", "a/b", fails=True)
    async with staged(Mode.PINS) as stage:
        said = await comfykeep(stage, "queue", fails=True)
        assert "does not hold the queue in mode pins" in said
        assert "comfykeep mode full" in said


def test_stretches_of_time_are_short() -> None:
    seconds = (-3, 0, 59.4, 60, 3599, 3600, 86399, 90000)
    spelt = "0 s, 0 s, 59 s, 1 min 0 s, 59 min 59 s, 1 h 0 min, 23 h 59 min, 1 d 1 h"
    assert ", ".join(queueing.spell(value) for value in seconds) == spelt


def test_nobody_there_is_said_with_a_remedy() -> None:
    command = [str(Path(sys.executable).with_name("comfykeep")), "queue", "--proxy", "http://127.0.0.1:1"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own command
    assert ended.returncode == 1
    assert "No comfykeep answers at http://127.0.0.1:1" in ended.stderr
    assert "Traceback" not in ended.stderr


async def test_check_says_when_what_it_fronts_is_a_comfykeep(tmp_path: Path) -> None:
    async with staged(Mode.PINS) as stage:
        for url, chained in ((stage.proxy.url, True), (stage.comfy.url, False)):
            config = tmp_path / "proxy.toml"
            config.write_text(f'[upstream]\nurl = "{url}"\n[journal]\npath = "{tmp_path}/journal"\n')
            result = await asyncio.to_thread(CliRunner().invoke, commands.app, ["check", "--config", str(config)])
            assert ("itself a comfykeep" in result.output) is chained, result.output
