"""What the schedule remembers between two looks at the clock, and between two runs of the proxy.

Everything is one frozen value that is handed in and out, so that what is due depends on nothing else. All times are
seconds since the epoch by the wall clock, since that is what survives a restart; a clock that was set back or forth
must therefore do no harm, and each rule below says what it does then.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from warmup.entries import Trigger

FIRST_BACKOFF = 60.0
LONGEST_BACKOFF = 3600.0
RESETTLE = 600.0
"""An entry that was brought back after an eviction and goes again within so many seconds does not fit: to warm it at
once would only evict another."""
LONGEST_STEP_BACK = 86400.0
UNDOING = frozenset({Trigger.UPSTREAM_START, Trigger.EVICTED})
"""Triggers that say that what a running warm-up has done so far may be gone."""


class Result(StrEnum):
    """How a warm-up ended."""

    WARMED = "warmed"
    SKIPPED = "skipped"
    """All of it was there already."""
    FAILED = "failed"
    TIMED_OUT = "timed out"
    CANCELLED = "cancelled"
    """Taken back by a person; tried again only when triggered again. (ComfyUI's death is a failure: it may be ours.)"""

    @property
    def is_failure(self) -> bool:
        """Whether to back off."""
        return self in {Result.FAILED, Result.TIMED_OUT}


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of one warm-up: when (since the epoch), how, after how many seconds, why, and what had called for it."""

    at: float
    result: Result
    seconds: float
    detail: str
    triggers: tuple[Trigger, ...]


@dataclass(frozen=True, slots=True)
class EntryState:
    """What is remembered of one entry.

    `accounted` is the instant up to which its cron times have been seen to; `pending` are the triggers that wait, which
    no restart outlives since a start is a trigger of its own.
    """

    definition: str
    accounted: float
    failures: int = 0
    retry_at: float | None = None
    last: Outcome | None = None
    pending: frozenset[Trigger] = frozenset()
    running_since: float | None = None

    def backing_off(self, now: float) -> float | None:
        """Until when this entry waits after failures; None: it does not. A clock set back does not prolong it."""
        if self.retry_at is None or self.retry_at <= now or self.retry_at > now + LONGEST_BACKOFF:
            return None
        return self.retry_at

    def since(self, now: float) -> float:
        """The instant after which cron times are still to be seen to.

        A clock set back by up to a day runs nothing twice; after one that was further ahead the count begins anew.
        """
        return now if self.accounted > now + LONGEST_STEP_BACK else self.accounted

    def triggered(self, trigger: Trigger, now: float) -> "EntryState":
        """One more reason to run. One that comes while the entry runs is met by that run unless it undoes it."""
        if trigger in self.pending or (self.running_since is not None and trigger not in UNDOING):
            return self
        state = replace(self, pending=self.pending | {trigger})
        if trigger is not Trigger.EVICTED or self.last is None or self.last.result is not Result.WARMED:
            return state
        if abs(now - self.last.at) >= RESETTLE:
            return replace(state, failures=0, retry_at=None)
        return state.backed_off(now) if self.last.triggers == (Trigger.EVICTED,) else state

    def backed_off(self, now: float) -> "EntryState":
        """One more failure: wait twice as long as after the one before, at most an hour."""
        wait = min(FIRST_BACKOFF * 2**self.failures, LONGEST_BACKOFF)
        return replace(self, failures=min(self.failures + 1, 30), retry_at=now + wait)

    def started(self, now: float) -> "EntryState":
        """A run begins that meets all that is pending."""
        return replace(self, running_since=now, pending=frozenset())

    def finished(self, outcome: Outcome) -> "EntryState":
        """The run has ended. After a failure what called for it stays due, except a person, who has been told."""
        if outcome.result.is_failure:
            again = frozenset(outcome.triggers) - {Trigger.MANUAL, Trigger.CRON}
            state = replace(self, running_since=None, last=outcome, pending=self.pending | again)
            return state.backed_off(outcome.at)
        began = outcome.at if self.running_since is None else self.running_since
        churning = outcome.triggers == (Trigger.EVICTED,)
        return replace(
            self,
            running_since=None,
            last=outcome,
            accounted=max(self.since(began), began),
            failures=self.failures if churning else 0,
            retry_at=None,
        )


@dataclass(frozen=True, slots=True)
class State:
    """What is remembered of all entries, by name."""

    entries: Mapping[str, EntryState] = field(default_factory=dict)

    def known(self, definitions: Mapping[str, str], now: float) -> "State":
        """The state for these entries. A new or changed one begins now: no time before it has been missed."""
        entries = {}
        for name, definition in definitions.items():
            old = self.entries.get(name)
            if old is not None and old.definition == definition:
                entries[name] = old
            else:
                entries[name] = EntryState(definition, now, last=old.last if old else None)
        return State(entries)

    def triggered(self, names: Iterable[str], trigger: Trigger, now: float) -> "State":
        """The same with one more reason to run these entries."""
        changed = {name: self.entries[name].triggered(trigger, now) for name in names}
        return State({**self.entries, **changed})

    def with_entry(self, name: str, entry: EntryState) -> "State":
        """The same with another state for one entry."""
        return State({**self.entries, name: entry})

    def to_json(self) -> str:
        """What outlives a restart, as JSON."""
        kept = {
            name: {
                "definition": entry.definition,
                "accounted": entry.accounted,
                "failures": entry.failures,
                "retry_at": entry.retry_at,
                "last": None if entry.last is None else asdict(entry.last),
            }
            for name, entry in self.entries.items()
        }
        return json.dumps({"version": 1, "entries": kept}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "State":
        """Read what `to_json` wrote.

        Raises:
            ValueError: when it is anything else; the caller starts anew, which costs no more than a missed cron time.
        """
        try:
            raw = json.loads(text)
            if raw["version"] != 1:
                raise ValueError(f"version {raw['version']!r} is not 1")  # noqa: TRY301 - one message for all that is wrong
            return cls({str(name): _entry_from(entry) for name, entry in raw["entries"].items()})
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise ValueError(f"not a state of the warm-up schedule: {error}") from error


def _entry_from(raw: Mapping[str, Any]) -> EntryState:
    last = raw["last"]
    return EntryState(
        definition=str(raw["definition"]),
        accounted=float(raw["accounted"]),
        failures=min(max(int(raw["failures"]), 0), 30),
        retry_at=None if raw["retry_at"] is None else float(raw["retry_at"]),
        last=None
        if last is None
        else Outcome(
            at=float(last["at"]),
            result=Result(last["result"]),
            seconds=float(last["seconds"]),
            detail=str(last["detail"]),
            triggers=tuple(Trigger(trigger) for trigger in last["triggers"]),
        ),
    )
