"""The benchmark of the scheduler's decisions: every row is there, for as many waiting prompts as it says."""

import json

import pytest

from bench import decisions


def test_json_for_machines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(decisions, "WAITING", 60)
    monkeypatch.setattr(decisions, "MEASURED", 20)
    decisions.run(json_output=True)
    rows = json.loads(capsys.readouterr().out)["decisions"]
    assert [(row["sets"], row["waiting"]) for row in rows] == [(1, 60), (8, 60), (64, 60)]
    for row in rows:
        assert 0 <= row["submission_median_us"] <= row["submission_p99_us"]
        assert 0 <= row["end_median_us"] <= row["end_p99_us"]
