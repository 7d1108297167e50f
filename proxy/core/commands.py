"""What the scheduler wants done, each with its reason.

Whoever performs these has the sockets, the clock and the journal; the scheduler has neither. A command that asks
ComfyUI something (`Probe`, `Dispatch`, `Recall`, `Locate`) is always answered by one of the events named at it, unless
the connection is lost, which is an event too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from proxy.core.jobs import State


class Code(StrEnum):
    """Why, in one word; stable, for programs. The text of a `Reason` is for people."""

    SUBMITTED = "submitted"
    VALID = "valid"
    UNCHECKED = "unchecked"
    INVALID = "invalid"
    QUEUE_FULL = "queue-full"
    CHECK = "check"
    # why it was chosen
    ONLY_ONE = "only-one"
    OLDEST = "oldest"
    RESIDENT = "resident"
    CHEAPER = "cheaper"
    OVERDUE = "overdue"
    PLACE = "place"
    PRIORITY = "priority"
    AGED = "aged"
    SHARE = "share"
    # why it waits
    BEHIND = "behind"
    CHAIN = "chain"
    PAUSED = "paused"
    NO_UPSTREAM = "no-upstream"
    FOREIGN = "foreign"
    OVERTAKEN = "overtaken"
    # why it was called back, looked up or put back
    SAVES_LOADING = "saves-loading"
    TIME_IS_UP = "time-is-up"
    PROBE_DONE = "probe-done"
    SLIPPED = "slipped"
    NO_ANSWER = "no-answer"
    UPSTREAM_LOST = "upstream-lost"
    SUSPECT = "suspect"
    SPOILED = "spoiled"
    MOVED = "moved"
    FOUND = "found"
    RECALLED = "recalled"
    STARTED = "started"
    # how it ended
    DONE = "done"
    RUN_FAILED = "run-failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    ATTEMPTS_SPENT = "attempts-spent"
    PAID = "paid"
    VANISHED = "vanished"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something happens: a code, a sentence, and the numbers behind it (their names say the unit)."""

    code: Code
    text: str
    numbers: Mapping[str, float] = field(default_factory=dict)
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Accept:
    """Answer the client that its prompt was taken.

    `number` is its number as ComfyUI would have given it. When not `validated`, ComfyUI has not judged it yet, or its
    judgement was lost.
    """

    prompt_id: str
    number: float
    validated: bool
    reason: Reason


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer the client that its prompt was not taken: with ComfyUI's own answer, or 429 for `Code.QUEUE_FULL`."""

    prompt_id: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class Probe:
    """Let ComfyUI validate it: submit it behind everything, delete it, make sure that it is out.

    Answered by `ProbeAccepted`, `ProbeRefused`, `ProbeSlipped` or `ProbeUnclear`.
    """

    prompt_id: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Send it to run, behind what was dispatched before; its client still waits for an answer when `validating`.

    Answered by `Dispatched`, `DispatchRefused` or `DispatchUnclear`.
    """

    prompt_id: str
    validating: bool
    reason: Reason


@dataclass(frozen=True, slots=True)
class Recall:
    """Delete it from ComfyUI's queue and make sure. Answered by `RecallDone`."""

    prompt_id: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class Locate:
    """Look for it in ComfyUI's queue, then its history. Answered by `Located`, or by `Finished` if it has ended."""

    prompt_id: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Stop the running prompt; `None` stops whatever runs, which is then not ours."""

    prompt_id: str | None
    reason: Reason


@dataclass(frozen=True, slots=True)
class Hold:
    """It was at ComfyUI, or may have been, and waits here again; `attempts` of its runs were lost so far."""

    prompt_id: str
    attempts: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class End:
    """It has come to an end; tell its client if ComfyUI has not, and do not forget it before that is on disk."""

    prompt_id: str
    state: State
    reason: Reason


Command: TypeAlias = Accept | Refuse | Probe | Dispatch | Recall | Locate | Interrupt | Hold | End
