"""`comfykeep bench decisions`: how long the scheduler takes for one event while very many prompts wait.

An event is what the engine feeds to the queue: here the submission of one more prompt, and the end of one that ran,
after which the next is chosen. Time is that of the process, in microseconds, on one core.
"""

import json
import random
import statistics
import time
from collections import deque
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench.traces import GB
from normalizer.models import ModelRef, ModelSet
from proxy.core import commands as do
from proxy.core import events as ev
from proxy.core.costs import LoadCosts, ResidentCosts
from proxy.core.scheduler import Scheduler
from proxy.core.settings import Settings
from proxy.core.tiers import Tier

WAITING = 10_000
MEASURED = 300
"""Events of each kind that are timed."""
CLIENTS = 7
SEED = 1
SIZES = {
    ModelRef("CLIPLoader", ("encoder",)): 9 * GB,
    ModelRef("VAELoader", ("decoder",)): GB // 3,
    ModelRef("UNETLoader", ("model-a",)): 12 * GB,
    ModelRef("UNETLoader", ("model-b",)): 12 * GB,
    **{ModelRef("LoraLoader", (f"lora-{number}",)): GB // 3 for number in range(64)},
}
_REFS = list(SIZES)


@dataclass(frozen=True, slots=True)
class Row:
    """Microseconds for one event, by how many different sets of components the waiting prompts need."""

    sets: int
    waiting: int
    submission_median_us: float
    submission_p99_us: float
    end_median_us: float
    end_p99_us: float


class _Cold:
    """All on disk: the most there is to weigh."""

    def tier(self, _: ModelRef) -> Tier:
        return Tier.COLD


class _Bench:
    """A scheduler whose every wish is granted at once."""

    def __init__(self) -> None:
        costs = ResidentCosts(LoadCosts(), _Cold(), SIZES.__getitem__, 22 * GB)
        self._scheduler = Scheduler(costs, Settings(max_waiting=2 * WAITING))
        self._queue: deque[str] = deque()
        self._now = 0.0
        self.tell(ev.UpstreamReady(new_process=True))

    def tell(self, event: ev.Event) -> float:
        """Microseconds that this event took; what follows from it is done, and not counted."""
        began = time.process_time()
        commands = self._scheduler.handle(event, self._now)
        took = time.process_time() - began
        for command in commands:
            match command:
                case do.Probe(prompt_id):
                    self.tell(ev.ProbeAccepted(prompt_id))
                case do.Dispatch(prompt_id):
                    self._queue.append(prompt_id)
                    self.tell(ev.Dispatched(prompt_id))
                case do.Recall(prompt_id):
                    self._queue.remove(prompt_id)
                    self.tell(ev.RecallDone(prompt_id, started=False))
                case _:
                    pass
        return took * 1e6

    def run_one(self) -> float:
        """The next prompt runs; microseconds for its end."""
        prompt_id = self._queue.popleft()
        self.tell(ev.Started(prompt_id))
        self._now += 10.0
        return self.tell(ev.Finished(prompt_id, ev.Outcome.SUCCESS, 10.0, 1.0))


def measure(sets: int, waiting: int, measured: int) -> Row:
    """Let prompts with so many different sets of components wait, and time events."""
    chance, bench = random.Random(SEED), _Bench()
    times = [
        bench.tell(
            ev.Submitted(
                prompt_id=str(number), client=f"client-{number % CLIENTS}", models=_models(chance.randrange(sets))
            )
        )
        for number in range(waiting)
    ]
    submissions = sorted(times[-measured:])
    ends = sorted(bench.run_one() for _ in range(measured))
    return Row(
        sets,
        waiting,
        statistics.median(submissions),
        submissions[len(submissions) * 99 // 100],
        statistics.median(ends),
        ends[len(ends) * 99 // 100],
    )


def _models(number: int) -> ModelSet:
    encoder, decoder, first, second, *loras = _REFS
    return frozenset({encoder, decoder, (first, second)[number % 2], loras[number]})


def run(json_output: bool) -> None:
    """Measure, and print a table or JSON."""
    kinds = (1, 8, 64)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        rows = [measure(sets, WAITING, MEASURED) for sets in progress.track(kinds, description="decisions")]
    if json_output:
        print(json.dumps({"decisions": [asdict(row) for row in rows]}, indent=2))  # noqa: T201 - the answer of a command
        return
    table = Table(title=f"One event with {WAITING:,} prompts waiting", caption="microseconds, one core")
    for heading in ("sets of components", "submission, median", "p99", "end of a run, median", "p99"):
        table.add_column(heading, justify="right")
    for row in rows:
        times = (row.submission_median_us, row.submission_p99_us, row.end_median_us, row.end_p99_us)
        table.add_row(str(row.sets), *(f"{each:,.0f}" for each in times))
    Console().print(table)
