"""`comfykeep bench overhead` measures everything on everything, and prints it for people and for programs."""

import json
import shutil

import pytest

from bench.overhead import MIB, Scale, run

SMALL = Scale(rounds=1, repeats=1, file_bytes=MIB, steps=5)


def test_json_has_every_figure_and_its_ratio(capsys: pytest.CaptureFixture[str]) -> None:
    run(json_output=True, scale=SMALL)
    direct, *others = json.loads(capsys.readouterr().out)["fronts"]
    between = ["nginx"] if shutil.which("nginx") else []
    assert [row["front"] for row in (direct, *others)] == ["direct", *between, "observe", "pins", "full"]
    assert set(direct["ratios"].values()) == {1.0}
    for row in others:
        figures = {key: value for key, value in row.items() if key not in {"front", "ratios"}}
        assert len(figures) == 7
        assert min(figures.values()) > 0
        assert row["ratios"] == pytest.approx({key: value / direct[key] for key, value in figures.items()})


def test_the_table_says_when_nginx_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    run(json_output=False, scale=SMALL)
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("direct", "pins", "submission", "nginx is not installed"))
