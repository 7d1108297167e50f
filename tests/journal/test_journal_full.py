"""A full disk refuses new prompts, forgets nothing about accepted ones, and is over when there is room again."""

import asyncio
import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from proxy import journal_commit
from proxy.journal import Journal
from proxy.journal_errors import JournalFull, JournalUnwritable
from proxy.journal_records import Update
from tests.journal.support import held_up, inside, limit_growth, record

BIG = os.urandom(100_000)


class DiskUsage(NamedTuple):
    """As `shutil.disk_usage` gives it, in bytes."""

    total: int
    used: int
    free: int


def trouble_of(journal: Journal) -> JournalUnwritable | None:
    """A call, lest mypy takes the last look for the truth."""
    return journal.trouble


def put_away(path: Path) -> Path:
    """Move a file, as somebody who tidies up would."""
    return path.rename(path.with_name("moved.db"))


async def test_a_prompt_that_does_not_fit_is_refused_and_the_next_that_fits_is_taken(journal: Journal) -> None:
    await journal.accept(record(1, body=BIG))
    await limit_growth(journal, 3)
    with pytest.raises(JournalFull) as caught:
        await journal.accept(record(2, body=BIG))
    assert caught.value.status == 507
    assert caught.value.details
    assert isinstance(trouble_of(journal), JournalFull)
    await journal.accept(record(3))
    assert trouble_of(journal) is None
    await limit_growth(journal, None)
    await journal.accept(record(2, body=BIG))
    recovered = await journal.load()
    assert recovered.unfinished == (record(1, body=BIG), record(2, body=BIG), record(3))


async def test_prompts_that_fit_are_taken_though_one_beside_them_does_not(journal: Journal) -> None:
    await limit_growth(journal, 3)
    with held_up(journal):
        group = [asyncio.ensure_future(journal.accept(one)) for one in (record(1), record(2, body=BIG), record(3))]
        await asyncio.sleep(0)
    results = await asyncio.gather(*group, return_exceptions=True)
    assert [type(result) for result in results] == [type(None), JournalFull, type(None)]
    assert (await journal.load()).unfinished == (record(1), record(3))


async def test_news_of_accepted_prompts_wait_for_room_in_order(journal: Journal, path: Path) -> None:
    await journal.accept(record(1))
    await journal.accept(record(2))
    await limit_growth(journal, 0)
    first = journal.update(Update(prompt_id="p1", finished=1.0, history=BIG))
    second = journal.update(Update(prompt_id="p2", state="running"))
    third = journal.update(Update(prompt_id="p2", state="waiting"))
    with pytest.raises(JournalFull):
        await journal.accept(record(3))
    assert not any(change.done() for change in (first, second, third))
    assert isinstance(trouble_of(journal), JournalFull)
    assert len((await journal.load()).unfinished) == 2
    await limit_growth(journal, None)
    await asyncio.gather(first, second, third)
    assert trouble_of(journal) is None
    await journal.accept(record(3))
    await journal.close()
    async with await Journal.open(path) as again:
        assert [(one.prompt_id, one.state) for one in (await again.load()).unfinished] == [
            ("p2", "waiting"),
            ("p3", "waiting"),
        ]
        entry = await again.history_entry("p1")
        assert entry is not None
        assert entry.entry == BIG


async def test_what_waits_for_room_is_tried_again_by_itself(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.journal_worker.RETRY_SECONDS", 0.01)
    await journal.accept(record(1))
    await limit_growth(journal, 0)
    change = journal.update(Update(prompt_id="p1", finished=1.0, history=BIG))
    await limit_growth(journal, None)
    await asyncio.wait_for(change, 30)


async def test_closing_writes_what_waits_if_there_is_room_by_then(journal: Journal, path: Path) -> None:
    await journal.accept(record(1))
    await limit_growth(journal, 0)
    change = journal.update(Update(prompt_id="p1", finished=1.0, history=BIG))
    with held_up(journal):
        growing = asyncio.ensure_future(limit_growth(journal, None))
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(journal.close())
        await asyncio.sleep(0)
    await asyncio.gather(growing, closing, change)
    async with await Journal.open(path) as again:
        assert (await again.load()).unfinished == ()


async def test_closing_says_what_could_not_be_written(path: Path) -> None:
    journal = await Journal.open(path)
    await journal.accept(record(1))
    await limit_growth(journal, 0)
    change = journal.update(Update(prompt_id="p1", finished=1.0, history=BIG))
    with pytest.raises(JournalFull):
        await journal.close()
    with pytest.raises(JournalFull):
        await change
    async with await Journal.open(path) as again:
        assert (await again.load()).unfinished == (record(1),)


async def test_deleting_on_a_full_disk_makes_room(journal: Journal) -> None:
    await journal.accept(record(1, body=BIG, finished=1.0))
    await limit_growth(journal, 0)
    with pytest.raises(JournalFull):
        await journal.accept(record(2, body=BIG))
    assert await journal.clear() == 1
    await journal.accept(record(2, body=BIG))


async def test_new_prompts_leave_a_reserve_to_the_accepted_ones(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    await journal.accept(record(1))
    monkeypatch.setattr(journal_commit, "RESERVE_BYTES", 2**62)
    with pytest.raises(JournalFull, match="are kept"):
        await journal.accept(record(2))
    await journal.update(Update(prompt_id="p1", finished=1.0, history=b"{}"))
    assert await journal.clear() == 1
    monkeypatch.undo()
    await journal.accept(record(2))


async def test_trouble_ends_by_itself_when_there_is_room_and_nothing_to_write(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.journal_worker.RETRY_SECONDS", 0.001)
    looks: list[int] = []
    looked_three_times = threading.Event()

    def room_at_the_third_look(_: Path) -> DiskUsage:
        looks.append(len(looks))
        if len(looks) < 3:
            return DiskUsage(2**40, 0, 0)
        looked_three_times.set()
        return DiskUsage(2**40, 0, 2**40)

    monkeypatch.setattr("shutil.disk_usage", room_at_the_third_look)
    with pytest.raises(JournalFull):
        await journal.accept(record(1))
    assert await asyncio.to_thread(looked_three_times.wait, 30)
    await journal.load()  # what the journal's thread said before has arrived by then
    assert trouble_of(journal) is None
    assert looks == [0, 1, 2]
    await journal.accept(record(1))


async def test_a_journal_that_was_replaced_or_removed_takes_nothing_more(journal: Journal, path: Path) -> None:
    await journal.accept(record(1))
    moved = put_away(path)
    with pytest.raises(JournalUnwritable, match="gone"):
        await journal.accept(record(2))
    await asyncio.to_thread(path.touch)
    with pytest.raises(JournalUnwritable, match="replaced"):
        await journal.accept(record(2))
    await asyncio.to_thread(moved.replace, path)
    await journal.accept(record(2))


async def test_another_programs_lock_delays_and_then_refuses(journal: Journal, path: Path) -> None:
    await journal.accept(record(1))
    await inside(journal, lambda store: store.connection.execute("PRAGMA busy_timeout = 1").fetchone())
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalUnwritable, match="locked"):
            await journal.accept(record(2))
        change = journal.update(Update(prompt_id="p1", state="running"))
        other.execute("ROLLBACK")
        await journal.flush()
        assert change.done()
    await journal.accept(record(2))
