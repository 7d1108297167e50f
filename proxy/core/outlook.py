"""In which order the prompts will run, and when, as far as can be said now.

The queue has no order: each prompt is chosen when there is room for it, by what is loaded then, by who has had how
much, by who has been passed how often. So the only honest way to tell the order is to let the same policy choose again
and again, on a copy of the little it looks at, as if every prompt took as long as it is expected to and nobody came.

That is done for the next `LOOK_AHEAD` prompts. Those behind them stand in plain order, by priority and place, and are
taken to load for as long as those before them did on average: an estimate so far ahead is worth no more. What is staged
is taken to stay staged. Where the queue is paused, or ComfyUI away, times are as if that ended now.
"""

import heapq
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from normalizer.models import ModelSet
from proxy.core.commands import Code
from proxy.core.context import Context
from proxy.core.costs import Costs
from proxy.core.job import Job
from proxy.core.jobs import HELD, RUNS, State, Trigger
from proxy.core.ledger import Ledger
from proxy.core.overtaking import Overtakings
from proxy.core.policy import choose
from proxy.core.turns import WINDOW, next_turn, steps

LOOK_AHEAD = 100
"""So many prompts are chosen by the policy itself."""
_NEEDED = LOOK_AHEAD + WINDOW
"""So many prompts of one priority can be looked at meanwhile."""
_REMEMBERED = 32
"""So many different sets of components that ran before count for what is loaded."""

_NOT_TO_RUN = frozenset({State.PROBING, State.WITHDRAWING, State.CANCELLING})
_NOBODY = "\0"
"""A client that is not held back."""


@dataclass(frozen=True, slots=True)
class Expected:
    """When one prompt is expected to run, in seconds on the clock of `now`; one that runs has started in the past."""

    prompt_id: str
    start: float
    end: float


def outlook(context: Context, now: float, look_ahead: int = LOOK_AHEAD) -> Iterator[Expected]:
    """All prompts that have not ended and are not on their way out, in the order in which they are expected to run.

    Those at ComfyUI come first. To be read at once, from one state of the queue, which is not changed; each of the
    first `look_ahead` costs about as much as a decision, so whoever needs only some should ask for no more.
    """
    trial = _Trial(context, now)
    yield from trial.staged()
    seen = {item.prompt_id for item in trial.at_comfyui}
    for item in islice(trial.choices(), look_ahead):
        seen.add(item.prompt_id)
        yield item
    ledger, durations = context.ledger, context.ledger.durations
    moment, mean_load = trial.end, trial.mean_load
    called_back = (job for job in ledger.upstream.values() if job.state is State.RECALLING)
    others = sorted((*ledger.blocked(), *called_back, *ledger.doubtful.values()), key=_plainly)
    for job in heapq.merge(ledger.waiting, others, key=_plainly):
        if job.prompt_id not in seen:
            seconds = durations.estimate(job.workload, job.models) + mean_load
            yield Expected(job.prompt_id, moment, moment + seconds)
            moment += seconds


@dataclass(slots=True)
class _Past:
    """`Costs` after the prompts that have run in the trial. The same question is asked often, and answered once."""

    costs: Costs
    ran: dict[ModelSet, None] = field(default_factory=dict)
    _known: dict[tuple[ModelSet, ...], float] = field(default_factory=dict)

    def load_seconds(self, models: ModelSet, after: Sequence[ModelSet] = ()) -> float:
        # Only the last use of a component says whether it is still loaded.
        before = {**self.ran}
        for used in after:
            before.pop(used, None)
            before[used] = None
        key = (models, *before)
        seconds = self._known.get(key)
        if seconds is None:
            seconds = self._known[key] = self.costs.load_seconds(models, tuple(before))
        return seconds

    def add(self, models: ModelSet) -> None:
        """A prompt that needs these has run."""
        self.ran.pop(models, None)
        self.ran[models] = None
        if len(self.ran) > _REMEMBERED:
            del self.ran[next(iter(self.ran))]


