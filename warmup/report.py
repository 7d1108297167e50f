"""What the warm-up service tells people: one row for each entry, the good and the broken ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from warmup.entries import Depth, Entry, Trigger
from warmup.faults import Fault
from warmup.schedule import Schedule
from warmup.state import EntryState, Outcome, State


@dataclass(frozen=True, slots=True)
class Row:
    """One entry: what it warms and when, how it stands, and how it last went.

    `status` is one of idle, waiting, running, backing off, out; `reason` says why. `next_at` is in seconds since the
    epoch, None when only an event can run it; `progress` is the part done, 0 to 1, of one that runs.
    """

    name: str
    what: str
    to: Depth | None
    when: str
    next_at: float | None
    status: str
    reason: str
    progress: float | None
    last: Outcome | None


@dataclass(frozen=True, slots=True)
class Report:
    """The schedule as it stands; `rejected` are the faults of a newer file that was not taken into force for them."""

    path: Path | None
    rows: tuple[Row, ...]
    faults: tuple[Fault, ...]
    rejected: tuple[Fault, ...]


def make_rows(
    schedule: Schedule,
    state: State,
    now: float,
    waiting: Mapping[str, str],
    progress: Mapping[str, float],
    misfits: Mapping[str, Sequence[Fault]],
) -> tuple[Row, ...]:
    """One row for each entry that stands, in the file's order, then one for each that is out.

    `waiting` says why entries that are due have not begun, `progress` how far those that run are, `misfits` what keeps
    entries that stand from being run at the ComfyUI that answers: they are out, too.
    """
    rows = []
    for planned in schedule.entries:
        remembered = state.entries[planned.name]
        status, reason = _status(remembered, now, waiting.get(planned.name), misfits.get(planned.name, ()))
        rows.append(
            Row(
                name=planned.name,
                what=planned.entry.what,
                to=planned.entry.to,
                when=when(planned.entry),
                next_at=None if status == "out" else schedule.next_for(planned, state, now),
                status=status,
                reason=reason,
                progress=progress.get(planned.name, 0.0) if status == "running" else None,
                last=remembered.last,
            )
        )
    out: dict[str, list[Fault]] = {}
    for fault in schedule.faults:
        if fault.entry is not None:
            out.setdefault(fault.entry, []).append(fault)
    rows.extend(Row(name, "", None, "", None, "out", _reason(faults), None, None) for name, faults in out.items())
    return tuple(rows)


def when(entry: Entry) -> str:
    """When an entry runs, for people."""
    cron = [] if entry.cron is None else [f"{entry.cron} ({entry.timezone})"]
    return ", ".join([*cron, *(str(name) for name in entry.on)]) or "by hand"


def _reason(faults: Sequence[Fault]) -> str:
    return "; ".join(map(str, faults))


def _status(remembered: EntryState, now: float, waiting: str | None, faults: Sequence[Fault]) -> tuple[str, str]:
    if remembered.running_since is not None:
        return "running", ""
    if faults:
        return "out", _reason(faults)
    if (until := remembered.backing_off(now)) is not None and Trigger.MANUAL not in remembered.pending:
        why = f": {remembered.last.detail}" if remembered.last else ""
        return "backing off", f"tried again in {until - now:.0f} s after {remembered.failures} failures in a row{why}"
    if waiting is not None:
        return "waiting", waiting
    return "idle", ""
