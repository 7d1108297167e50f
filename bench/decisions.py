"""`comfykeep bench decisions`: how long the scheduler takes for one event while very many prompts wait.

An event is what the engine feeds to the queue: here the submission of one more prompt, and the end of one that ran,
after which the next is chosen. Where the models are is told by the model of ComfyUI's memory that the proxy has, which
follows the runs, with the last sixteen components carried along. Time is that of the process, in microseconds, on one
core.
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
from normalizer import Chain
from normalizer.models import ModelRef, ModelSet
from proxy.core import commands as do
from proxy.core import events as ev
from proxy.core.budget import Machine
from proxy.core.costs import LoadCosts, ResidentCosts
from proxy.core.evidence import Ending, NodesCached, Part, PromptEnded, PromptSent, PromptStarted, UpstreamStarted, Use
from proxy.core.flags import UpstreamFlags
from proxy.core.residency import Residency
from proxy.core.scheduler import Scheduler
from proxy.core.settings import Settings
from proxy.core.sizes import Sizes

WAITING = 10_000
MEASURED = 300
"""Events of each kind that are timed."""
CLIENTS = 7
RAM, VRAM = 128 * GB, 24 * GB
PINS = 16
SEED = 1
SIZES = {
    ModelRef("CLIPLoader", ("encoder",)): 9 * GB,
    ModelRef("VAELoader", ("decoder",)): GB // 3,
    ModelRef("UNETLoader", ("model-a",)): 12 * GB,
    ModelRef("UNETLoader", ("model-b",)): 12 * GB,
    **{ModelRef("LoraLoader", (f"lora-{number}",)): GB // 3 for number in range(64)},
}
_REFS = list(SIZES)
_FIRST_ID = 10**16
"""Stable ids have 16 digits or more."""


@dataclass(frozen=True, slots=True)
class Row:
    """Microseconds for one event, by how many different sets of components the waiting prompts need."""

    sets: int
    waiting: int
    submission_median_us: float
    submission_p99_us: float
    end_median_us: float
    end_p99_us: float


class _Comfy:
    """ComfyUI's memory as the proxy follows it: each prompt carries the components used last."""

    def __init__(self) -> None:
        sizes = Sizes({ref.files[0]: size for ref, size in SIZES.items()})
        self._residency = Residency(sizes, LoadCosts())
        self._residency.handle(UpstreamStarted(UpstreamFlags(), Machine(RAM, RAM, VRAM), fresh=True), 0.0)
        self._last: deque[ModelRef] = deque(maxlen=PINS)
        self.costs = ResidentCosts(self._residency.costs, self._residency, sizes.bytes_of, VRAM)

    def begin(self, prompt_id: str, models: ModelSet, now: float) -> None:
        own, pins = sorted(models), [ref for ref in self._last if ref not in models]
        refs = {_node_id(ref): ref for ref in (*own, *pins)}
        chains = {ref: _chain(ref) for ref in refs.values()}
        prompt = {node_id: node for chain in chains.values() for node_id, node in chain.nodes.items()}
        of_own, of_pins = (tuple(chains[ref] for ref in some) for some in (own, pins))
        self._residency.handle(PromptSent(prompt_id, of_own, of_pins, refs, prompt), now)
        self._residency.handle(PromptStarted(prompt_id), now)
        self._residency.handle(NodesCached(prompt_id, frozenset(map(_node_id, self._last))), now)
        self._last.extend(own)

    def end(self, prompt_id: str, models: ModelSet, now: float) -> None:
        seconds = {_node_id(ref): 1.0 for ref in models}
        use = Use(frozenset(Part(ref, "MODEL", 1.0) for ref in models), "KSampler", 1.0, 0.5)
        self._residency.handle(PromptEnded(prompt_id, Ending.SUCCESS, seconds, (use,)), now)


def _node_id(ref: ModelRef) -> str:
    return str(_FIRST_ID + _REFS.index(ref))


def _chain(ref: ModelRef) -> Chain:
    node_id = _node_id(ref)
    nodes = {node_id: {"class_type": ref.class_type, "inputs": {"name": ref.files[0]}}}
    return Chain(node_id, node_id, nodes, frozenset({ref}))


class _Bench:
    """A scheduler whose every wish is granted at once."""

    def __init__(self) -> None:
        self._comfy = _Comfy()
        self._scheduler = Scheduler(self._comfy.costs, Settings(max_waiting=2 * WAITING))
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
        models = self._scheduler.context.ledger.jobs[prompt_id].models
        self._comfy.begin(prompt_id, models, self._now)
        self.tell(ev.Started(prompt_id))
        self._now += 10.0
        self._comfy.end(prompt_id, models, self._now)
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
