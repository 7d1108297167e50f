"""Nobody who asks the journal waits for ever, and no error is lost: cancellation, closing, damage while it is open."""

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from proxy.journal import Journal
from proxy.journal_errors import JournalClosed, JournalDamaged, JournalRefused, UnknownPrompt
from proxy.journal_records import Update
from tests.journal.support import held_up, inside, record


async def failed(journal: Journal) -> bool:
    """Whether `watch` has something to raise once all that was asked for is done."""
    watching = asyncio.ensure_future(journal.watch())
    await journal.flush()
    await asyncio.wait([watching], timeout=0.01)
    return not watching.cancel()


async def test_sqlite_runs_outside_the_event_loop(journal: Journal) -> None:
    assert await inside(journal, lambda _: threading.get_ident()) != threading.get_ident()


async def test_a_caller_that_is_cancelled_leaves_its_prompt_behind(journal: Journal) -> None:
    with held_up(journal):
        task = asyncio.ensure_future(journal.accept(record(1)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        other = asyncio.ensure_future(journal.accept(record(2)))
        await asyncio.sleep(0)
    await other
    assert (await journal.load()).unfinished == (record(1), record(2))


async def test_closing_writes_what_was_asked_for(path: Path) -> None:
    journal = await Journal.open(path)
    with held_up(journal):
        accepted = asyncio.ensure_future(journal.accept(record(1)))
        await asyncio.sleep(0)
        journal.update(Update(prompt_id="p1", state="running"))
        journal.remember({"paused": True})
        closing = asyncio.ensure_future(journal.close())
        await asyncio.sleep(0)
    await asyncio.gather(accepted, closing)
    async with await Journal.open(path) as again:
        recovered = await again.load()
    assert recovered.unfinished == (record(1, state="running"),)
    assert recovered.facts == {"paused": True}


async def test_a_closed_journal_says_so(path: Path) -> None:
    journal = await Journal.open(path)
    await asyncio.gather(journal.close(), journal.close())
    await journal.close()
    with pytest.raises(JournalClosed):
        await journal.accept(record(1))
    with pytest.raises(JournalClosed):
        journal.update(Update(prompt_id="p1"))


async def test_a_close_that_is_cancelled_goes_on(path: Path) -> None:
    journal = await Journal.open(path)
    with held_up(journal):
        closing = asyncio.ensure_future(journal.close())
        await asyncio.sleep(0)
        closing.cancel()
    await journal.close()
    await (await Journal.open(path)).close()


async def test_an_error_that_nobody_awaits_comes_to_light(journal: Journal) -> None:
    watching = asyncio.ensure_future(journal.watch())
    await journal.accept(record(1))
    journal.update(Update(prompt_id="p1", attempts=2**63))
    with pytest.raises(JournalRefused):
        await asyncio.wait_for(watching, 30)
    assert await failed(journal)


async def test_late_news_of_a_deleted_prompt_are_no_failure(journal: Journal) -> None:
    await journal.accept(record(1, finished=1.0))
    await journal.delete(["p1"])
    with pytest.raises(UnknownPrompt):
        await journal.update(Update(prompt_id="p1", history=b"{}"))
    assert not await failed(journal)


async def test_refusals_are_told_to_who_asked_and_are_no_failure(journal: Journal) -> None:
    await journal.accept(record(1))
    await asyncio.gather(*(journal.accept(record(1)) for _ in range(3)), return_exceptions=True)
    assert not await failed(journal)


async def test_damage_found_while_open_stops_all_writing(path: Path) -> None:
    async with await Journal.open(path) as journal:
        await asyncio.gather(*(journal.accept(record(sequence, body=b"x" * 900)) for sequence in range(1, 100)))

    def spoil(_: object) -> None:
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xa5" * 4096 * 20)

    async with await Journal.open(path) as journal:
        await inside(journal, spoil)
        with pytest.raises(JournalDamaged):
            await journal.load()
        with pytest.raises(JournalDamaged):
            await journal.watch()
        with pytest.raises(JournalDamaged):
            await journal.accept(record(100))
        with pytest.raises(JournalDamaged):
            await journal.update(Update(prompt_id="p1", state="running"))


FORGETFUL = """
import asyncio, pathlib, sys
from proxy.journal import Journal
async def main():
    journal = await Journal.open(pathlib.Path(sys.argv[1]))
    journal.remember({"a": 1})
asyncio.run(main())
"""


async def test_a_program_that_does_not_close_it_ends_all_the_same(path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", FORGETFUL, str(path)]
    result = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    await (await Journal.open(path)).close()
