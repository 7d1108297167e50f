"""Whether a schedule kept the promises of docs/scheduling.md, judged from what ran when and from nothing else.

This counts in the simplest way, pair by pair, and shares no code with the scheduler: so a fault in the scheduler's own
counting shows.
"""

from dataclasses import dataclass

from bench.playing import Record
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
    of the overtaken prompt had had more than its share, and others that wait in its priority had not caught up.
    """
    prompts = record.trace.prompts
    runs = sorted(record.runs, key=lambda run: run.start)
    owing = _owing(record, settings.fair_quantum)
    worst, hold = 0, True
    for place, run in enumerate(runs):
        priority, client = prompts[run.index].priority, prompts[run.index].client
        passing = [
            earlier
            for earlier in runs[:place]
            if earlier.index > run.index and prompts[earlier.index].priority == priority
        ]
        worst = max(worst, len(passing))
        counted = [
            earlier.end - earlier.start
            for earlier in passing
            if prompts[earlier.index].client == client or client not in owing[earlier.index]
        ]
        within = len(counted) <= settings.max_bypass and sum(counted[:-1]) <= settings.max_wait + ROUNDING
        hold = hold and within
    return Verdict(worst, hold)


def _owing(record: Record, quantum: float) -> dict[int, set[str]]:
    """For each run, the clients of its priority that had to let others catch up when it began or was chosen.

    A run is chosen when the one before it begins, and counts from its beginning for all that it takes. Who begins to
    wait starts with no less than the least that anybody has had who waits.
    """
    prompts = record.trace.prompts
    runs = sorted(record.runs, key=lambda run: run.start)
    starts = {run.index: run.start for run in runs}
    had: dict[str, float] = {}
    ahead: dict[int, set[str]] = {}
    owing: dict[int, set[str]] = {}
    waited: set[str] = set()
    floor, chosen = 0.0, dict[int, set[str]]()
    for run in runs:
        waiting = [item for item in range(len(prompts)) if prompts[item].at <= run.start <= starts[item]]
        clients = {prompts[item].client for item in waiting}
        for client in clients - waited:
            had[client] = max(had.get(client, 0.0), floor)
        waited = clients
        floor = max(floor, min(had[client] for client in clients))
        before, chosen = chosen, {}
        for priority in {prompts[item].priority for item in waiting}:
            group = {prompts[item].client for item in waiting if prompts[item].priority == priority}
            least = min(had[client] for client in group)
            kept = {client for client in ahead.get(priority, set()) & group if had[client] > least}
            chosen[priority] = ahead[priority] = kept | {c for c in group if had[c] > least + quantum}
        own = prompts[run.index].priority
        owing[run.index] = chosen[own] | before.get(own, set())
        had[prompts[run.index].client] += run.end - run.start
    return owing
