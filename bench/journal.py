"""What it costs to have a prompt on disk before its client is answered.

Every submission waits for a commit. How long, and how many fit into a second, depends on whether the journal asks the
disk to make sure (`sync = "full"`), on the disk, and on how many clients submit at once, because commits are shared.
So: clients that each submit one prompt after the other, for each way of syncing, into a journal on the disk that is
asked about; and, as a measure of that disk, a bare write of a page followed by `fsync`.
"""

import asyncio
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from proxy.journal import Journal
from proxy.journal_records import Record, Sync

CONCURRENCIES: Final = (1, 8, 64, 256)
PROMPTS: Final = 2048
"""Submissions for each row of the table."""

FSYNCS: Final = 50


@dataclass(frozen=True, slots=True)
class Row:
    """One way of submitting. Latencies are those of `Journal.accept`, in milliseconds."""

    sync: str
    concurrency: int
    prompts: int
    accepted_per_second: float
    latency_median_ms: float
    latency_p99_ms: float


@dataclass(frozen=True, slots=True)
class Report:
    """The whole table, with the size of a prompt in bytes and what one `fsync` takes, in milliseconds."""

    body_bytes: int
    fsync_median_ms: float
    rows: tuple[Row, ...]


def run(json_output: bool, folder: Path | None = None, prompts: int = PROMPTS) -> None:
    """Measure, and print a table or JSON. The journal is made in `folder`, by default the one for temporary files.

    A folder in memory (tmpfs) makes `full` look as fast as `normal`; name one on the disk that the journal will be on.
    """
    report = asyncio.run(measure(folder, prompts))
    if json_output:
        print(json.dumps(asdict(report), indent=2))  # noqa: T201 - what the command is for
        return
    table = Table(title="Accepting prompts into the journal", caption=_caption(report))
    table.add_column("sync")
    for heading in ("clients", "prompts/s", "median ms", "p99 ms"):
        table.add_column(heading, justify="right")
    for row in report.rows:
        rate, median, p99 = (
            f"{row.accepted_per_second:,.0f}",
            f"{row.latency_median_ms:.2f}",
            f"{row.latency_p99_ms:.1f}",
        )
        table.add_row(row.sync, str(row.concurrency), rate, median, p99)
    Console().print(table)


async def measure(folder: Path | None, prompts: int = PROMPTS) -> Report:
    """All rows, `prompts` submissions each, the same prompts for each."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="comfykeep-bench-") as name:
        fsync = await asyncio.to_thread(_fsync_seconds, Path(name))
        bodies = [_body(number) for number in range(prompts)]
        rows = [
            await _row(Path(name) / f"{sync}-{concurrency}.db", sync, concurrency, bodies)
            for sync in Sync
            for concurrency in CONCURRENCIES
        ]
    return Report(len(bodies[0]), fsync * 1000, tuple(rows))


async def _row(path: Path, sync: Sync, concurrency: int, bodies: Sequence[bytes]) -> Row:
    latencies: list[float] = []

    async def client(journal: Journal, share: Iterator[Record]) -> None:
        for record in share:
            began = time.perf_counter()
            await journal.accept(record)
            latencies.append(time.perf_counter() - began)

    async with await Journal.open(path, sync) as journal:
        share = map(_record, count(1), bodies)
        began = time.perf_counter()
        async with asyncio.TaskGroup() as clients:
            for _ in range(concurrency):
                clients.create_task(client(journal, share))
        seconds = time.perf_counter() - began
    return Row(
        sync=sync.value,
        concurrency=concurrency,
        prompts=len(latencies),
        accepted_per_second=len(latencies) / seconds,
        latency_median_ms=statistics.median(latencies) * 1000,
        latency_p99_ms=statistics.quantiles(latencies, n=100)[98] * 1000,
    )


def _record(sequence: int, body: bytes) -> Record:
    return Record(
        prompt_id=f"00000000-0000-4000-8000-{sequence:012d}",
        sequence=sequence,
        body=body,
        answer=b'{"prompt_id": "00000000-0000-4000-8000-000000000000", "number": 1, "node_errors": {}}',
        submitted=float(sequence),
        state="waiting",
        client_id="bench",
    )


def _body(seed: int) -> bytes:
    """A submission of the size that pages send: forty nodes, and the page's own workflow, with a seed and a text."""
    chance = random.Random(seed)
    words = " ".join(chance.choices(("a", "red", "fox", "under", "old", "trees", "at", "dawn", "in", "fog"), k=60))
    nodes = {
        str(number): {
            "class_type": "KSampler",
            "inputs": {"seed": chance.getrandbits(64), "text": words, "steps": 20, "model": [str(number - 1), 0]},
            "_meta": {"title": f"Node {number}"},
        }
        for number in range(40)
    }
    workflow = {"nodes": [{"id": number, "pos": [chance.random(), chance.random()]} for number in range(40)]}
    return json.dumps({"prompt": nodes, "extra_data": {"extra_pnginfo": {"workflow": workflow}}}).encode()


def _fsync_seconds(folder: Path) -> float:
    """The median time to write 4 KiB and make sure that they are on the disk."""
    times: list[float] = []
    with (folder / "page").open("wb", buffering=0) as file:
        for _ in range(FSYNCS):
            began = time.perf_counter()
            file.write(bytes(4096))
            os.fsync(file.fileno())
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def _caption(report: Report) -> str:
    return (
        f"prompts of {report.body_bytes / 1000:.1f} kB; a bare 4 KiB fsync takes {report.fsync_median_ms:.2f} ms here"
    )
