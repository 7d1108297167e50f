"""Whose turn it may be: everything that comes before the price of loading.

Higher priority first, where each `age_step` of waiting counts as one step; inside one priority the clients that have
not had more than their share; of their prompts the oldest ones (the window); of those only as many as may be chosen
without passing one that has been passed often enough or long enough. What is left is free for `policy` to choose from.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from proxy.core.commands import Code
from proxy.core.job import Job
from proxy.core.jobs import RUNS, State
from proxy.core.ledger import Ledger
from proxy.core.overtaking import Passing
from proxy.core.settings import Settings, Validate
from proxy.core.waiting import Level

WINDOW = 64
"""So many prompts are looked at in one decision."""
MARGIN = 1.0
"""Seconds before `max_wait` is used up at which nothing more may pass: time enough to call a staged prompt back."""
INSTANT = 1e-6
"""Seconds that do not count: what rounding does to sums of times must not matter."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What may be sent next: `candidates` in their own order, never empty.

    `forced` says why there is no choice, where there is none; `barrier` is what ended the candidates, if anything
    did: one that must not be passed any more, or one that was given its place behind them.
    """

    candidates: tuple[Job, ...]
    held_back: frozenset[str]
    forced: Code | None = None
    barrier: Job | None = None


class Bounds:
    """How often and how long each prompt has been passed, against what is allowed."""

    def __init__(self, ledger: Ledger, settings: Settings, now: float) -> None:
        self._ledger = ledger
        self._now = now
        probing = sum(job.state is State.PROBING for job in ledger.upstream.values())
        kept_back = max(1, probing) if settings.validate is Validate.PROBE else probing
        # A probe that slips through passes everybody; so the last passing is never spent on purpose.
        self._max_count = settings.max_bypass - kept_back
        self._max_bypass = settings.max_bypass - probing
        self._max_seconds = settings.max_wait - min(MARGIN, settings.max_wait / 10)

    def passed(self, job: Job) -> tuple[int, float]:
        """By how many prompts it was passed, and for how many seconds of their run time."""
        count, seconds = 0, 0.0
        for passing in self._passings(job):
            count += 1
            seconds += passing.seconds(self._now)
        return count, seconds

    def used_up(self, job: Job) -> bool:
        """Nothing more may be sent past it on purpose."""
        count, seconds = self.passed(job)
        return count >= self._max_count or seconds >= self._max_seconds - INSTANT

    def bears_a_probe(self, job: Job) -> bool:
        """A probe may be sent: should it slip through, the bound still holds."""
        return self.passed(job)[0] < self._max_bypass

    def time_left(self, job: Job, besides: Job) -> tuple[float, bool]:
        """Seconds that what passes `job`, besides one prompt, may still run; and whether any of it runs just now."""
        passings = [passing for passing in self._passings(job) if passing.job is not besides]
        left = self._max_seconds - sum(passing.has_run(self._now) for passing in passings)
        return left, any(passing.job.started is not None for passing in passings)

    def _passings(self, job: Job) -> Iterable[Passing]:
        overtakings = self._ledger.overtakings.get(job.priority)
        return () if overtakings is None or job.fixed else overtakings.of(job)


def steps(submitted: float, settings: Settings, now: float) -> int:
    """Steps of priority gained by waiting since `submitted`."""
    return int(max(0.0, now - submitted + INSTANT) / settings.age_step)


def next_turn(ledger: Ledger, settings: Settings, now: float) -> Turn | None:
    """What may be sent next, or None when nothing may."""
    held_back = {
        priority: ledger.shares.held_back(priority, settings.fair_quantum) for priority in ledger.waiting.levels
    }
    picked = _pick_level(ledger, held_back, settings, now)
    if picked is None:
        return None
    level, steps_needed = picked
    window = [
        job
        for job in level.window(WINDOW, held_back[level.priority])
        if steps_needed <= 0 or steps(job.submitted, settings, now) >= steps_needed
    ]
    candidates, forced, barrier = _permitted(window, ledger, Bounds(ledger, settings, now))
    if not candidates:
        return None
    if forced is None and steps_needed > 0:
        forced = Code.AGED if len(candidates) == 1 else None
    return Turn(candidates, held_back[level.priority], forced, barrier)


def _pick_level(
    ledger: Ledger, held_back: Mapping[int, frozenset[str]], settings: Settings, now: float
) -> tuple[Level, int] | None:
    """The priority whose turn it is, and the steps that its prompts must have gained to take part."""
    best: tuple[int, int] | None = None
    others: list[tuple[int, int]] = []
    for priority, level in ledger.waiting.levels.items():
        # Who is held back does not lift the others of its priority.
        rank = (priority + steps(level.oldest_but(held_back[priority]), settings, now), priority)
        if best is None or rank > best:
            if best is not None:
                others.append(best)
            best = rank
        else:
            others.append(rank)
    if best is None:
        return None
    priority = best[1]
    # A prompt takes part only if it alone would come before the oldest of every other priority.
    needed = max((rank - priority + (other > priority) for rank, other in others), default=0)
    return ledger.waiting.levels[priority], needed


def _permitted(window: list[Job], ledger: Ledger, bounds: Bounds) -> tuple[tuple[Job, ...], Code | None, Job | None]:
    """The candidates that pass nobody who must not be passed any more; why there is no choice; the barrier."""
    limit = min((job.sequence for job in _in_doubt(window, ledger) if bounds.used_up(job)), default=None)
    seen: set[str] = set()
    permitted: list[Job] = []
    for job in window:
        if job.fixed:
            return ((job,), Code.PLACE, job) if not permitted else (tuple(permitted), None, job)
        if limit is not None and job.sequence > limit:
            break
        permitted.append(job)
        if job.client not in seen:
            # Of one client the oldest has been passed most: the others need not be asked.
            seen.add(job.client)
            if bounds.used_up(job):
                return tuple(permitted), Code.OVERDUE if len(permitted) == 1 else None, job
    return tuple(permitted), None, None


def _in_doubt(window: list[Job], ledger: Ledger) -> Iterator[Job]:
    """Prompts that cannot be chosen just now, but may wait again in a moment and can be passed meanwhile."""
    if window:
        priority = window[0].priority
        for job in ledger.upstream.values():
            if job.priority == priority and not job.fixed and job.state not in RUNS and job.state is not State.STAGED:
                yield job
        for job in ledger.behind_doubtful():
            if job.priority == priority and not job.fixed:
                yield job
