"""Killed at any instruction, it has everything that was accepted, and every change that was reported as done."""

import asyncio
import random
import signal
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from proxy.journal import Journal
from tests.journal.support import body_of

SEED = 20


def kill_after(lines: int, path: Path, sync: str) -> dict[str, set[int]]:
    """Let a victim write until it has said so many lines, kill it, and return what it said: numbers by word."""
    said: dict[str, set[int]] = defaultdict(set)
    command = [sys.executable, "-m", "tests.journal.victim", str(path), sync]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as victim:  # noqa: S603 - a program of our own
        assert victim.stdout is not None
        for count, line in enumerate(victim.stdout, start=1):
            word, number = line.split()
            said[word].add(int(number))
            if count == lines:
                victim.kill()
    assert victim.returncode == -signal.SIGKILL
    return said


async def check(path: Path, said: dict[str, set[int]]) -> None:
    """Nothing lost, nothing invented, nothing changed, nothing out of order."""
    async with await Journal.open(path) as journal:
        recovered = await journal.load()
        entries = await journal.history()
    waiting = {record.sequence: record for record in recovered.unfinished}
    ended = {finished.sequence for finished in recovered.finished}
    assert said["accepted"] <= waiting.keys() | ended <= said["try"]
    assert said["ended"] <= ended <= said["running"]
    assert not waiting.keys() & ended
    assert list(waiting) == sorted(waiting)
    for number, record in waiting.items():
        assert record.body == body_of(number)
        assert (record.state, record.attempts) in {("waiting", 0), ("running", 1)}
        assert number not in said["running"] or record.state == "running"
    assert {entry.prompt_id: entry.entry for entry in entries} == {f"p{number}": body_of(number) for number in ended}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
@pytest.mark.parametrize(("sync", "kills"), [("normal", 4), ("full", 2)])
def test_nothing_accepted_is_lost_by_a_kill(path: Path, sync: str, kills: int) -> None:
    chance = random.Random(SEED)  # noqa: S311 - a reproducible choice, no secret
    said: dict[str, set[int]] = defaultdict(set)
    for _ in range(kills):
        for word, numbers in kill_after(chance.randrange(20, 1500), path, sync).items():
            said[word] |= numbers
        asyncio.run(check(path, said))
    assert len(said["ended"]) > 10
