"""Whether a schedule kept the promises of docs/scheduling.md, judged from what ran when and from nothing else.

This counts in the simplest way, pair by pair, and shares no code with the scheduler: so a fault in the scheduler's own
counting shows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.playing import Record, Run
from bench.traces import Prompt
from proxy.core.settings import Settings

ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Verdict:
    """The most that any prompt was overtaken by later ones of its priority, and whether that was within the bounds."""

    worst_overtaken: int
    bounds_hold: bool


def judge(record: Record, settings: Settings) -> Verdict:
    """Judge a schedule.

    `worst_overtaken` counts every overtaking. For the bounds, one does not count that fairness owed: while the client
    of the overtaken prompt had had more than its share, and one that was behind had something waiting.
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
        client = prompts[run.index].client
        counted = [
            earlier.end - earlier.start
            for earlier in passing
            if prompts[earlier.index].client == client
            or not _has_had_too_much(client, earlier.start, runs, prompts, settings.fair_quantum)
        ]
        within = len(counted) <= settings.max_bypass and sum(counted[:-1]) <= settings.max_wait + ROUNDING
        hold = hold and within
    return Verdict(worst, hold)


def _has_had_too_much(client: str, at: float, runs: Sequence[Run], prompts: Sequence[Prompt], quantum: float) -> bool:
    """Whether it was ahead of another by more than the quantum, which waits then and has not caught up since."""
    before = [run for run in runs if run.start < at]
    waiting = {prompts[run.index].client for run in runs if run.start >= at and prompts[run.index].at <= at}
    return any(_is_ahead(client, other, before, prompts, quantum) for other in waiting - {client})


def _is_ahead(client: str, other: str, before: Sequence[Run], prompts: Sequence[Prompt], quantum: float) -> bool:
    lead, ahead = 0.0, False
    for run in before:
        if prompts[run.index].client == client:
            lead += run.end - run.start
        elif prompts[run.index].client == other:
            lead = max(0.0, lead - (run.end - run.start))
        ahead = lead > quantum or (ahead and lead > 0)
    return ahead
