"""The normalizer's benchmark: prompts of the sizes it names, every kind of frame restored and passed."""

import gc
import json
from collections.abc import Iterator

import pytest

from bench import normalize
from normalizer import Schema
from normalizer import normalize as rewrite
from proxy.collecting import THRESHOLDS


def test_the_report_has_a_row_for_every_size_and_kind() -> None:
    report = normalize.measure(0.0)
    assert [row.nodes for row in report.prompts] == list(normalize.SIZES)
    assert all(0 < row.median_us <= row.p99_us for row in report.prompts)
    assert {row.kind for row in report.frames} >= {"executing", "executed", "progress_state", "execution_cached"}
    assert all(row.restored_per_s > 0 and row.passed_per_s > 0 for row in report.frames)


@pytest.mark.parametrize("size", normalize.SIZES)
def test_its_prompts_are_rewritten_like_real_ones(size: int) -> None:
    made = normalize.prompt(size)
    assert len(made) == size
    normalized = rewrite(made, Schema.from_object_info(normalize.OBJECT_INFO))
    assert 0.1 <= len(normalized.way_back.ids) / size <= 0.7
    assert json.dumps(normalized.way_back.prompt(normalized.prompt)) == json.dumps(made)


@pytest.fixture
def _thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


@pytest.mark.usefixtures("_thresholds")
def test_json_for_machines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(normalize, "SECONDS", 0.0)
    normalize.run(json_output=True)
    report = json.loads(capsys.readouterr().out)
    assert set(report) == {"prompts", "frames"}
    assert set(report["prompts"][0]) == {"nodes", "median_us", "p99_us"}
    assert set(report["frames"][0]) == {"kind", "restored_per_s", "passed_per_s"}
    assert gc.get_threshold() == THRESHOLDS, "as in the proxy"
