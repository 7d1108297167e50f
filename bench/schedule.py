"""`comfykeep bench schedule`: the order of the queue against others' ways to order it, in virtual time.

Each policy gets the same prompts and the same model of ComfyUI's memory, and is judged by what came of it: seconds of
loading, the time until all is done, how long clients waited, how often a prompt was overtaken, and whether the promises
of docs/scheduling.md were kept. Ours is the real scheduler with the settings that a fresh installation has. Below each
table stands what was aimed at, and whether it was reached.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.box import MARKDOWN
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench.bounds import Bound, lower_bound
from bench.errors import BenchError
from bench.playing import Record, play_ours, play_rival
from bench.policies import RIVALS
from bench.promises import judge
from bench.trace_file import read
from bench.traces import TRACES, Trace
from proxy.core.settings import Settings

OURS = "comfykeep"
YARDSTICK = "fifo, pins"
"""What ComfyUI would do behind the proxy without a held queue: the waits are compared with it."""
MAKESPAN_SLACK = 1.02
LOAD_SLACK = 1.1
ROUNDING = 1e-6
POLICIES = (*(rival.name for rival in RIVALS), OURS)
WIDTH = 120
"""Columns of the tables, wherever they are printed: docs/benchmarks.md is made of them."""


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one policy; times in seconds."""

    policy: str
    loads: int
    load_seconds: float
    makespan: float
    wait_median: float
    wait_p99: float
    worst_overtaken: int
    bounds_hold: bool


@dataclass(frozen=True, slots=True)
class Report:
    """One trace."""

    trace: str
    bound: Bound
    rows: Sequence[Row]

    def row(self, policy: str) -> Row:
        """What came of this policy."""
        return next(row for row in self.rows if row.policy == policy)


@dataclass(frozen=True, slots=True)
class Goal:
    """Something aimed at, with the figures that say whether it was reached."""

    text: str
    reached: bool


def run(*, json_output: bool, name: str | None = None, file: Path | None = None) -> None:
    """Play the traces through all policies, and print tables or JSON.

    Args:
        json_output: JSON instead of tables.
        name: only this built-in trace.
        file: a trace file instead of the built-in traces.

    Raises:
        BenchError: for an unknown name, or a file that cannot be used.
    """
    traces = _chosen(name, file)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("schedule", total=len(traces) * len(POLICIES))
        reports = [measure(trace, lambda: progress.advance(task)) for trace in traces]
    if json_output:
        print(json.dumps(as_json(reports), indent=2))  # noqa: T201 - the answer of a command
        return
    console = Console(width=WIDTH)
    for report in reports:
        console.print(*render(report), sep="\n", highlight=False)


def _chosen(name: str | None, file: Path | None) -> list[Trace]:
    if file is not None:
        if name is not None:
            raise BenchError("--trace and --trace-file exclude each other: leave one out")
        return [read(file)]
    if name is None:
        return [make(each) for each, make in TRACES.items()]
    if name not in TRACES:
        raise BenchError(f"there is no trace {name!r}; there are {', '.join(TRACES)}")
    return [TRACES[name](name)]


def measure(trace: Trace, step: Callable[[], None]) -> Report:
    """Play one trace through all policies; `step` is called after each."""
    settings = Settings()
    rows = []
    for rival in RIVALS:
        rows.append(_row(rival.name, play_rival(trace, rival), settings))
        step()
    rows.append(_row(OURS, play_ours(trace, settings), settings))
    step()
    return Report(trace.name, lower_bound(trace), rows)


def _row(policy: str, record: Record, settings: Settings) -> Row:
    verdict = judge(record, settings)
    waits = record.waits
    return Row(
        policy,
        len(record.loads),
        record.load_seconds,
        record.makespan,
        waits[len(waits) // 2],
        waits[len(waits) * 99 // 100],
        verdict.worst_overtaken,
        verdict.bounds_hold,
    )


def goals(report: Report) -> list[Goal]:
    """What ours aims at."""
    ours, fifo = report.row(OURS), report.row(YARDSTICK)
    first = min((row for row in report.rows if row.bounds_hold), key=lambda row: row.makespan, default=ours)
    least = report.bound.load_seconds
    return [
        Goal(f"the bounds hold: overtaken {ours.worst_overtaken} times at most", ours.bounds_hold),
        Goal(
            f"p99 wait no worse than that of `{YARDSTICK}`: {ours.wait_p99:,.1f} s, {fifo.wait_p99:,.1f} s",
            ours.wait_p99 <= fifo.wait_p99 + ROUNDING,
        ),
        Goal(
            "makespan within 2 % of the best that keeps the bounds:"
            f" {ours.makespan:,.1f} s, {first.makespan:,.1f} s (`{first.policy}`)",
            ours.makespan <= first.makespan * MAKESPAN_SLACK,
        ),
        Goal(
            f"load seconds within 10 % of the lower bound: {ours.load_seconds:,.1f} s, {least:,.1f} s",
            ours.load_seconds <= least * LOAD_SLACK + ROUNDING,
        ),
    ]


def as_json(reports: Iterable[Report]) -> dict[str, object]:
    """The same for programs."""
    return {
        "traces": [
            {
                "trace": report.trace,
                "lower_bound_load_seconds": report.bound.load_seconds,
                "policies": [asdict(row) for row in report.rows],
            }
            for report in reports
        ]
    }


def render(report: Report) -> list[Table | str]:
    """The table of one trace, in Markdown, with its goals below."""
    table = Table(box=MARKDOWN)
    for heading in (
        "policy",
        "loads",
        "load s",
        "makespan s",
        "median wait s",
        "p99 wait s",
        "overtaken",
        "bounds hold",
    ):
        table.add_column(heading, justify="left" if heading == "policy" else "right")
    for row in report.rows:
        times = (row.load_seconds, row.makespan, row.wait_median, row.wait_p99)
        kept = "yes" if row.bounds_hold else "no"
        table.add_row(row.policy, str(row.loads), *(f"{t:,.1f}" for t in times), str(row.worst_overtaken), kept)
    kind = "the offline optimum" if report.bound.exact else "a relaxation"
    marks = [f"- {'reached' if goal.reached else 'MISSED'}: {goal.text}" for goal in goals(report)]
    bound = f"Lower bound on load seconds: {report.bound.load_seconds:,.1f} ({kind})."
    return [f"### {report.trace}", table, bound, "", *marks, ""]
