"""What the journal could not do, by what the reader can do about it.

::

    JournalError
    ├── JournalUnusable         the journal cannot be used until a person does something
    │   ├── JournalLocked         another comfykeep uses it
    │   ├── JournalTooNew         a newer comfykeep wrote it
    │   ├── JournalDamaged        it is damaged, or no journal at all
    │   └── JournalUnreachable    its folder or file cannot be opened or created
    ├── JournalUnwritable       503: this write did not happen, a later one may
    │   └── JournalFull         507: for lack of space
    ├── JournalRefused          400: this one record cannot be stored
    │   └── AlreadyAccepted     409: its prompt id, sequence or idempotency key is taken
    ├── UnknownPrompt           an update of a prompt that was never accepted
    └── JournalClosed           503: it was closed
"""

import errno
import sqlite3
from pathlib import Path
from typing import Final

from proxy.errors import ComfykeepError

RETRY_AFTER_SECONDS: Final = 10
"""What a client is told to wait when nothing can be written now."""

_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_SCHEMA})
"""Primary result codes that speak of the file's content (SQLITE_ERROR: a table that is not there)."""

_REFUSAL: Final = frozenset(
    {sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_RANGE, sqlite3.SQLITE_TOOBIG, None}
)
"""Codes that speak of the values of one call. `None` is the binding's own verdict on a type that SQLite cannot hold."""


class JournalError(ComfykeepError):
    """Anything the journal could not do."""

    type = "journal_error"


class JournalUnusable(JournalError):  # noqa: N818 - the base name says that it is an error, here and below
    """The journal cannot be used until a person does something; `details` says what."""

    type = "journal_unusable"


class JournalLocked(JournalUnusable):
    """Another process uses this journal."""


class JournalTooNew(JournalUnusable):
    """A newer version wrote this journal."""


class JournalDamaged(JournalUnusable):
    """The file is damaged, or is no journal."""


class JournalUnreachable(JournalUnusable):
    """The file or its folder cannot be opened or created."""


class JournalUnwritable(JournalError):  # noqa: N818
    """Nothing can be written now; what was accepted is safe, and a later attempt may succeed."""

    status = 503
    type = "journal_unwritable"

    def __init__(self, message: str, *, details: str = "") -> None:
        """`message` and `details` as for every error; the answer carries a `Retry-After`."""
        super().__init__(message, details=details, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})


class JournalFull(JournalUnwritable):
    """There is no space left to write."""

    status = 507
    type = "journal_full"


class JournalRefused(JournalError):  # noqa: N818
    """One record cannot be stored as it is; the others are not affected."""

    status = 400
    type = "journal_refused"


class AlreadyAccepted(JournalRefused):
    """The prompt id, sequence or idempotency key of a new record belongs to one that is known."""

    status = 409
    type = "already_accepted"


class UnknownPrompt(JournalError):  # noqa: N818
    """An update names a prompt that is not in the journal."""


class JournalClosed(JournalError):  # noqa: N818
    """The journal was closed."""

    status = 503
    type = "journal_closed"


def damaged(path: Path, fault: str) -> JournalDamaged:
    """The error for a file whose content is wrong."""
    return JournalDamaged(
        f"the journal {path} is damaged, or no journal: {fault}",
        details=f"It was left as it is. Try `sqlite3 {path.name} .recover` on a copy, or move {path.name}, "
        f"{path.name}-wal and {path.name}-shm away to begin with an empty journal.",
    )


def full(path: Path, why: str) -> JournalFull:
    """The error for a disk without room."""
    return JournalFull(f"no space left for the journal {path}: {why}", details="Free some space on its disk.")


def unopenable(path: Path, why: Exception) -> JournalUnusable:
    """The error for a file that cannot be opened, created or brought up to date."""
    code = _primary_code(why)
    if code in _DAMAGE:
        return damaged(path, str(why))
    if code == sqlite3.SQLITE_FULL or (isinstance(why, OSError) and why.errno in {errno.ENOSPC, errno.EDQUOT}):
        remedy = "Free some space on its disk."
    else:
        remedy = "Make its folder writable for the user that runs comfykeep, or give [journal] path another place."
    return JournalUnreachable(f"the journal {path} cannot be opened for writing: {why}", details=remedy)


def from_sqlite(path: Path, why: sqlite3.Error) -> JournalError:
    """What an error of SQLite on an open journal means: damage, one bad value, or a write that may succeed later."""
    code = _primary_code(why)
    if code == sqlite3.SQLITE_FULL:
        return full(path, str(why))
    if code in _DAMAGE:
        return damaged(path, str(why))
    if code in _REFUSAL:
        return JournalRefused(f"the journal cannot store this: {why}")
    return JournalUnwritable(
        f"the journal {path} cannot be used now: {why}", details="Look at its disk and at who else has it open."
    )


def _primary_code(error: Exception) -> int | None:
    """SQLite's result code without its extension, which stands in the higher bytes; `None` for what is not SQLite's."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF
