"""What the journal keeps: the records that go in and come out."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any, Final


class Sync(StrEnum):
    """What an accepted prompt survives: a killed process (`normal`), or power loss too (`full`)."""

    NORMAL = "normal"
    FULL = "full"


class Unset(Enum):
    """The type of `UNSET`, which says "leave it" where `None` says "make it empty"."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One accepted prompt, with all it takes to run it again.

    Attributes:
        prompt_id: as ComfyUI knows it; unique in the journal.
        sequence: the place in the order of acceptance, 1 or more, from `Recovered.next_sequence` on; never used twice.
        body: the request body, byte for byte.
        answer: the body that the client was (or would have been) answered with.
        submitted: when it was accepted, in Unix seconds, as all times here.
        state: one of the states of `core.jobs`.
        client_id: whose events these are; `None` for a prompt without.
        number: its place among the numbers of the queue: as the client sent it, or as it was counted here.
        front: whether the client asked for the front of the queue.
        priority: higher runs first.
        order_key: prompts that share one stay in order.
        idempotency_key: what a client repeats when it submits the same thing again; unique in the journal.
        headers: the request headers that ComfyUI reads, in order.
        attempts: how often it was sent to ComfyUI to run.
        upstream: the ComfyUI process it was last sent to, in the engine's words.
        dispatched: when it was last sent to ComfyUI to run.
        started: when it last began to run.
        finished: when it ended; `None` as long as it has to be run, which is what makes it come back after a restart.
        outcome: how it ended, in the engine's words.
        history: its entry for `/history` in the client's terms, as JSON; `None` for one that left none.
    """

    prompt_id: str
    sequence: int
    body: bytes
    answer: bytes
    submitted: float
    state: str
    client_id: str | None = None
    number: float | None = None
    front: bool = False
    priority: int = 0
    order_key: str | None = None
    idempotency_key: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    attempts: int = 0
    upstream: str | None = None
    dispatched: float | None = None
    started: float | None = None
    finished: float | None = None
    outcome: str | None = None
    history: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """A change to one prompt; what is `UNSET` stays as it is. The fields are those of `Record`."""

    prompt_id: str
    state: str | Unset = UNSET
    attempts: int | Unset = UNSET
    number: float | Unset | None = UNSET
    front: bool | Unset = UNSET
    priority: int | Unset = UNSET
    order_key: str | Unset | None = UNSET
    upstream: str | Unset | None = UNSET
    dispatched: float | Unset | None = UNSET
    started: float | Unset | None = UNSET
    finished: float | Unset | None = UNSET
    outcome: str | Unset | None = UNSET
    history: bytes | Unset | None = UNSET


@dataclass(frozen=True, slots=True)
class Finished:
    """A prompt that has ended, without what it took to run it."""

    prompt_id: str
    sequence: int
    idempotency_key: str | None
    finished: float
    outcome: str | None


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One entry of the history: `entry` is the JSON of it, in the client's terms."""

    prompt_id: str
    entry: bytes


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a journal held when it was opened.

    Attributes:
        unfinished: what has to be run, in order of acceptance.
        finished: what has ended and is still known, in the order in which it ended.
        facts: everything that was remembered.
        next_sequence: the first sequence that was never used, even by records that are gone.
    """

    unfinished: tuple[Record, ...]
    finished: tuple[Finished, ...]
    facts: Mapping[str, Any]
    next_sequence: int
