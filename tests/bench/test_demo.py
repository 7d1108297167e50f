"""`comfykeep demo`: what it counts, in simulated time, in which the machine's own speed plays no part."""

import asyncio
import json
import logging
from collections.abc import Iterator

import pytest
from rich.console import Console

from bench import demo


@pytest.fixture(autouse=True)
def _not_silent_afterwards() -> Iterator[None]:
    yield
    logging.disable(logging.NOTSET)  # the command is silent to its end


async def test_each_model_is_loaded_once_where_it_is_kept_and_one_alone_gains_nothing() -> None:
    rows = await demo.measure(Console(quiet=True))
    files = len({"dreamscape_xl", "flux", "t5xxl", "clip_l", "flux_vae", "sketchbook", "lora"})
    assert rows["comfykeep"].model_loads == rows["best_flags"].model_loads == files
    assert rows["direct"].model_loads > 3 * files
    assert rows["comfykeep"].seconds < rows["direct"].seconds

    direct, kept = rows["one_model_direct"], rows["one_model_comfykeep"]
    assert kept.model_loads == direct.model_loads == 1
    assert kept.seconds == pytest.approx(direct.seconds)


async def test_json_goes_to_stdout_and_the_table_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    await asyncio.to_thread(demo.run, json_output=True)
    said = capsys.readouterr()
    result = json.loads(said.out)
    assert list(result) == ["direct", "best_flags", "comfykeep", "ratio"]
    assert result["ratio"] == result["direct"]["seconds"] / result["comfykeep"]["seconds"]
    assert all(list(result[side]) == ["model_loads", "seconds"] for side in ("direct", "best_flags", "comfykeep"))
    assert "one model only" in said.err
