"""When a run takes longer than expected, and what is staged behind it must not begin any more.

A prompt is sent past others when the expected run times of all that pass them allow it. But runs overrun, and ComfyUI
begins with what it has. So for everything staged there is a moment by which it has to be called back: when those whom
it passes have been passed for as long as is allowed by what has really run. Prompts that are staged themselves can be
passed too, by those that stand before them.

Only what has run counts here, not what is expected to: whatever stands in between is watched in its own turn.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from proxy.core.job import Job
from proxy.core.jobs import RUNS, State
from proxy.core.ledger import Ledger
from proxy.core.settings import Settings
from proxy.core.turns import INSTANT, Bounds


@dataclass(frozen=True, slots=True)
class Deadline:
    """`staged` must not begin once what else passes `passed` has run for `left` more seconds.

    `runs` says that something that passes it runs now, so that these seconds go by.
    """

    staged: Job
    passed: Job
    left: float
    runs: bool

    @property
    def over(self) -> bool:
        """It must not begin any more."""
        return self.left <= INSTANT


def deadlines(ledger: Ledger, settings: Settings, now: float) -> Iterator[Deadline]:
    """For everything staged, in ComfyUI's order, and everybody whom it would pass."""
    bounds = Bounds(ledger, settings, now)
    for staged in ledger.upstream.values():
        if staged.state is not State.STAGED or staged.fixed:
            continue
        passing = ledger.overtakings[staged.priority].find(staged)
        for passed in _passed_by(staged, ledger):
            if passing is None or passed.client not in passing.held_back:
                yield Deadline(staged, passed, *bounds.time_left(passed, staged))


def _passed_by(staged: Job, ledger: Ledger) -> Iterator[Job]:
    """Whom it passes if it begins next: of what waits, the oldest of each client, which has been passed most."""
    level = ledger.waiting.levels.get(staged.priority)
    if level is not None:
        yield from level.heads_before(staged.sequence)
    behind = False
    for job in ledger.upstream.values():
        behind = behind or job is staged
        older = job.sequence < staged.sequence and job.priority == staged.priority and not job.fixed
        if older and job.state not in RUNS and (behind or job.state is not State.STAGED):
            yield job
    for job in ledger.behind_doubtful():
        if job.sequence < staged.sequence and job.priority == staged.priority and not job.fixed:
            yield job
