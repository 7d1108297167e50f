"""Only a sound journal is opened, by one process at a time; all else is left alone, with a word on what to do."""

import asyncio
import os
import shutil
import sqlite3
import stat
import struct
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from proxy.journal import Journal
from proxy.journal_errors import (
    JournalDamaged,
    JournalError,
    JournalLocked,
    JournalTooNew,
    JournalUnreachable,
    JournalUnusable,
)
from proxy.journal_records import Sync, Update
from proxy.journal_schema import APPLICATION_ID, MIGRATIONS, open_database
from tests.journal.support import inside, record

posix = pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")


def write_journal(path: Path, prompts: int = 200) -> None:
    """A journal of some pages."""

    async def write() -> None:
        async with await Journal.open(path) as journal:
            await asyncio.gather(*(journal.accept(record(n, body=os.urandom(900))) for n in range(1, prompts + 1)))

    asyncio.run(write())


def open_and_close(path: Path) -> None:
    """Open a journal, write to it, close it."""

    async def use() -> None:
        async with await Journal.open(path) as journal:
            await journal.accept(record(1))

    asyncio.run(use())


def refusal(path: Path) -> JournalUnusable:
    """The error that opening ends in, after a look that nothing was changed by it."""
    before = {file.name: file.read_bytes() for file in path.parent.iterdir() if file.is_file()}
    with pytest.raises(JournalUnusable) as caught:
        open_and_close(path)
    for name, content in before.items():
        assert (path.parent / name).read_bytes() == content, name
    assert str(path) in caught.value.message
    assert caught.value.details, "what to do"
    return caught.value


def modes(folder: Path) -> dict[str, int]:
    """The permissions of a folder, as ".", and of the files in it."""
    files = {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}
    return {".": stat.S_IMODE(folder.stat().st_mode), **files}


@posix
async def test_nobody_else_can_read_it(path: Path) -> None:
    before = os.umask(0)
    try:
        async with await Journal.open(path) as journal:
            await journal.accept(record(1))
            assert modes(path.parent) == {
                ".": 0o700,
                "journal.db": 0o600,
                "journal.db-wal": 0o600,
                "journal.db-shm": 0o600,
                "journal.db.lock": 0o600,
            }
    finally:
        os.umask(before)


@posix
def test_a_file_that_others_could_read_is_closed_to_them(path: Path) -> None:
    write_journal(path)
    path.chmod(0o644)
    path.parent.chmod(0o750)
    write_journal(path, 0)
    assert modes(path.parent) == {".": 0o750, "journal.db": 0o600, "journal.db.lock": 0o600}


def test_missing_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c" / "journal.db"
    open_and_close(path)
    assert path.is_file()


