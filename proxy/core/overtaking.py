"""The promise that no prompt waits for ever while better-fitting ones pass it, kept by counting.

Prompt Q overtakes prompt P when it was submitted later, has the same priority and is sent to run first. What is
counted are the prompts sent so far, by their place in the order of submission: the overtakers of P are those sent that
were submitted after it. Nothing has to be counted at each of ten thousand waiting prompts, and of two waiting prompts
of one client the older has never fewer overtakers than the younger.

Not counted are prompts that a client's own wish put first or last (`Job.fixed`), and, for the prompts of a client that
is held back for having had more than its share, those that run meanwhile: they are what fairness owes to others.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter

from proxy.core.commands import Reason
from proxy.core.job import Job

_sequence = attrgetter("job.sequence")


@dataclass(slots=True, eq=False)
class Passing:
    """One prompt that was sent to run, and possibly passed others.

    `held_back` are the other clients that were held back then, `ran` the measured seconds of its runs so far (more than
    one if one was lost), `sent` says that it is at ComfyUI for another.
    """

    job: Job
    held_back: frozenset[str]
    reason: Reason
    ran: float = 0.0
    sent: bool = True

    def seconds(self, now: float) -> float:
        """Seconds it has run, and is expected to run, or has already run if that is more."""
        return max(self.has_run(now), self.ran + self.job.estimate) if self.sent else self.ran

    def has_run(self, now: float) -> float:
        """Seconds it has run until now."""
        started = self.job.started
        return self.ran if started is None or not self.sent else self.ran + now - started


class Overtakings:
    """Who has been sent to run past whom, within one priority."""

    def __init__(self) -> None:
        self._passings: list[Passing] = []

    def __len__(self) -> int:
        return len(self._passings)

    def send(self, job: Job, held_back: frozenset[str], reason: Reason) -> None:
        """`job` is sent to run, while these clients are held back."""
        known = self.find(job)
        if known is None:
            insort(self._passings, Passing(job, held_back, reason), key=_sequence)
        else:
            known.sent = True

    def stand_back(self, job: Job) -> None:
        """`job` did not run after all."""
        known = self.find(job)
        if known is None:
            return
        known.sent = False
        if not known.ran:
            self._passings.remove(known)

    def ran(self, job: Job, seconds: float) -> None:
        """`job` has run so long."""
        known = self.find(job)
        if known is not None:
            known.ran += seconds
            known.sent = False

    def take_out(self, job: Job) -> Passing | None:
        """Forget that `job` was sent, until `put_back`."""
        known = self.find(job)
        if known is not None:
            self._passings.remove(known)
        return known

    def put_back(self, passing: Passing) -> None:
        """The inverse of `take_out`."""
        insort(self._passings, passing, key=_sequence)

    def find(self, job: Job) -> Passing | None:
        """What is known of its having been sent, if it was."""
        index = bisect_left(self._passings, job.sequence, key=_sequence)
        found = index < len(self._passings) and self._passings[index].job is job
        return self._passings[index] if found else None

    def of(self, job: Job) -> Iterator[Passing]:
        """Those that overtook `job`, in order of submission."""
        for passing in self._passings[bisect_right(self._passings, job.sequence, key=_sequence) :]:
            if job.client not in passing.held_back:
                yield passing

    def forget_before(self, sequence: int) -> None:
        """No prompt submitted before `sequence` can still be overtaken."""
        del self._passings[: bisect_left(self._passings, sequence, key=_sequence)]
