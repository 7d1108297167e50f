"""`comfykeep bench live` on a simulated ComfyUI: what it counts, and how it ends when it cannot."""

import asyncio
import json
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bench import live
from bench.errors import BenchError
from bench.fronting import fronting
from simulator import Simulator, SimulatorConfig
from tests.engine.stage import MODELS, encode


@pytest.fixture
async def comfy() -> AsyncIterator[Simulator]:
    async with Simulator(SimulatorConfig(models=MODELS, time_scale=math.inf)) as simulated:
        yield simulated


def written(folder: Path, **workflows: Any) -> list[Path]:
    for name, workflow in workflows.items():
        (folder / f"{name}.json").write_text(json.dumps(workflow))
    return [folder / f"{name}.json" for name in workflows]


async def run(url: str, paths: list[Path], capsys: pytest.CaptureFixture[str]) -> Any:
    await asyncio.to_thread(live.run, url, paths, 3, json_output=True, assume_yes=True)
    return json.loads(capsys.readouterr().out)


async def test_both_sides_start_cold_and_loads_are_counted(
    comfy: Simulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = written(tmp_path, a=encode("a", "text"), b=encode("b", "text"))
    for _ in range(2):
        result = await run(comfy.url, paths, capsys)
        assert [result["direct"][key] for key in ("loads", "first_round_loads", "later_round_loads")] == [6, 2, 2]
        assert [result["comfykeep"][key] for key in ("loads", "first_round_loads", "later_round_loads")] == [2, 2, 0]
        assert result["ratio"] == result["direct"]["seconds"] / result["comfykeep"]["seconds"]


async def test_what_cannot_be_measured_is_said_plainly(
    comfy: Simulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, page, nothing, unknown = written(
        tmp_path,
        good=encode("a", "text"),
        page={"nodes": []},
        nothing={"1": {"class_type": "PreviewAny", "inputs": {"source": "x"}}},
        unknown=encode("not there", "text"),
    )
    for path, why in [
        (page, "export it"),
        (nothing, "no node in it loads a model"),
        (tmp_path / "missing.json", "cannot be read"),
        (unknown, "refused a workflow"),
    ]:
        with pytest.raises(BenchError, match=why):
            await run(comfy.url, [good, path], capsys)
    with pytest.raises(BenchError, match=r"No ComfyUI answers at http://127\.0\.0\.1:1"):
        await run("http://127.0.0.1:1", [good], capsys)


async def test_a_proxy_is_measured_when_it_knows_its_comfyui(comfy: Simulator) -> None:
    """To learn it takes a real ComfyUI seconds, which would count as the first workflow's."""
    async with fronting(comfy.url) as proxy:
        assert proxy.engine.upstream.schema.complete
