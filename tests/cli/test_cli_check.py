"""`comfykeep check`: what it says of a strategy, and its exit status."""

import asyncio
from pathlib import Path

import pytest
from typer.testing import CliRunner

from proxy.cli import commands
from simulator import CacheMode, Simulator, SimulatorConfig
from tests.cli.serving_process import write_config
from tests.engine.stage import MODELS


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
    async with Simulator(settings) as comfy:
        write_config(tmp_path, comfy.url, '[normalizer]\nstrategy = "inspire"\n')
        arguments = ["check", "--config", str(tmp_path / "proxy.toml")]
        result = await asyncio.to_thread(CliRunner(env={"COLUMNS": "300"}).invoke, commands.app, arguments)
    assert (result.exit_code, result.output.count("Problem:")) == (status, status), result.output
    assert said in result.output