class _Trial:
    """A copy of what the policy looks at, in which everything goes as expected."""

    def __init__(self, real: Context, now: float) -> None:
        self._past = _Past(real.costs)
        self._context = Context(settings=real.settings, costs=self._past, now=now)
        self._ledger = self._context.ledger
        self._ledger.durations = real.ledger.durations
        self._at: deque[Expected] = deque()
        self._loads: list[float] = []
        self.end = now + len(real.foreign) * real.ledger.durations.typical
        self._copy(real)
        self._place_staged()
        self.at_comfyui = tuple(self._at)

    @property
    def mean_load(self) -> float:
        """Seconds for which the prompts chosen so far load, on average."""
        return sum(self._loads) / len(self._loads) if self._loads else 0.0

    def staged(self) -> Iterator[Expected]:
        """What is at ComfyUI."""
        return iter(self.at_comfyui)

    def choices(self) -> Iterator[Expected]:
        """What the policy would choose, one after the other."""
        context, settings = self._context, self._context.settings
        while True:
            while self._at and len(self._at) >= settings.depth:
                self._finish()
            turn = next_turn(self._ledger, settings, context.now)
            while turn is None and self._at:
                self._finish()
                turn = next_turn(self._ledger, settings, context.now)
            if turn is None:
                return
            job = choose(turn, self._past, [job.models for job in self._ledger.at_comfyui()]).job
            self._loads.append(context.load_seconds(job))
            context.send(job, turn.held_back, context.reason(Code.FOUND, "expected to be sent"))
            self._pull(job, Trigger.DISPATCHED)
            self._stage(job)
            yield self._at[-1]

    def _stage(self, job: Job) -> None:
        start = self.end
        self.end = start + job.estimate
        self._at.append(Expected(job.prompt_id, start, self.end))

    def _finish(self) -> None:
        """The first prompt at ComfyUI runs. What is sent when one ends is chosen before the next is seen to begin."""
        first = self._at.popleft()
        job = self._ledger.jobs[first.prompt_id]
        if job.state not in RUNS:
            self._pull(job, Trigger.STARTED)
        self._context.now = max(self._context.now, first.end)
        job.ran = first.end - first.start
        self._past.add(job.models)
        self._pull(job, Trigger.SUCCEEDED)

    def _pull(self, job: Job, trigger: Trigger) -> None:
        self._context.pull(job, trigger, self._context.reason(Code.FOUND, "expected"))
        self._context.out.clear()

    def _copy(self, real: Context) -> None:
        jobs = {job.prompt_id: job for job in real.ledger.upstream.values() if job.state not in _NOT_TO_RUN}
        jobs |= {job.prompt_id: job for job in _shortlist(real, self._context.now)}
        served = {job.client: real.ledger.shares.served(job.client) for job in jobs.values()}
        for client, seconds in served.items():
            self._ledger.shares.charge(client, seconds)
        # Those at ComfyUI in its order; the others in the order of submission, as chains have to be.
        for job in sorted(jobs.values(), key=lambda job: (job.state in HELD, job.sequence)):
            self._ledger.add(_as_it_will_be(job))
        self._ledger.reorder_upstream(list(real.ledger.upstream))
        for level in list(self._ledger.waiting.levels.values()):
            self._copy_passings(real.ledger, level.priority)
            self._hold_back(real, level.priority)

    def _copy_passings(self, real: Ledger, priority: int) -> None:
        if priority not in real.overtakings:
            return
        copies = self._ledger.overtakings.setdefault(priority, Overtakings())
        everybody = replace(next(iter(self._ledger.waiting.levels[priority])), sequence=-1, client=_NOBODY)
        for passing in real.overtakings[priority].of(everybody):
            job = self._ledger.jobs.get(passing.job.prompt_id, passing.job)
            copies.send(job, passing.held_back, passing.reason)
            copies.ran(job, passing.ran)
            if passing.sent and job.state is not State.WAITING:
                copies.send(job, passing.held_back, passing.reason)

    def _hold_back(self, real: Context, priority: int) -> None:
        """Who is held back now stays so until the others have caught up."""
        quantum = self._context.settings.fair_quantum
        held = real.ledger.shares.would_hold_back(priority, quantum)
        for client in held:
            self._ledger.shares.charge(client, 2 * quantum)
        self._ledger.shares.held_back(priority, quantum)
        for client in held:
            self._ledger.shares.charge(client, -2 * quantum)

    def _place_staged(self) -> None:
        now, durations = self._context.now, self._ledger.durations
        for job in self._ledger.at_comfyui():
            job.estimate = job.estimate or durations.estimate(job.workload, job.models)
            if job.state in RUNS and job.started is not None:
                self.end = max(now, job.started + job.estimate)
                self._at.append(Expected(job.prompt_id, job.started, self.end))
            else:
                self._stage(job)


def _shortlist(real: Context, now: float) -> Iterator[Job]:
    """The prompts whose turn may come within the look-ahead, with those that follow them in their chains."""
    ledger, settings = real.ledger, real.settings
    levels = sorted(
        ledger.waiting.levels.values(),
        key=lambda level: level.priority + steps(level.oldest_submitted, settings, now),
        reverse=True,
    )
    found = 0
    for level in levels:
        held_back = ledger.shares.would_hold_back(level.priority, settings.fair_quantum)
        others = level.window(_NEEDED, held_back) if held_back else []
        for job in (*level.window(_NEEDED, ()), *others):
            found += 1
            yield from islice(ledger.chain(job), LOOK_AHEAD)
        if found > 2 * _NEEDED:
            return


def _as_it_will_be(job: Job) -> Job:
    """A copy, in the state that is expected to come of its present one."""
    state, sent = job.state, job.sent
    if state is State.RECALLING:
        state, sent = State.WAITING, False
    elif state in {State.DISPATCHING, State.UNCLEAR}:
        state = State.STAGED if job.started is None else State.RUNNING
    return replace(job, state=state, sent=sent, reasons=[])


def _plainly(job: Job) -> tuple[int, float, str]:
    return -job.priority, job.place, job.prompt_id