def test_an_empty_file_is_a_new_journal(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    open_and_close(path)


@pytest.mark.parametrize("name", ["with space.db", "a?b#c%41.db", "ünï.db"])
def test_odd_names_are_taken_literally(tmp_path: Path, name: str) -> None:
    open_and_close(tmp_path / name)
    assert {file.name for file in tmp_path.iterdir()} == {name, f"{name}.lock"}


@pytest.mark.parametrize(
    "content",
    [b"xy", b"not a database\n" * 400, b"SQLite format 3\0" + b"\xff" * 4080],
    ids=["two bytes", "text", "header only"],
)
def test_what_is_no_database_is_refused(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    error = refusal(path)
    assert isinstance(error, JournalDamaged)
    assert "move journal.db" in error.details


def test_another_programs_database_is_refused(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as other:
        other.executescript("CREATE TABLE photos (id); INSERT INTO photos VALUES (1);")
    error = refusal(path)
    assert isinstance(error, JournalDamaged)
    assert "another program" in error.message


def test_a_newer_journal_is_refused(path: Path) -> None:
    write_journal(path)
    with closing(sqlite3.connect(path)) as newer:
        newer.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    error = refusal(path)
    assert isinstance(error, JournalTooNew)
    assert "newer" in error.message


def test_a_truncated_journal_is_refused(path: Path) -> None:
    write_journal(path)
    os.truncate(path, path.stat().st_size // 2)
    assert isinstance(refusal(path), JournalDamaged)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_journal_with_a_page_of_garbage_is_refused(path: Path, share: float) -> None:
    write_journal(path)
    pages = path.stat().st_size // 4096
    with path.open("r+b") as file:
        file.seek(4096 * max(1, int(pages * share)))
        file.write(b"\xa5" * 4096)
    assert isinstance(refusal(path), JournalDamaged)


def test_a_journal_without_its_tables_is_damaged(path: Path) -> None:
    write_journal(path)
    with closing(sqlite3.connect(path)) as other:
        other.execute("ALTER TABLE bodies RENAME TO corpses")

    async def use() -> None:
        async with await Journal.open(path) as journal:
            with pytest.raises(JournalDamaged):
                await journal.load()
            with pytest.raises(JournalDamaged):
                await journal.accept(record(1000))

    asyncio.run(use())


def test_a_folder_in_its_place_is_refused(path: Path) -> None:
    path.mkdir(parents=True)
    assert isinstance(refusal(path), JournalUnreachable)


def test_a_file_in_place_of_its_folder_is_refused(path: Path) -> None:
    path.parent.touch()
    with pytest.raises(JournalUnreachable, match=r"state.*journal\.db"):
        open_and_close(path)


@contextmanager
def without_privileges() -> Iterator[None]:
    """Root may write anywhere: become somebody else for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@posix
@pytest.mark.parametrize("present", [False, True])
def test_a_folder_that_cannot_be_written_is_refused(*, present: bool) -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own are closed to others
        folder = Path(name)
        if present:
            write_journal(folder / "journal.db")
            (folder / "journal.db").chmod(0o666)
            (folder / "journal.db.lock").unlink()
        folder.chmod(0o555)
        with without_privileges():
            error = refusal(folder / "journal.db")
        folder.chmod(0o755)
    assert isinstance(error, JournalUnreachable)
    assert "Permission denied" in error.message
    assert "[journal] path" in error.details


async def test_a_second_instance_is_refused(journal: Journal, path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(path)
    for name in (path, link):
        with pytest.raises(JournalLocked, match=str(os.getpid())):
            await Journal.open(name)
    await journal.accept(record(1))


async def test_the_lock_goes_with_close(path: Path) -> None:
    for sequence in range(1, 4):
        async with await Journal.open(path) as journal:
            await journal.accept(record(sequence))


def test_the_lock_goes_with_a_refused_opening(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"no journal")
    for _ in range(2):
        assert isinstance(refusal(path), JournalDamaged)


async def test_others_may_look_and_back_up_while_it_is_open(journal: Journal, path: Path) -> None:
    await journal.accept(record(1))
    with closing(sqlite3.connect(path)) as visitor, closing(sqlite3.connect(":memory:")) as copy:
        visitor.backup(copy)
        assert copy.execute("SELECT prompt_id FROM prompts").fetchall() == [("p1",)]
    await journal.accept(record(2))


@pytest.mark.parametrize(("sync", "level"), [(Sync.NORMAL, 1), (Sync.FULL, 2)])
async def test_sync_is_what_was_asked_for(path: Path, sync: Sync, level: int) -> None:
    async with await Journal.open(path, sync) as journal:
        query = "SELECT * FROM pragma_journal_mode, pragma_synchronous, pragma_application_id"
        pragmas = await inside(journal, lambda store: store.connection.execute(query).fetchone())
    assert pragmas == ("wal", level, APPLICATION_ID)


async def test_a_write_ahead_log_left_behind_is_read(journal: Journal, path: Path, tmp_path: Path) -> None:
    for sequence in (1, 2):
        await journal.accept(record(sequence))
    journal.update(Update(prompt_id="p1", finished=1.0))
    await journal.flush()
    shutil.copytree(path.parent, tmp_path / "left")  # as a killed process leaves it
    async with await Journal.open(tmp_path / "left" / "journal.db") as again:
        assert [one.prompt_id for one in (await again.load()).unfinished] == ["p2"]


def test_a_kill_while_the_file_was_made_does_no_harm(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    # The rollback journal of that very step, not yet deleted (sqlite.org/fileformat.html, "The Rollback Journal"):
    # no pages to restore, and a database that had none before.
    magic, records, nonce, pages, sector, page = bytes.fromhex("d9d505f920a163d7"), 0, 7, 0, 512, 4096
    header = struct.pack(">8sIIIII", magic, records, nonce, pages, sector, page)
    path.with_name("journal.db-journal").write_bytes(header.ljust(sector, b"\0"))
    with (
        closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as reader,
        pytest.raises(sqlite3.OperationalError),
    ):
        reader.execute("PRAGMA application_id")
    open_and_close(path)


def test_a_later_version_migrates_and_keeps_everything(path: Path) -> None:
    write_journal(path, 5)
    later = (*MIGRATIONS, "ALTER TABLE prompts ADD COLUMN colour TEXT", "UPDATE prompts SET colour = 'blue'")
    with closing(open_database(path, Sync.NORMAL, later)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(later),)
        assert connection.execute("SELECT count(*), min(colour) FROM prompts").fetchone() == (5, "blue")


def test_a_migration_that_fails_leaves_the_last_good_version(path: Path) -> None:
    write_journal(path, 5)
    broken = (*MIGRATIONS, "ALTER TABLE prompts ADD COLUMN colour TEXT", "DELETE FROM prompts; SELECT no_such_thing")
    with pytest.raises(JournalError):
        open_database(path, Sync.NORMAL, broken)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS) + 1,)
        assert connection.execute("SELECT count(colour), count(*) FROM prompts").fetchone() == (0, 5)
