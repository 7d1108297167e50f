"""`comfykeep bench warmup` on a fast clock: what it measures is what it says, for people and for programs."""

import json
from dataclasses import replace

import pytest

from bench.warmup import MACHINE, OTHERS, Clients, Figures, First, measure, show

FIGURES = Figures(12, First(9.04, 1), First(4.72, 0), Clients(4.8, 5.0), Clients(5.7, 10.8), 3, 12.3)


async def test_the_first_client_of_a_warmed_model_waits_for_no_load() -> None:
    figures = await measure(replace(MACHINE, time_scale=1000.0), prompts=2)
    assert (figures.first_cold.model_loads, figures.first_warmed.model_loads) == (1, 0)
    assert (figures.prompts, figures.warmups) == (2, len(OTHERS))
    assert figures.longest_warmup_seconds > 0
    for side in (figures.clients_alone, figures.clients_meanwhile):
        assert 0 < side.mean_seconds <= side.longest_seconds


def test_the_figures_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    show(FIGURES, json_output=True)
    report = json.loads(capsys.readouterr().out)
    assert report["first_warmed"] == {"seconds": 4.72, "model_loads": 0}
    assert report["clients_meanwhile"] == {"mean_seconds": 5.7, "longest_seconds": 10.8}
    assert report["assumptions"]["warmed"] == list(OTHERS)


def test_the_figures_as_tables(capsys: pytest.CaptureFixture[str]) -> None:
    show(FIGURES, json_output=False)
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("12 prompts", "nothing warmed", "9.0", "10.8", "the longest 12.3 s"))
