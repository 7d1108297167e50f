"""`comfykeep warm` against a running proxy, and the schedule in `comfykeep check`."""

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from proxy.cli import commands, remote, warming
from proxy.core.mode import Mode
from proxy.engine import warming as engine_warming
from simulator import Simulator, SimulatorConfig
from tests.engine.stage import MODELS
from tests.engine.warm_stage import WarmStage, entry, until, warm_stage


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_warming, "SETTLE", 0.0)
    monkeypatch.setattr(engine_warming, "_LOOK", 0.001)
    monkeypatch.setattr(warming, "_LOOK", 0.001)


def invoke(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "300"}).invoke(commands.app, arguments)


async def warm(stage: WarmStage, *arguments: str, status: int = 0) -> str:
    """What the command prints; it blocks, so it runs beside the event loop."""
    result = await asyncio.to_thread(invoke, "warm", *arguments, "--proxy", stage.proxy.url)
    if isinstance(result.exception, remote.RemoteError):
        return str(result.exception)
    assert result.exit_code == status, result.output
    return result.output


async def test_an_entry_and_a_file_are_warmed_by_name(tmp_path: Path) -> None:
    async with warm_stage(tmp_path, entry("portraits", "a", to="ram")) as stage:
        stage.gate.shut_all()
        asked = asyncio.create_task(warm(stage, "portraits"))
        await until(lambda: stage.gate.started, "the warm-up to start")
        assert not asked.done()
        stage.gate.open()
        assert (await asked).startswith("portraits: warmed in ")
        assert "already in RAM" in await warm(stage, "portraits")
        assert "already in VRAM" not in await warm(stage, "portraits", "--to", "vram")
        assert json.loads(await warm(stage, "--model", "v.safetensors", "--json"))["result"] == "warmed"
        assert stage.loads == ["a", "v"]


async def test_what_fails_is_told_and_is_the_exit_status(tmp_path: Path) -> None:
    async with warm_stage(tmp_path, entry("gone", "x")) as stage:
        assert "did you mean 'v.safetensors'?" in await warm(stage, "--model", "vv.safetensors", status=1)
        assert "Value not in list" in await warm(stage, "gone", status=1)
        assert "Those of the schedule: gone." in await warm(stage, "nobody")
        await warm(stage, "gone", "--model", "a.safetensors", status=2)


async def test_in_observe_it_is_said_what_to_do(tmp_path: Path) -> None:
    async with warm_stage(tmp_path, entry("a", "a"), Mode.OBSERVE) as stage:
        assert "comfykeep mode pins" in await warm(stage, "a")


async def test_the_list_shows_next_times_last_results_and_faults(tmp_path: Path) -> None:
    cron = entry("daily", "a", cron="'0 8 * * *'", timezone="'Europe/Berlin'")
    async with warm_stage(tmp_path, cron + entry("broken", "b", cron="'often'") + entry("hand", "b")) as stage:
        await warm(stage, "daily")
        listed = await warm(stage, "--list")
        [daily, hand, broken] = [line for line in listed.splitlines() if ".safetensors" in line or "│ broken" in line]
        assert "0 8 * * * (Europe/Berlin)" in daily
        assert ":00" in daily
        assert "warmed in" in daily
        assert "by hand" in hand
        assert "out" in broken
        assert listed.count("entry 'broken': cron") == 1
        assert listed == await warm(stage)
        told = json.loads(await warm(stage, "--list", "--json"))
        assert [row["status"] for row in told["entries"]] == ["idle", "idle", "out"]


async def test_a_broken_new_file_leaves_the_old_one_in_force_and_is_told(tmp_path: Path) -> None:
    async with warm_stage(tmp_path, entry("first", "a")) as stage:
        (tmp_path / "warmup.toml").write_text(entry("first", "a") + "[[entry]]\nname = 'second'\n")
        assert stage.proxy.warmup.reload()
        listed = await warm(stage, "--list")
        assert "is not in force" in listed
        assert "warmed" in await warm(stage, "first")
        (tmp_path / "warmup.toml").write_text(entry("second", "b"))
        assert not stage.proxy.warmup.reload()
        assert "second" in await warm(stage, "--list")
        assert "There is no warm-up 'first'" in await warm(stage, "first")


async def test_check_judges_the_schedule_by_what_comfyui_has(tmp_path: Path) -> None:
    async with Simulator(SimulatorConfig(models=MODELS)) as comfy:
        said = await asyncio.to_thread(invoke, "check", "--config", str(configured(tmp_path, comfy.url)))
    assert said.exit_code == 1
    problems = [line for line in said.output.splitlines() if line.startswith("Problem: ")]
    assert len(problems) == 3, said.output
    assert "entry 'page'" in said.output
    assert "Export (API)" in said.output
    assert "entry 'typo': inputs.ckpt_name: 'aa.safetensors' is not among what this ComfyUI offers" in said.output
    assert "Did you mean 'a.safetensors'?" in said.output
    assert "entry 'missing'" in said.output


async def test_check_judges_the_schedule_by_itself_where_comfyui_is_away(tmp_path: Path) -> None:
    said = await asyncio.to_thread(invoke, "check", "--config", str(configured(tmp_path, "http://127.0.0.1:1")))
    assert said.exit_code == 1
    assert "entry 'page'" in said.output
    assert "entry 'missing'" in said.output
    assert "entry 'typo'" not in said.output


def configured(folder: Path, url: str) -> Path:
    """A configuration whose schedule has three faults, one of which only ComfyUI can see."""
    (folder / "page.json").write_text(json.dumps({"nodes": [], "links": [], "version": 0.4}))
    schedule = entry("typo", "aa")
    for name, workflow in (("page", "page.json"), ("missing", "nowhere.json")):
        schedule += f'[[entry]]\nname = "{name}"\nprompt = "{workflow}"\n'
    (folder / "warmup.toml").write_text(schedule + entry("good", "b"))
    file = folder / "proxy.toml"
    file.write_text(f'[upstream]\nurl = "{url}"\n[warmup]\nschedule = "{folder / "warmup.toml"}"\n')
    return file
