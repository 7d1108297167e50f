"""Playing a trace in virtual time: through a rival's policy, or through the real scheduler as the engine runs it."""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

from bench.memory import Cache, Load, Memory
from bench.policies import Rival, Wait
from bench.traces import Prompt, Trace
from normalizer.models import ModelSet
from proxy.core import commands as do
from proxy.core import events as ev
from proxy.core.costs import LoadCosts, ResidentCosts
from proxy.core.outlook import outlook
from proxy.core.scheduler import Scheduler
from proxy.core.settings import Settings

PLANNED = 16
FORESIGHT = 64
"""The engine shows the pins so many waiting prompts, the first ones in the order the policy is expected to choose."""


@dataclass(frozen=True, slots=True)
class Run:
    """One prompt ran: `index` is its place in the trace, times in seconds."""

    index: int
    start: float
    end: float


@dataclass(slots=True)
class Record:
    """All runs of a trace, in order, and what was loaded."""

    trace: Trace
    runs: list[Run] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)

    @property
    def load_seconds(self) -> float:
        """Seconds of loading in all."""
        return sum(load.seconds for load in self.loads)

    @property
    def makespan(self) -> float:
        """From the first arrival to the last end."""
        return max(run.end for run in self.runs) - self.trace.prompts[0].at

    @property
    def waits(self) -> list[float]:
        """Seconds from each prompt's arrival to its start, sorted."""
        return sorted(run.start - self.trace.prompts[run.index].at for run in self.runs)

    def begin(self, index: int, now: float, memory: Memory, foresight: Sequence[ModelSet] = ()) -> Run:
        """A prompt runs now."""
        prompt = self.trace.prompts[index]
        loads = memory.run(prompt.models, now, foresight)
        run = Run(index, now, now + sum(load.seconds for load in loads) + prompt.seconds)
        self.runs.append(run)
        self.loads += loads
        return run


def play_rival(trace: Trace, rival: Rival) -> Record:
    """Play a trace through a rival's policy."""
    record = Record(trace)
    memory = Memory(trace.machine, trace.sizes, rival.cache)
    arriving = deque(range(len(trace.prompts)))
    waiting: list[int] = []
    now = idle_since = trace.prompts[0].at
    while arriving or waiting:
        while arriving and trace.prompts[arriving[0]].at <= now:
            waiting.append(arriving.popleft())
        if not waiting:
            now = trace.prompts[arriving[0]].at
            continue
        choice = rival.choose([trace.prompts[index] for index in waiting], now, idle_since, memory)
        if isinstance(choice, Wait):
            now = min(choice.until, trace.prompts[arriving[0]].at) if arriving else choice.until
            continue
        now = idle_since = record.begin(waiting.pop(choice), now, memory).end
    return record


def play_ours(trace: Trace, settings: Settings) -> Record:
    """Play a trace through the scheduler: at most `depth` prompts at ComfyUI, probes, recalls and all."""
    return _Player(trace, settings).play()


class _Player:
    """A ComfyUI that answers at once, and the shell around the scheduler."""

    def __init__(self, trace: Trace, settings: Settings) -> None:
        self.trace = trace
        self.memory = Memory(trace.machine, trace.sizes, Cache.PINNED)
        self.learned = LoadCosts()
        costs = ResidentCosts(self.learned, self.memory, trace.sizes.__getitem__, trace.machine.model_vram)
        self.scheduler = Scheduler(costs, settings)
        self.record = Record(trace)
        self._arriving = deque(range(len(trace.prompts)))
        self._queue: deque[tuple[int, tuple[ModelSet, ...]]] = deque()
        self._running: Run | None = None
        self._told: deque[ev.Event] = deque()

    def play(self) -> Record:
        """Until everything has run."""
        self._tell(ev.UpstreamReady(new_process=True), 0.0)
        while self._arriving or self._running is not None:
            arrival = self.trace.prompts[self._arriving[0]].at if self._arriving else math.inf
            end = math.inf if self._running is None else self._running.end
            wakeup = self.scheduler.next_wakeup()
            now = min(arrival, end, math.inf if wakeup is None else wakeup)
            if now == end:
                self._finish(now)
            elif now == arrival:
                index = self._arriving.popleft()
                self._tell(_submission(index, self.trace.prompts[index]), now)
            else:
                self._tell(ev.Tick(), now)
            self._start(now)
        if len(self.record.runs) < len(self.trace.prompts):
            raise RuntimeError(f"{self.trace.name}: {len(self.scheduler.context.ledger.waiting)} prompts never ran")
        return self.record

    def _tell(self, event: ev.Event, now: float) -> None:
        self._told.append(event)
        while self._told:
            for command in self.scheduler.handle(self._told.popleft(), now):
                self._perform(command, now)

    def _perform(self, command: do.Command, now: float) -> None:
        match command:
            case do.Probe(prompt_id):
                self._told.append(ev.ProbeAccepted(prompt_id))
            case do.Dispatch(prompt_id):
                self._queue.append((int(prompt_id), self._foresight(now)))
                self._told.append(ev.Dispatched(prompt_id))
            case do.Recall(prompt_id):
                self._queue = deque(item for item in self._queue if item[0] != int(prompt_id))
                self._told.append(ev.RecallDone(prompt_id, started=False))
            case _:
                pass

    def _foresight(self, now: float) -> tuple[ModelSet, ...]:
        """What the engine tells the pins: the components of the prompts that are expected next, the next one first."""
        context = self.scheduler.context
        sent = {job.prompt_id for job in context.ledger.at_comfyui()}
        expected = (item.prompt_id for item in outlook(context, now, PLANNED) if item.prompt_id not in sent)
        return tuple(context.ledger.jobs[prompt_id].models for prompt_id in islice(expected, FORESIGHT))

    def _start(self, now: float) -> None:
        if self._running is None and self._queue:
            index, foresight = self._queue.popleft()
            before = len(self.record.loads)
            self._running = self.record.begin(index, now, self.memory, foresight)
            for load in self.record.loads[before:]:
                self.learned.observe(load.ref, load.tier, load.seconds, self.trace.sizes[load.ref])
            self._tell(ev.Started(str(index)), now)

    def _finish(self, now: float) -> None:
        assert self._running is not None  # noqa: S101 - the caller has looked
        run, self._running = self._running, None
        seconds = run.end - run.start
        load_seconds = seconds - self.trace.prompts[run.index].seconds
        self._tell(ev.Finished(str(run.index), ev.Outcome.SUCCESS, seconds, load_seconds), now)


def _submission(index: int, prompt: Prompt) -> ev.Submitted:
    return ev.Submitted(prompt_id=str(index), client=prompt.client, models=prompt.models, priority=prompt.priority)
