"""Which writes share a commit, and what happens to them when nothing can be written.

A commit costs about the same for one write as for fifty, so writes are committed together. When that fails, each is
tried alone, so that one bad record spoils nothing but itself. When the disk is full, new prompts are refused, but news
of accepted ones ("has finished") must not be dropped: such a change is kept and tried again before anything later, so
that no write ever overtakes another.
"""

import asyncio
import shutil
import sqlite3
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any, Final

from proxy.journal_errors import JournalDamaged, JournalRefused, JournalUnwritable, damaged, from_sqlite, full
from proxy.journal_store import Store

RESERVE_BYTES: Final = 16 * 2**20
"""Free space that new prompts leave alone, so that what happens to accepted ones can still be written."""


class Kind(Enum):
    """What becomes of a call that cannot be carried out now."""

    ACCEPT = auto()
    """Refused, and so is one that would use up the reserve."""
    DELETE = auto()
    """Refused."""
    CHANGE = auto()
    """Kept until it can be carried out."""
    READ = auto()
    """Refused."""


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """Something to do with the store, and who waits for it."""

    kind: Kind
    perform: Callable[[Store], Any]
    waiter: asyncio.Future[Any]


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of a call."""

    call: Call
    result: Any = None
    error: Exception | None = None


class Committer:
    """Carries out calls on the store of the journal at `path`, in the thread that opened it.

    Attributes:
        kept: changes that could not be written yet, in order.
        trouble: why the last write, or part of it, did not happen; `None` when it did.
        broken: why nothing is written any more: what is damaged must not get worse.
    """

    def __init__(self, path: Path, store: Store) -> None:
        self._path = path
        self._store = store
        self._identity = _identity(path)
        self.kept: tuple[Call, ...] = ()
        self.trouble: JournalUnwritable | None = None
        self.broken: Exception | None = None

    def write(self, calls: Sequence[Call]) -> list[Settled]:
        """Carry out what was kept, then `calls`. Durable on return, where it says so.

        Without any calls this is how trouble ends: the next prompt may be tried unless there is visibly no room for it.
        """
        if self.broken is not None:
            calls, self.kept = (*self.kept, *calls), ()
            return [Settled(call, error=self.broken) for call in calls]
        asked_for_room = self.trouble is not None or any(call.kind is Kind.ACCEPT for call in calls)
        self.trouble = self._obstacle() if asked_for_room else None
        refused = [Settled(call, error=self.trouble) for call in calls if self.trouble and call.kind is Kind.ACCEPT]
        group = (*self.kept, *(call for call in calls if not self.trouble or call.kind is not Kind.ACCEPT))
        self.kept = ()
        settled = self._together(group)
        if settled is None:
            settled = self._one_by_one(group)
        return [*refused, *settled]

    def read(self, call: Call) -> Settled:
        """Carry out a call that only looks: it sees everything that was committed."""
        return self._alone(call)

    def _together(self, calls: Sequence[Call]) -> list[Settled] | None:
        """All calls in one commit; `None` when that was not possible, and nothing was done."""
        try:
            with self._store.transaction():
                return [self._perform(call) for call in calls]
        except sqlite3.Error:
            return None

    def _one_by_one(self, calls: Sequence[Call]) -> list[Settled]:
        """Each call in a commit of its own, so that each has a result of its own; nothing overtakes what is kept."""
        settled: list[Settled] = []
        for call in calls:
            obstacle = self.broken or (self.trouble if self.kept else None)
            outcome = Settled(call, error=obstacle) if obstacle else self._alone(call)
            if isinstance(outcome.error, JournalUnwritable):
                self.trouble = outcome.error
                if call.kind is Kind.CHANGE:
                    self.kept += (call,)
                    continue
            settled.append(outcome)
        return settled

    def _alone(self, call: Call) -> Settled:
        """One call in its own transaction."""
        try:
            with self._store.transaction(writing=call.kind is not Kind.READ):
                return self._perform(call)
        except sqlite3.Error as error:
            fault = from_sqlite(self._path, error)
        except zlib.error as error:
            fault = damaged(self._path, str(error))
        if isinstance(fault, JournalDamaged):
            self.broken = fault
        return Settled(call, error=fault)

    def _perform(self, call: Call) -> Settled:
        """One call inside a transaction. An error that is not of this call alone is raised and ends the transaction."""
        try:
            with self._store.savepoint():
                return Settled(call, result=call.perform(self._store))
        except sqlite3.Error as error:
            fault = from_sqlite(self._path, error)
            if not isinstance(fault, JournalRefused):
                raise
            return Settled(call, error=fault)
        except zlib.error:
            raise
        except OverflowError as error:  # an integer of more than 64 bits
            return Settled(call, error=JournalRefused(f"the journal cannot store this: {error}"))
        except Exception as error:  # noqa: BLE001 - told to whoever waits for this call
            return Settled(call, error=error)

    def _obstacle(self) -> JournalUnwritable | None:
        """Why no new prompt can be accepted although SQLite might take it."""
        try:
            replaced = _identity(self._path) != self._identity
            free = shutil.disk_usage(self._path.parent).free
        except OSError as error:
            return JournalUnwritable(f"the journal {self._path} is gone: {error}", details="Restart comfykeep.")
        if replaced:
            return JournalUnwritable(f"the journal {self._path} was replaced", details="Restart comfykeep.")
        if free < RESERVE_BYTES:
            mib = 2**20
            return full(self._path, f"{free // mib} MiB are free, and {RESERVE_BYTES // mib} are kept for what waits")
        return None


def _identity(path: Path) -> tuple[int, int]:
    """What tells a file from another one that took its name."""
    status = path.stat()
    return status.st_dev, status.st_ino
