"""Whether a schedule kept the promises of docs/scheduling.md, judged from what ran when and from nothing else.

This counts in the simplest way, pair by pair, and shares no code with the scheduler: so a fault in the scheduler's own
counting shows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.playing import Record, Run
from bench.traces import Prompt

ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Verdict:
    """The most that any prompt was overtaken by later ones of its priority, and whether that was within the bounds."""

    worst_overtaken: int
    bounds_hold: bool


def judge(record: Record, max_bypass: int, max_wait: float) -> Verdict:
    """Judge a schedule.

    `worst_overtaken` counts every overtaking. For the bounds, one does not count that fairness owed: when the overtaken
    prompt's client had had more run time than the overtaker's, counted from the beginning or since it was submitted.
    """
    prompts = record.trace.prompts
    runs = sorted(record.runs, key=lambda run: run.start)
    worst, hold = 0, True
    for place, run in enumerate(runs):
        passing = [
            earlier
            for earlier in runs[:place]
            if earlier.index > run.index and prompts[earlier.index].priority == prompts[run.index].priority
        ]
        worst = max(worst, len(passing))
        counted = [earlier.end - earlier.start for earlier in passing if not _owed(earlier, run, runs, prompts)]
        within = len(counted) <= max_bypass and sum(counted[:-1]) <= max_wait + ROUNDING
        hold = hold and within
    return Verdict(worst, hold)


def _owed(passing: Run, passed: Run, runs: Sequence[Run], prompts: Sequence[Prompt]) -> bool:
    ours, theirs = prompts[passing.index].client, prompts[passed.index].client
    if ours == theirs:
        return False
    submitted = prompts[passed.index].at
    for since in (float("-inf"), submitted):
        had = {ours: 0.0, theirs: 0.0}
        for run in runs:
            client = prompts[run.index].client
            if run.start < passing.start and run.end > since and client in had:
                had[client] += run.end - max(run.start, since)
        if had[theirs] > had[ours]:
            return True
    return False
