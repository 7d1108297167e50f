"""`comfykeep bench journal` measures every row it promises, and prints it for people and for programs."""

import json
from pathlib import Path

import pytest

from bench.journal import CONCURRENCIES, run
from proxy.journal_records import Sync


def test_json_has_a_row_for_every_way_of_submitting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(json_output=True, folder=tmp_path, prompts=10)
    report = json.loads(capsys.readouterr().out)
    assert report["fsync_median_ms"] > 0
    assert [(row["sync"], row["concurrency"], row["prompts"]) for row in report["rows"]] == [
        (sync.value, concurrency, 10) for sync in Sync for concurrency in CONCURRENCIES
    ]
    for row in report["rows"]:
        assert row["accepted_per_second"] > 0
        assert 0 < row["latency_median_ms"] <= row["latency_p99_ms"]
    assert list(tmp_path.iterdir()) == []


def test_the_table_names_both_ways_of_syncing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(json_output=False, folder=tmp_path, prompts=10)
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("normal", "full", "p99"))
