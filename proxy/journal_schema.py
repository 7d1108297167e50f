"""Open a journal's database, or say why not, without ever touching a file that is not a sound journal of ours.

A path in a configuration file may name anything: the journal of a newer version, one cut short by a dying disk, another
program's database, the holiday photos. So the file is looked at through a read-only connection first, and only opened
for writing, and migrated, when everything about it is right.

One process at a time: the lock is an OS lock on a file beside the database, which the system drops with its
holder however that dies. SQLite's exclusive locking mode would do the same without the file, but it would shut out
backups and a look with the `sqlite3` tool as well, and could not say who holds the lock.
"""

import os
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from proxy.journal_errors import JournalDamaged, JournalLocked, JournalTooNew, damaged, unopenable
from proxy.journal_records import Sync

APPLICATION_ID: Final = 0x636B6A6C
"""Stands in the database's header and tells it from other programs' ("ckjl")."""

BUSY_SECONDS: Final = 5.0
"""How long a write waits for a backup tool that holds SQLite's own lock."""

WAL_BYTES: Final = 64 * 2**20
"""What the write-ahead log is cut back to after one very large prompt made it grow."""

MIGRATIONS: Final[tuple[str, ...]] = (
    # Three tables, so that a change of state does not write a large body again.
    """
    CREATE TABLE prompts (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        prompt_id TEXT NOT NULL UNIQUE,
        idempotency_key TEXT UNIQUE,
        client_id TEXT,
        number TEXT,
        front INTEGER NOT NULL,
        priority INTEGER NOT NULL,
        order_key TEXT,
        state TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        upstream TEXT,
        submitted REAL NOT NULL,
        dispatched REAL,
        started REAL,
        finished REAL,
        outcome TEXT
    );
    CREATE INDEX prompts_unfinished ON prompts (sequence) WHERE finished IS NULL;
    CREATE INDEX prompts_finished ON prompts (finished, sequence) WHERE finished IS NOT NULL;
    CREATE TABLE bodies (
        sequence INTEGER PRIMARY KEY REFERENCES prompts ON DELETE CASCADE,
        headers TEXT NOT NULL,
        answer BLOB NOT NULL,
        packed INTEGER NOT NULL,
        body BLOB NOT NULL
    );
    CREATE TABLE histories (
        rank INTEGER PRIMARY KEY AUTOINCREMENT,
        sequence INTEGER NOT NULL UNIQUE REFERENCES prompts ON DELETE CASCADE,
        packed INTEGER NOT NULL,
        entry BLOB NOT NULL
    );
    CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT NOT NULL);
    """,
)
"""What leads from each version to the next; `PRAGMA user_version` counts how many were applied."""


class InstanceLock:
    """The right to use a journal, held until `release` or the end of the process."""

    def __init__(self, path: Path) -> None:
        """Take the lock in the file `path`, created if need be.

        Raises:
            JournalLocked: when another process, or another journal of this one, holds it.
            JournalUnreachable: when the file cannot be opened.
        """
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise unopenable(path, error) from error
        try:
            _lock(self._file)
        except OSError as error:
            holder = os.read(self._file, 20).decode("ascii", "replace").strip()
            os.close(self._file)
            raise JournalLocked(
                f"another comfykeep, process {holder or 'unknown'}, uses the journal: {path} is locked",
                details="Stop it, or give this one another [journal] path.",
            ) from error
        os.ftruncate(self._file, 0)
        os.write(self._file, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Let another process have it. The file stays: without it, two processes could lock two files of one name."""
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _lock(file: int) -> None:
    """Lock an open file against other openings of it, or raise `OSError` at once."""
    if sys.platform == "win32":
        import msvcrt  # noqa: PLC0415 - exists on Windows only

        os.lseek(file, 1 << 30, os.SEEK_SET)  # far behind what is written: Windows forbids reading a locked byte
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(file, 0, os.SEEK_SET)  # where it says who holds it
    else:
        import fcntl  # noqa: PLC0415 - does not exist on Windows

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def prepare_folder(path: Path) -> Path:
    """The journal's path without links in it, its folder made (for its owner alone) if it is missing.

    Raises:
        JournalUnreachable: when that fails.
    """
    try:
        path = path.resolve()
        path.parent.parent.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(mode=0o700, exist_ok=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, up to Python 3.12
        raise unopenable(path, error) from error
    return path


def open_database(path: Path, sync: Sync, migrations: Sequence[str] = MIGRATIONS) -> sqlite3.Connection:
    """Open (or create) the database for the thread that calls; the lock must be held.

    Raises:
        JournalUnusable: one of its kinds, when the file is no sound journal or not writable; it is unchanged then.
    """
    try:
        _make_private(path)
        _inspect(path, len(migrations))
        connection = sqlite3.connect(
            f"{path.as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=BUSY_SECONDS, cached_statements=64
        )
    except (OSError, sqlite3.OperationalError) as error:
        raise unopenable(path, error) from error
    try:
        _configure(connection, sync)
        _migrate(connection, migrations)
    except sqlite3.Error as error:
        connection.close()
        raise unopenable(path, error) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _make_private(path: Path) -> None:
    """Create the file, or take others' rights to it away; SQLite gives its side files the same mode."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    for file in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        if os.name == "posix" and file.exists() and file.stat().st_mode & 0o077:
            file.chmod(0o600)


def _inspect(path: Path, known: int) -> None:
    """Refuse what is damaged, foreign or too new, through a connection that cannot write.

    A process that was killed while it made the file, before the write-ahead log was on, leaves changes that have to be
    undone first, which such a connection cannot do either. Then the file is judged as it lies there.
    """
    try:
        _judge(path, known, "mode=ro")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_READONLY_ROLLBACK:
            raise
        _judge(path, known, "mode=ro&immutable=1")


def _judge(path: Path, known: int, how: str) -> None:
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?{how}", uri=True, timeout=BUSY_SECONDS)) as connection:
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if application != APPLICATION_ID and (tables or version):
                raise JournalDamaged(
                    f"{path} is another program's database, no journal",
                    details="It was left as it is. Give [journal] path a file of its own.",
                )
            if version > known:
                raise JournalTooNew(
                    f"a newer comfykeep wrote the journal {path}: format {version}, this one knows {known}",
                    details="It was left as it is. Run that version, or give this one another [journal] path.",
                )
            faults = [fault for (fault,) in connection.execute("PRAGMA quick_check(3)") if fault != "ok"]
    except sqlite3.OperationalError:
        raise  # busy, unreadable: says nothing about the content
    except sqlite3.DatabaseError as error:
        faults = [str(error)]
    if faults:
        raise damaged(path, "; ".join(faults))


def _configure(connection: sqlite3.Connection, sync: Sync) -> None:
    if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # only an empty database takes it
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {sync.upper()}")
    if sync is Sync.FULL:
        connection.execute("PRAGMA fullfsync = ON")  # macOS: an ordinary fsync stops at the drive's cache
    connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
    connection.execute("PRAGMA foreign_keys = ON")


def _migrate(connection: sqlite3.Connection, migrations: Sequence[str]) -> None:
    """Apply what is missing, each step in a transaction with its version number: whole or not at all."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    for number, script in enumerate(migrations[version:], start=version + 1):
        try:
            connection.executescript(
                f"BEGIN IMMEDIATE; {script}; PRAGMA application_id = {APPLICATION_ID};"
                f"PRAGMA user_version = {number}; COMMIT;"
            )
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
