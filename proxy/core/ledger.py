"""All prompts the scheduler knows, and every index over them, changed in one place.

A prompt that moves from one state to another may have to appear in the waiting index, leave it, free the next one of
its chain, count as an overtaker, be charged to its client. Each of these is easy to forget at one of thirty places
where prompts move; here there is one.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from proxy.core.commands import Code, Reason
from proxy.core.durations import Durations
from proxy.core.fairness import Shares
from proxy.core.job import Job
from proxy.core.jobs import ENDED, HELD, RUNS, UPSTREAM, State, Trigger, next_state
from proxy.core.overtaking import Overtakings
from proxy.core.waiting import Waiting

ENDED_KEPT = 1_000
"""So many prompts that have ended are remembered, for their stories."""

_SENT = frozenset({State.STAGED, State.RUNNING, State.INTERRUPTING})
"""ComfyUI will run these before whatever is sent after them."""


class Ledger:
    """The prompts and their indexes. Attributes are for reading; `add`, `move`, `accept` and the like change them."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.waiting = Waiting()
        self.arrived: dict[str, Job] = {}
        self.upstream: dict[str, Job] = {}
        """At ComfyUI or possibly so, in the order in which ComfyUI will run them."""
        self.doubtful: dict[str, Job] = {}
        """They have run, and it is not known yet whether they are to run again."""
        self.overtakings: dict[int, Overtakings] = {}
        self.shares = Shares()
        self.durations = Durations()
        self.accepted = 0
        """How many have not ended, and their clients know that they are accepted. Asked for at every event."""
        self._chains: dict[tuple[str, str], dict[str, Job]] = {}
        self._blocked: set[str] = set()
        self._ended: deque[str] = deque()

    @property
    def held(self) -> int:
        """Prompts that are only here."""
        return len(self.waiting) + len(self._blocked)

    def unfinished(self) -> Iterator[Job]:
        """All prompts that have not ended; those that only wait come first."""
        yield from self.waiting
        yield from self.blocked()
        yield from self.upstream.values()
        yield from self.doubtful.values()

    def add(self, job: Job) -> None:
        """Take in a new prompt, in the order of submission."""
        self.jobs[job.prompt_id] = job
        self.accepted += job.answered
        if job.order_key is not None:
            self._chains.setdefault((job.client, job.order_key), {})[job.prompt_id] = job
        if job.state in HELD:
            self._enter(job)
        else:
            self.upstream[job.prompt_id] = job

    def add_ended(self, job: Job, run_seconds: float | None) -> None:
        """Take in one that had ended before; `run_seconds` is None if it never ran."""
        self.jobs[job.prompt_id] = job
        self._remember_ended(job)
        if run_seconds is not None and not job.fixed:
            overtakings = self.overtakings.setdefault(job.priority, Overtakings())
            overtakings.send(job, frozenset(), Reason(Code.DONE, "ran before this process began"))
            overtakings.ran(job, run_seconds)

    def chain(self, job: Job) -> list[Job]:
        """The prompts of its chain that have not ended, in order; it alone when it has none."""
        if job.order_key is None:
            return [job]
        return list(self._chains[job.client, job.order_key].values())

    def predecessor(self, client: str, order_key: str) -> Job | None:
        """The last prompt of a chain so far."""
        chain = self._chains.get((client, order_key))
        return next(reversed(chain.values())) if chain else None

    def blocked_by(self, job: Job) -> Job | None:
        """The prompt of its chain that has to be sent first."""
        if job.prompt_id not in self._blocked:
            return None
        return next(other for other in self.chain(job) if other.state not in _SENT)

    def blocked(self) -> Iterator[Job]:
        """The prompts that wait for one of their chain to be sent."""
        return (self.jobs[prompt_id] for prompt_id in self._blocked)

    def behind_doubtful(self) -> Iterator[Job]:
        """Of each chain with a prompt that may have to run again, the oldest that waits until that is known."""
        for job in self.doubtful.values():
            if (held := next((other for other in self.chain(job) if other.state in HELD), None)) is not None:
                yield held

    def move(self, job: Job, trigger: Trigger) -> bool:
        """Change its state; False where the trigger is ignored.

        Raises:
            IllegalTransitionError: see `jobs.next_state`.
        """
        target = next_state(job.state, trigger)
        if target is None:
            return False
        before, job.state = job.state, target
        if before in HELD and target not in HELD:
            self._leave(job, before)
        elif before is State.ARRIVED:
            del self.arrived[job.prompt_id]
        if target in UPSTREAM:
            self.upstream.setdefault(job.prompt_id, job)
        else:
            self.upstream.pop(job.prompt_id, None)
        if target is State.DOUBTFUL:
            self.doubtful[job.prompt_id] = job
        else:
            self.doubtful.pop(job.prompt_id, None)
        if target in HELD and before not in HELD:
            self._enter(job)
        if target in ENDED:
            self._end(job)
        else:
            self._free_chain(job)
        return True

    def accept(self, job: Job) -> None:
        """Its client is told that it is accepted."""
        job.answered = True
        self.accepted += job.state not in ENDED

    def pass_others(self, job: Job, held_back: frozenset[str], reason: Reason) -> None:
        """It is sent to run now, and may pass others."""
        job.sent = True
        job.sent_at = reason.at
        if not job.fixed:
            self.overtakings.setdefault(job.priority, Overtakings()).send(job, held_back, reason)

    def begin(self, job: Job) -> None:
        """It runs: its client is charged what it is expected to take. What is only staged costs nobody anything."""
        self._charge(job, job.estimate)

    def stand_back(self, job: Job) -> None:
        """It was not run after all."""
        job.sent = False
        job.sent_at = None
        if job.priority in self.overtakings:
            self.overtakings[job.priority].stand_back(job)

    def measure(self, job: Job, seconds: float) -> None:
        """It ran so long, from start to end."""
        job.sent = False
        if job.priority in self.overtakings:
            self.overtakings[job.priority].ran(job, seconds)
        self._charge(job, seconds)
        job.charged = 0.0

    def replace(self, job: Job, place: float) -> None:
        """Give it a fixed place."""
        indexed = job.state in HELD and job.prompt_id not in self._blocked
        if indexed:
            self._unindex(job)
        job.place, job.fixed = place, True
        if indexed:
            self._index(job)

    def reorder_upstream(self, order: list[str]) -> None:
        """ComfyUI will run its prompts in this order."""
        ranks = {prompt_id: rank for rank, prompt_id in enumerate(order)}
        self.upstream = dict(sorted(self.upstream.items(), key=lambda item: ranks.get(item[0], len(ranks))))

    def running(self) -> Job | None:
        """The prompt that runs."""
        return next((job for job in self.upstream.values() if job.state in RUNS), None)

    def at_comfyui(self) -> list[Job]:
        """The prompts that ComfyUI will run for certain, in its order."""
        return [job for job in self.upstream.values() if job.state in _SENT]

    @contextmanager
    def supposing_it_waits(self, job: Job) -> Iterator[None]:
        """For the length of a question, a staged prompt is among those that wait."""
        overtakings = self.overtakings.get(job.priority)
        passing = overtakings.take_out(job) if overtakings is not None else None
        job.state = State.WAITING
        self._index(job)
        self._free_chain(job)
        try:
            yield
        finally:
            self._unindex(job)
            job.state = State.STAGED
            self._free_chain(job)
            if overtakings is not None and passing is not None:
                overtakings.put_back(passing)

    def _charge(self, job: Job, seconds: float) -> None:
        self.shares.charge(job.client, seconds - job.charged)
        job.charged = seconds

    def _enter(self, job: Job) -> None:
        if job.state is State.ARRIVED:
            self.arrived[job.prompt_id] = job
        if job.order_key is not None and any(
            other.sequence < job.sequence and other.state not in _SENT for other in self.chain(job)
        ):
            self._blocked.add(job.prompt_id)
        else:
            self._index(job)

    def _leave(self, job: Job, before: State) -> None:
        if before is State.ARRIVED:
            del self.arrived[job.prompt_id]
        if job.prompt_id in self._blocked:
            self._blocked.discard(job.prompt_id)
        else:
            self._unindex(job)

    def _index(self, job: Job) -> None:
        if self.waiting.add(job):
            self.shares.join(job.client, job.priority)

    def _unindex(self, job: Job) -> None:
        if self.waiting.remove(job):
            self.shares.leave(job.client, job.priority)

    def _free_chain(self, job: Job) -> None:
        """Let into the queue, or put aside again, what follows `job` in its chain."""
        if job.order_key is None:
            return
        free = True
        for other in self.chain(job):
            if other.state in HELD:
                if free and other.prompt_id in self._blocked:
                    self._blocked.discard(other.prompt_id)
                    self._index(other)
                elif not free and other.prompt_id not in self._blocked:
                    self._unindex(other)
                    self._blocked.add(other.prompt_id)
            if other.state not in _SENT:
                if not free:
                    break
                free = False

    def _end(self, job: Job) -> None:
        self._charge(job, 0.0)
        self.accepted -= job.answered
        if job.order_key is not None:
            chain = self._chains[job.client, job.order_key]
            del chain[job.prompt_id]
            if chain:
                self._free_chain(next(iter(chain.values())))
            else:
                del self._chains[job.client, job.order_key]
        self._prune(job.priority)
        self._remember_ended(job)

    def forget_ended(self, prompt_id: str) -> None:
        """Its id is used again."""
        if (job := self.jobs.get(prompt_id)) is not None and job.state in ENDED:
            self._ended.remove(prompt_id)
            del self.jobs[prompt_id]

    def _remember_ended(self, job: Job) -> None:
        self._ended.append(job.prompt_id)
        if len(self._ended) > ENDED_KEPT:
            del self.jobs[self._ended.popleft()]

    def _prune(self, priority: int) -> None:
        """Forget overtakers of prompts that have all ended."""
        passings = self.overtakings.get(priority)
        if passings is None:
            return
        elsewhere = (*self.upstream.values(), *self.doubtful.values())
        open_ones = [job.sequence for job in elsewhere if job.priority == priority]
        level = self.waiting.levels.get(priority)
        if level is not None and level.oldest_sequence is not None:
            open_ones.append(level.oldest_sequence)
        if open_ones:
            passings.forget_before(min(open_ones))
        else:
            del self.overtakings[priority]
