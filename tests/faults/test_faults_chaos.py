"""Proxy and ComfyUI are really killed while clients work: every promise is kept, and a broken one would show."""

from pathlib import Path

import pytest

from bench.chaos import measure
from bench.victims import Side

pytestmark = pytest.mark.timeout(900)
"""On a machine that is busy with other things, processes take long to come up."""

KILLS = 2
"""Of each side."""


async def test_nothing_is_lost_and_nothing_runs_twice(tmp_path: Path) -> None:
    report = await measure(tmp_path, KILLS, seed=1)
    assert report.faults == {}
    assert report.finished > 0
    assert report.accepted == report.finished + report.failed + report.cancelled
    for side in Side:
        assert (tmp_path / f"{side}.log").exists()


async def test_without_the_journal_it_shows(tmp_path: Path) -> None:
    report = await measure(tmp_path, 1, seed=1, forget=True)
    assert report.lost > 0
    assert not report.sound
