"""`/comfykeep/status` and `comfykeep status`: the same, for programs and for people."""

import asyncio
import json
import time
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from proxy.cli import commands, remote
from proxy.cli.status import view
from proxy.core.mode import Mode
from proxy.downstream.status_model import Status
from tests.engine.stage import MB, Stage, encode, staged, until


async def status(stage: Stage) -> Status:
    return Status.model_validate(await stage.client.get_json("/comfykeep/status"))


async def run(stage: Stage, checkpoint: str) -> str:
    submitted = await stage.client.submit(encode(checkpoint, "text"))
    await stage.client.history(submitted["prompt_id"])
    return str(submitted["prompt_id"])


@pytest.mark.parametrize("mode", [Mode.PINS, Mode.FULL])
async def test_what_is_where_and_why(mode: Mode, tmp_path: Path) -> None:
    async with staged(mode, tmp_path, ram_gb=48.0) as stage:
        for name in "abb":
            await run(stage, name)
        await until(lambda: stage.proxy.engine.upstream.memory.vram is not None, "a reading")
        seen = await status(stage)
        assert seen.mode is mode
        b, a = seen.upstream.components
        assert (a.label, a.size, a.size_source, a.needed_in) == ("a.safetensors", MB, "file size", None)
        assert (b.label, b.pinned, b.kept, b.why) == ("b.safetensors", False, True, "the prompt itself uses it")
        assert (a.pinned, a.kept) == (True, True)
        assert a.why.startswith("used ")
        ram = seen.upstream.ram
        assert ram is not None
        assert (ram.total, ram.source) == (48 * 1024 * MB, "ComfyUI")
        assert ram.reserve == int(48 * 1024 * MB * 0.15)
        assert seen.totals.model_dump(include={"prompts", "loaded", "kept"}) == {"prompts": 3, "loaded": 2, "kept": 1}
        assert (seen.upstream.running, seen.upstream.queue, seen.upstream.waiting) == ((), (), 0)


@pytest.mark.parametrize("mode", [Mode.PINS, Mode.FULL])
async def test_the_queue_and_what_needs_what(mode: Mode, tmp_path: Path) -> None:
    async with staged(mode, tmp_path) as stage:
        await run(stage, "c")
        running = await stage.blocker()
        waiting = [(await stage.client.submit(encode(name, "x")))["prompt_id"] for name in "bdc"]
        await until(lambda: stage.at_comfyui >= 2, "one to be staged")
        seen = (await status(stage)).upstream
        assert [prompt.prompt_id for prompt in seen.running] == [running]
        assert [prompt.prompt_id for prompt in seen.queue] == waiting
        assert seen.queue[1].models == ("d.safetensors",)
        (c,) = [item for item in seen.components if item.label == "c.safetensors"]
        assert c.needed_by == waiting[2]
        assert (c.pinned, c.needed_in) == (True, 3)
        stage.gate.open(running)
        await stage.ended(*waiting)


async def test_before_comfyui_has_answered_there_is_a_status_too(tmp_path: Path) -> None:
    async with staged(Mode.PINS, tmp_path) as stage:
        await stage.comfy.crash()
        await until(lambda: not stage.proxy.engine.feed.up, "the crash to be seen")
        seen = await status(stage)
        assert not seen.upstream.up
        assert "ComfyUI does not answer" in shown(seen.model_dump(mode="json"))


def shown(answer: Any) -> str:
    console = Console(width=300, file=StringIO())
    with console.capture() as captured:
        console.print(view(answer))
    return captured.get()


async def test_the_command_prints_a_table_or_json(tmp_path: Path) -> None:
    async with staged(Mode.PINS, tmp_path) as stage:
        await run(stage, "a")
        await until(lambda: stage.proxy.engine.upstream.memory.ram is not None, "a reading")

        def call(*arguments: str) -> str:
            result = CliRunner(env={"COLUMNS": "300"}).invoke(
                commands.app, ["status", "--proxy", stage.proxy.url, *arguments]
            )
            assert result.exit_code == 0, result.output
            return result.output

        text = await asyncio.to_thread(call)
        assert "a.safetensors" in text
        assert "GB free, reserve" in text
        assert "1 prompts: 1 loads, 0 avoided" in text
        assert Status.model_validate(json.loads(await asyncio.to_thread(call, "--json"))).totals.prompts == 1


async def test_watching_looks_again_until_it_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with staged(Mode.PINS, tmp_path) as stage:
        asked: list[str] = []

        def call(_url: str, path: str) -> Any:
            asked.append(path)
            if len(asked) > 3:
                raise KeyboardInterrupt
            return answer

        answer = await stage.client.get_json("/comfykeep/status")
        monkeypatch.setattr("proxy.cli.status.call", call)
        monkeypatch.setattr("proxy.cli.status._EVERY", 0.0)
        for extra in ((), ("--json",)):
            asked.clear()
            result = await asyncio.to_thread(CliRunner().invoke, commands.app, ["status", "--watch", *extra])
            assert asked == ["/comfykeep/status"] * 4
            assert result.exit_code == 130
        assert len([line for line in result.output.splitlines() if line.startswith("{")]) == 3


async def test_without_a_proxy_it_is_said() -> None:
    with pytest.raises(remote.RemoteError, match="No comfykeep answers"):
        CliRunner().invoke(commands.app, ["status", "--proxy", "http://127.0.0.1:9"], catch_exceptions=False)


def test_bars_show_use_and_reserve() -> None:
    memory = {"total": 4 * 1024**3, "free": 1024**3, "reserve": 512 * MB, "source": "NVML", "age": 3.0}
    upstream = {
        "url": "u", "up": True, "version": "1", "ram": None, "vram": memory, "running": [], "queue": [], "waiting": 2,
        "components": [], "budget": {"pins": 3 * 1024**3, "chains": 16},
        "accuracy": {"share": 0.5, "tiers": {"hot": {"uses": 2, "right": 1}, "cold": {"uses": 0, "right": 0}}},
    }  # fmt: skip
    totals = {"prompts": 1, "loaded": 1, "kept": 0, "saved_seconds": 0.0}
    health = {"poisoned": "CUDA error", "stalled_since": time.time() - 90}
    text = shown({"mode": "pins", "waiting_in_journal": 0, "upstream": upstream, "totals": totals, "health": health})
    assert f"[{'#' * 30}{'.' * 5}{'r' * 5}] 1.0 of 4.0 GB free, reserve 0.5 GB (NVML, 3 s ago)" in text
    assert "tiers predicted right: 50% (hot 1 of 2)" in text
    assert "and 2 more" in text
    assert "pins may take 3.0 GB in 16 chains" in text
    assert "the queue stands until ComfyUI is restarted: CUDA error" in text
    assert "nothing has moved for 1 min 30 s, although prompts wait" in text
