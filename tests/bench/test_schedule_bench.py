"""`comfykeep bench schedule`: its figures, its JSON, its judge, and the page made of it."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from rich.console import Console

from bench import schedule
from bench.bounds import Bound
from bench.errors import BenchError
from bench.playing import Record, Run, play_ours, play_rival
from bench.policies import RIVALS
from bench.promises import judge
from bench.schedule import OURS, POLICIES, Report, Row, goals, measure
from bench.traces import GB, TRACES, Machine, Prompt, Trace
from normalizer.models import ModelRef
from proxy.core.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
A, B = (frozenset({ModelRef("component", (name,))}) for name in "ab")
SIZES = {ref: 6 * GB for models in (A, B) for ref in models}
ROW = Row(OURS, 1, 10.0, 100.0, 5.0, 20.0, 3, bounds_hold=True)
FIFO = Row(schedule.YARDSTICK, 1, 11.0, 100.0, 5.0, 20.0, 0, bounds_hold=True)


def record(prompts: list[Prompt], order: list[int], settings_seconds: float = 10.0) -> Record:
    """The prompts ran in this order, one after the other, for so long each."""
    runs = [Run(index, place * settings_seconds, (place + 1) * settings_seconds) for place, index in enumerate(order)]
    return Record(Trace("any", Machine(), SIZES, prompts), runs)


def test_json_has_the_documented_shape(capsys: pytest.CaptureFixture[str]) -> None:
    schedule.run(json_output=True, name="small")
    report = json.loads(capsys.readouterr().out)
    assert set(report) == {"traces"}
    (trace,) = report["traces"]
    assert set(trace) == {"trace", "lower_bound_load_seconds", "policies"}
    assert trace["trace"] == "small"
    assert [row["policy"] for row in trace["policies"]] == list(POLICIES)
    assert POLICIES[-1] == "comfykeep"
    for row in trace["policies"]:
        assert set(row) == {
            "policy",
            "loads",
            "load_seconds",
            "makespan",
            "wait_median",
            "wait_p99",
            "worst_overtaken",
            "bounds_hold",
        }
        assert row["load_seconds"] >= trace["lower_bound_load_seconds"] - 1e-6


@pytest.mark.parametrize("name", ["small", "alternating-fit-vram", "bursts"])
def test_every_goal_but_load_seconds_is_reached(name: str) -> None:
    report = measure(TRACES[name](name), lambda: None)
    assert all(goal.reached for goal in goals(report)[:3])


def test_every_prompt_runs_once_under_every_policy() -> None:
    trace = TRACES["bursts"]("bursts")
    for played in (*(play_rival(trace, rival) for rival in RIVALS), play_ours(trace, Settings())):
        assert sorted(run.index for run in played.runs) == list(range(len(trace.prompts)))
        runs = sorted(played.runs, key=lambda run: run.start)
        assert all(earlier.end <= later.start for earlier, later in pairwise(runs))
        assert all(run.start >= trace.prompts[run.index].at for run in runs)


def test_traces_are_reproducible() -> None:
    for name, make in TRACES.items():
        assert make(name) == make(name)
        assert make(name).name == name


@pytest.mark.parametrize(
    ("ours", "missed"),
    [
        (ROW, []),
        (Row(OURS, 1, 10.0, 100.0, 5.0, 20.0, 99, bounds_hold=False), [0]),
        (Row(OURS, 1, 10.0, 100.0, 5.0, 20.1, 3, bounds_hold=True), [1]),
        (Row(OURS, 1, 10.0, 102.1, 5.0, 20.0, 3, bounds_hold=True), [2]),
        (Row(OURS, 1, 11.1, 100.0, 5.0, 20.0, 3, bounds_hold=True), [3]),
    ],
)
def test_a_missed_goal_is_told(ours: Row, missed: list[int]) -> None:
    report = Report("any", Bound(10.0, exact=True), [FIFO, ours])
    assert [place for place, goal in enumerate(goals(report)) if not goal.reached] == missed
    console = Console(width=schedule.WIDTH)
    with console.capture() as printed:
        console.print(*schedule.render(report), sep="\n")
    assert printed.get().count("MISSED") == len(missed)


# the judge


def test_the_judge_counts_overtakings_at_equal_priority() -> None:
    prompts = [Prompt(0.0, A, 1.0), Prompt(0.0, A, 1.0), Prompt(0.0, A, 1.0, priority=1), Prompt(0.0, A, 1.0)]
    verdict = judge(record(prompts, [2, 3, 1, 0]), Settings(max_bypass=2))
    assert (verdict.worst_overtaken, verdict.bounds_hold) == (2, True)
    assert not judge(record(prompts, [2, 3, 1, 0]), Settings(max_bypass=1)).bounds_hold


def test_the_judge_allows_max_wait_and_one_prompt() -> None:
    prompts = [Prompt(0.0, A, 1.0)] * 4
    last_first = record(prompts, [3, 2, 1, 0])
    assert judge(last_first, Settings(max_wait=20.0)).bounds_hold
    assert not judge(last_first, Settings(max_wait=19.0)).bounds_hold


def test_the_judge_knows_what_fairness_owes() -> None:
    """Ann had 30 s; bob waits, has had nothing, and passes one that ann submitted before."""
    prompts = [*[Prompt(0.0, A, 1.0, "ann")] * 4, Prompt(1.0, A, 1.0, "bob")]
    passed = record(prompts, [0, 1, 2, 4, 3])
    assert judge(passed, Settings(max_bypass=0, fair_quantum=29.0)).bounds_hold
    assert not judge(passed, Settings(max_bypass=0, fair_quantum=31.0)).bounds_hold
    assert not judge(record(prompts, [0, 1, 3, 2, 4]), Settings(max_bypass=0, fair_quantum=1.0)).bounds_hold


def test_the_judge_lets_nobody_owe_what_has_been_caught_up() -> None:
    """Ann was ahead by 30 s, then bob by 30 s, and now bob by 10 s: nobody owes anybody anything."""
    history = [(3, "ann")] * 3 + [(2, "bob")] * 6 + [(1, "ann")] * 2
    prompts = [Prompt(0.0, A, 1.0, client, priority) for priority, client in (*history, (0, "ann"), (0, "bob"))]
    passed = record(prompts, [*range(len(history)), 12, 11])
    assert not judge(passed, Settings(max_bypass=0, fair_quantum=15.0)).bounds_hold


# what is asked for


def test_an_unknown_trace_is_named_with_those_there_are() -> None:
    with pytest.raises(BenchError, match="no trace 'x'; there are small, "):
        schedule.run(json_output=True, name="x")


def test_a_trace_and_a_file_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="leave one out"):
        schedule.run(json_output=True, name="small", file=tmp_path / "trace.json")


# the page


@pytest.mark.parametrize("name", ["small", "alternating-fit-vram", "alternating-fit-ram", "zipf-3-fit-vram", "bursts"])
def test_the_page_shows_what_the_command_prints(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    schedule.run(json_output=False, name=name)
    printed = [line.rstrip() for line in capsys.readouterr().out.splitlines() if line.strip()]
    shown = [line.rstrip() for line in PAGE.read_text(encoding="utf-8").splitlines() if line.strip()]
    start = shown.index(f"### {name}")
    assert shown[start : start + len(printed)] == printed


def test_the_page_has_every_trace_and_policy() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    assert [line[4:] for line in lines if line.startswith("### ")] == list(TRACES)
    for policy in POLICIES:
        assert sum(line.startswith(f"| {policy} ") for line in lines) == len(TRACES)
