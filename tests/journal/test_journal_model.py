"""The journal against a dictionary: any order of calls, restarts and full disks, and both hold the same."""

import asyncio
import random
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from proxy.journal import Journal
from proxy.journal_errors import AlreadyAccepted, JournalFull, UnknownPrompt
from proxy.journal_records import UNSET, Finished, HistoryEntry, Record, Update
from tests.journal.support import limit_growth, record

ids = st.sampled_from([f"p{number}" for number in range(8)])
keys = st.none() | st.sampled_from(["k1", "k2"])
sizes = st.sampled_from([0, 10, 2_000, 60_000])
times = st.none() | st.integers(1, 9).map(float)


def noise(size: int) -> bytes:
    """Bytes that do not compress."""
    return random.Random(size).randbytes(size)  # noqa: S311 - no secret


class JournalMachine(RuleBasedStateMachine):
    """`known` maps ids to records as they should be; `ranked` lists ids in the order in which they got an entry."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.known: dict[str, Record] = {}
        self.ranked: list[str] = []
        self.facts: dict[str, Any] = {}
        self.sequence = 0
        self.full = False

    @initialize()
    def open(self) -> None:
        self.journal = self.runner.run(Journal.open(Path(self.folder.name) / "journal.db"))

    def teardown(self) -> None:
        self.runner.run(limit_growth(self.journal, None))
        self.runner.run(self.journal.close())
        self.runner.close()
        self.folder.cleanup()

    def wait_for(self, future: asyncio.Future[None]) -> None:
        self.runner.run(asyncio.wait_for(future, 30))

    @rule(prompt_id=ids, key=keys, size=sizes)
    def accept(self, prompt_id: str, key: str | None, size: int) -> None:
        new = record(self.sequence + 1, prompt_id=prompt_id, idempotency_key=key, body=noise(size))
        taken = prompt_id in self.known or (key and any(one.idempotency_key == key for one in self.known.values()))
        try:
            self.wait_for(self.journal.accept(new))
        except AlreadyAccepted:
            assert taken
        except JournalFull:
            assert self.full
        else:
            assert not taken
            self.known[prompt_id] = new
            self.sequence += 1

    @rule(
        prompt_id=ids,
        state=st.just(UNSET) | st.sampled_from(["waiting", "running"]),
        number=st.just(UNSET) | st.none() | st.integers(-5, 5),
        finished=st.just(UNSET) | times,
        history=st.just(UNSET) | st.none() | sizes.map(noise),
    )
    def update(self, prompt_id: str, **values: Any) -> None:
        change = self.journal.update(Update(prompt_id=prompt_id, **values))
        if prompt_id not in self.known:
            if not self.full:
                with pytest.raises(UnknownPrompt):
                    self.wait_for(change)
            return
        if not self.full:
            self.wait_for(change)
        set_values = {name: value for name, value in values.items() if value is not UNSET}
        self.known[prompt_id] = replace(self.known[prompt_id], **set_values)
        if self.known[prompt_id].history is None:
            self.ranked = [one for one in self.ranked if one != prompt_id]
        elif prompt_id not in self.ranked:
            self.ranked.append(prompt_id)

    @rule(key=st.sampled_from(["a", "b"]), value=st.none() | st.integers())
    def remember(self, key: str, value: int | None) -> None:
        self.journal.remember({key: value})
        self.facts[key] = value

    def forget(self, gone: set[str]) -> None:
        self.known = {name: one for name, one in self.known.items() if name not in gone}
        self.ranked = [name for name in self.ranked if name in self.known]

    def finished(self) -> list[Record]:
        done = [one for one in self.known.values() if one.finished is not None]
        return sorted(done, key=lambda one: (one.finished, one.sequence))

    @rule(chosen=st.sets(ids, max_size=3))
    def delete(self, chosen: set[str]) -> None:
        gone = {one.prompt_id for one in self.finished()} & chosen
        try:
            count = self.runner.run(self.journal.delete(chosen))
        except JournalFull:
            assert self.full
        else:
            assert self.full or count == len(gone)
            self.forget(gone)

    @rule()
    def clear(self) -> None:
        try:
            self.runner.run(self.journal.clear())
        except JournalFull:
            assert self.full
        else:
            self.forget({one.prompt_id for one in self.finished()})

    @rule(count=st.integers(0, 5), since=st.integers(0, 9).map(float))
    def retain(self, count: int, since: float) -> None:
        done = self.finished()
        gone = {one.prompt_id for one in done if one.finished is not None and one.finished < since}
        gone |= {one.prompt_id for one in done[: max(len(done) - count, 0)]}
        try:
            self.runner.run(self.journal.retain(count, since))
        except JournalFull:
            assert self.full
        else:
            self.forget(gone)

    @precondition(lambda self: not self.full)
    @rule(pages=st.integers(0, 4))
    def fill_the_disk(self, pages: int) -> None:
        self.runner.run(limit_growth(self.journal, pages))
        self.full = True

    @precondition(lambda self: self.full)
    @rule()
    def make_room(self) -> None:
        self.runner.run(limit_growth(self.journal, None))
        self.runner.run(asyncio.wait_for(self.journal.flush(), 30))
        self.full = False

    @precondition(lambda self: not self.full)
    @rule()
    def restart(self) -> None:
        self.runner.run(self.journal.close())
        self.open()

    @invariant()
    def both_hold_the_same(self) -> None:
        if self.full:
            return  # changes may wait for room
        recovered = self.runner.run(self.journal.load())
        unfinished = sorted((one for one in self.known.values() if one.finished is None), key=lambda one: one.sequence)
        assert list(recovered.unfinished) == unfinished
        assert list(recovered.finished) == [
            Finished(one.prompt_id, one.sequence, one.idempotency_key, one.finished or 0, one.outcome)
            for one in self.finished()
        ]
        assert recovered.facts == {key: value for key, value in self.facts.items() if value is not None}
        assert recovered.next_sequence == self.sequence + 1
        entries = [HistoryEntry(name, self.known[name].history or b"") for name in self.ranked]
        assert list(self.runner.run(self.journal.history())) == entries
        for name in ("p0", "p1"):
            assert self.runner.run(self.journal.find(name)) == self.known.get(name)


TestJournalMachine = JournalMachine.TestCase
TestJournalMachine.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
