"""`comfykeep check`: what it says of a strategy and of groups, and its exit status."""

import asyncio
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from proxy.cli import commands
from simulator import CacheMode, Simulator, SimulatorConfig
from tests.cli.serving_process import write_config
from tests.engine.stage import MODELS


async def check(folder: Path, settings: SimulatorConfig, text: str) -> Result:
    async with Simulator(settings) as comfy:
        write_config(folder, comfy.url, text)
        arguments = ["check", "--config", str(folder / "proxy.toml")]
        return await asyncio.to_thread(lambda: CliRunner(env={"COLUMNS": "300"}).invoke(commands.app, arguments))


@pytest.mark.parametrize(
    ("installed", "status", "said"),
    [
        (True, 0, "Sent as Inspire's shared loaders: CLIPLoader, CheckpointLoaderSimple"),
        (False, 1, "no shared loaders: models are pinned instead.\n  Install ComfyUI-Inspire-Pack and restart ComfyUI"),
    ],
)
async def test_the_strategy_inspire_is_judged_by_what_comfyui_has(
    tmp_path: Path, *, installed: bool, status: int, said: str
) -> None:
    settings = SimulatorConfig(models=MODELS, cache=CacheMode.CLASSIC, inspire_pack=installed)
    result = await check(tmp_path, settings, '[normalizer]\nstrategy = "inspire"\n')
    assert (result.exit_code, result.output.count("Problem:")) == (status, status), result.output
    assert said in result.output


@pytest.mark.parametrize(
    ("models", "status", "word"),
    [
        ('["a.*", "b.safetensor"]', 0, "Warning: [[group]] 'g': models has 'b.safetensor', which"),
        ('["a.*", "b.*"]', 0, "No problems found."),
        ('["bb*", "c.safetensor"]', 1, "Error: [[group]] 'g': models has 'c.safetensor', which"),
    ],
)
async def test_a_mistyped_glob_is_a_warning_and_a_group_of_nothing_an_error(
    tmp_path: Path, models: str, status: int, word: str
) -> None:
    settings = SimulatorConfig(models=MODELS, cache=CacheMode.CLASSIC)
    result = await check(tmp_path, settings, f'[[group]]\nname = "g"\nmodels = {models}\n')
    assert result.exit_code == status, result.output
    assert word in result.output
    assert ("nearest: " in result.output) == ("No problems" not in result.output)


async def test_always_groups_that_cannot_fit_are_an_error_by_the_configured_sizes(tmp_path: Path) -> None:
    settings = SimulatorConfig(models=MODELS, cache=CacheMode.CLASSIC, ram_gb=32.0)
    group = '[[group]]\nname = "g"\nmodels = ["a.*"]\nkeep = "always"\n'
    assert (await check(tmp_path, settings, group)).exit_code == 0
    result = await check(tmp_path, settings, f'{group}[residency]\nsizes = {{ "a.safetensors" = 40 }}\n')
    assert result.exit_code == 1
    assert 'Error: The groups marked "always" take 40.0 GB (g 40.0 GB), but only' in result.output
