"""The main job: two workflows in turn load each model once, counted by ComfyUI's own reads of files."""

from pathlib import Path

import pytest

from proxy.core.mode import Mode
from tests.engine.stage import encode, staged


async def test_direct_each_turn_loads_again() -> None:
    async with staged() as stage, stage.direct.socket() as socket:
        for turn in range(3):
            await stage.direct.run(encode("a", f"{turn}"), socket)
            await stage.direct.run(encode("b", f"{turn}", ids="1 2 3"), socket)
        assert stage.loads == ["a.safetensors", "b.safetensors"] * 3


@pytest.mark.parametrize("mode", [Mode.PINS, Mode.FULL])
async def test_through_the_proxy_each_model_is_loaded_once(mode: Mode, tmp_path: Path) -> None:
    async with staged(mode, tmp_path) as stage, stage.client.socket() as socket:
        runs = []
        for turn in range(3):
            runs.append(await stage.client.run(encode("a", f"{turn}"), socket))
            runs.append(await stage.client.run(encode("b", f"{turn}", ids="1 2 3"), socket))
        assert stage.loads == ["a.safetensors", "b.safetensors"]
    assert [run.cached for run in runs] == [[], [], ["4"], ["1"], ["4"], ["1"]]
    assert all("CheckpointLoaderSimple" not in str(run.frames) for run in runs)
