"""The operating system's part: a clock, a watch over files, a file for the state."""

import asyncio
import logging
import os
from pathlib import Path

import pytest

from warmup.system import FileWatch, StateFile, SystemClock


async def test_the_clock_waits_for_the_event_or_the_time() -> None:
    clock, event = SystemClock(), asyncio.Event()
    await asyncio.wait_for(clock.wait(event, 0.0), 30)
    waiting = asyncio.create_task(clock.wait(event, 3600.0))
    event.set()
    await asyncio.wait_for(waiting, 30)
    assert clock.now() > 1_700_000_000


def test_the_state_is_replaced_as_a_whole(tmp_path: Path) -> None:
    store = StateFile(tmp_path / "state.json")
    assert store.load() is None
    store.save("one")
    store.save("two")
    assert store.load() == "two"
    assert [file.name for file in tmp_path.iterdir()] == ["state.json"]


def test_a_state_that_cannot_be_kept_is_said_and_does_no_harm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        StateFile(tmp_path / "no" / "state.json").save("x")
        assert "cannot be written" in caplog.text
        assert StateFile(tmp_path).load() is None
        assert "cannot be read" in caplog.text


def test_a_file_that_changes_appears_or_goes_is_told_once(tmp_path: Path) -> None:
    file, other = tmp_path / "a", tmp_path / "b"
    file.write_text("1")
    watch = FileWatch([file])
    watch.follow([file, other])
    assert not watch.changed()
    os.utime(file, (1, 1))
    assert watch.changed()
    assert not watch.changed()
    other.write_text("")
    assert watch.changed()
    file.unlink()
    assert watch.changed()
    assert not watch.changed()


def test_a_change_while_the_files_were_read_is_told_afterwards(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text("1")
    watch = FileWatch([file])
    file.write_text("22")
    watch.follow([file])
    assert watch.changed()
