"""What goes in comes out: across a restart, in order, whatever clients put into it."""

import asyncio
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.journal import Journal
from proxy.journal_errors import AlreadyAccepted, JournalRefused, UnknownPrompt
from proxy.journal_records import Finished, HistoryEntry, Record, Update
from proxy.journal_store import PACK_FROM, SHRINK_PAGES
from tests.journal.support import held_up, inside, record

FULL = Record(
    prompt_id="p1",
    sequence=1,
    body=b'{"prompt": {"1": {}}, "number": 7}',
    answer=b'{"prompt_id": "p1", "number": 7.0, "node_errors": {}}',
    submitted=1700000000.125,
    state="waiting",
    client_id="c",
    number=7,
    front=True,
    priority=-3,
    order_key="chain",
    idempotency_key="key",
    headers=(("Comfy-User", "anna"), ("Comfy-Usage-Source", "page"), ("Comfy-User", "again")),
    attempts=2,
    upstream="process 5",
    dispatched=1700000001.5,
    started=1700000002.5,
)

# JSON strings may hold lone surrogates and NULs, and ComfyUI takes them as ids.
texts = st.text(st.characters(codec=None), max_size=20)
numbers = st.none() | st.integers() | st.floats(allow_nan=False)
times = st.none() | st.floats(0, 1e11)
blobs = st.binary(max_size=50) | st.binary(max_size=50).map(lambda some: some * 200)
records = st.builds(
    Record,
    prompt_id=texts,
    sequence=st.integers(1, 2**62),
    body=blobs,
    answer=blobs,
    submitted=st.floats(0, 1e11),
    state=texts,
    client_id=st.none() | texts,
    number=numbers,
    front=st.booleans(),
    priority=st.integers(-(2**63), 2**63 - 1),
    order_key=st.none() | texts,
    idempotency_key=st.none() | texts,
    headers=st.lists(st.tuples(texts, texts), max_size=3).map(tuple),
    attempts=st.integers(0, 100),
    upstream=st.none() | texts,
    dispatched=times,
    started=times,
    finished=times,
    outcome=st.none() | texts,
    history=st.none() | blobs,
)


async def reopen(journal: Journal, path: Path) -> Journal:
    await journal.close()
    return await Journal.open(path)


async def test_an_accepted_prompt_comes_back_whole(journal: Journal, path: Path) -> None:
    await journal.accept(FULL)
    async with await reopen(journal, path) as again:
        recovered = await again.load()
    assert recovered.unfinished == (FULL,)
    assert recovered.next_sequence == 2
    assert type(recovered.unfinished[0].number) is int


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(record=records)
def test_any_record_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, record: Record) -> None:
    async def there_and_back() -> None:
        async with await Journal.open(tmp_path_factory.mktemp("any") / "journal.db") as journal:
            await journal.accept(record)
            assert await journal.find(record.prompt_id) == record
            if record.idempotency_key is not None:
                assert await journal.find_key(record.idempotency_key) == record

    asyncio.run(there_and_back())


async def test_nan_as_a_number_comes_back(journal: Journal) -> None:
    await journal.accept(record(1, number=math.nan))
    found = await journal.find("p1")
    assert found is not None
    assert found.number is not None
    assert math.isnan(found.number)


async def test_large_bodies_are_stored_compressed(journal: Journal) -> None:
    body, entry = b'{"class_type": "KSampler"}' * 4000, b'{"outputs": {}}' * 4000
    await journal.accept(record(1, body=body, history=entry))

    query = "SELECT length(body), length(entry) FROM bodies JOIN histories USING (sequence)"
    assert max(await inside(journal, lambda store: store.connection.execute(query).fetchone())) < 2000
    found = await journal.find("p1")
    assert found is not None
    assert (found.body, found.history) == (body, entry)


@pytest.mark.parametrize("size", [0, 1, PACK_FROM - 1, PACK_FROM, PACK_FROM + 1, 3_000_000])
async def test_bodies_of_any_size_come_back(journal: Journal, size: int) -> None:
    body = (bytes(range(256)) * (size // 256 + 1))[:size]
    await journal.accept(record(1, body=body))
    found = await journal.find("p1")
    assert found is not None
    assert found.body == body


async def test_the_unfinished_come_back_in_order_of_acceptance(journal: Journal) -> None:
    for sequence in (5, 2, 9, 3):
        await journal.accept(record(sequence))
    journal.update(Update(prompt_id="p9", finished=5.0, outcome="success"))
    journal.update(Update(prompt_id="p3", finished=4.0, outcome="cancelled"))
    recovered = await journal.load()
    assert [one.sequence for one in recovered.unfinished] == [2, 5]
    assert recovered.finished == (Finished("p3", 3, None, 4.0, "cancelled"), Finished("p9", 9, None, 5.0, "success"))
    assert recovered.next_sequence == 10


async def test_a_sequence_is_never_used_again(journal: Journal, path: Path) -> None:
    await journal.accept(record(7, finished=1.0))
    assert await journal.clear() == 1
    async with await reopen(journal, path) as again:
        assert (await again.load()).next_sequence == 8


@pytest.mark.parametrize(
    "second",
    [record(2, prompt_id="p1"), record(1, prompt_id="other"), record(2, idempotency_key="key")],
    ids=["prompt id", "sequence", "idempotency key"],
)
async def test_what_is_known_is_not_accepted_again(journal: Journal, second: Record) -> None:
    first = record(1, idempotency_key="key")
    await journal.accept(first)
    with pytest.raises(AlreadyAccepted):
        await journal.accept(second)
    assert (await journal.load()).unfinished == (first,)


async def test_one_bad_record_does_not_harm_those_it_shares_a_commit_with(journal: Journal) -> None:
    with held_up(journal):
        group = [
            asyncio.ensure_future(journal.accept(one))
            for one in (
                record(1),
                record(2, prompt_id="p1"),
                record(3, priority=2**63),
                record(4),
                record(5, answer=object()),  # found to be wrong when the first of its rows is written
            )
        ]
        await asyncio.sleep(0)
    results = await asyncio.gather(*group, return_exceptions=True)
    assert [type(result) for result in results] == [
        type(None),
        AlreadyAccepted,
        JournalRefused,
        type(None),
        JournalRefused,
    ]
    assert [one.sequence for one in (await journal.load()).unfinished] == [1, 4]
    await journal.accept(record(5))


async def test_writes_that_wait_together_share_one_commit(journal: Journal) -> None:
    seen: list[str] = []
    await inside(journal, lambda store: store.connection.set_trace_callback(seen.append))
    with held_up(journal):
        group = [asyncio.ensure_future(journal.accept(record(sequence))) for sequence in range(1, 101)]
        await asyncio.sleep(0)
        seen.clear()
    await asyncio.gather(*group)
    assert sum(sql.startswith("INSERT INTO prompts") for sql in seen) == 100
    assert seen.count("BEGIN IMMEDIATE") == 1


async def test_an_update_changes_what_it_sets_and_nothing_else(journal: Journal) -> None:
    await journal.accept(FULL)
    await journal.update(Update(prompt_id="p1", state="running", started=9.0))
    await journal.update(Update(prompt_id="p1", order_key=None, number=None, front=False))
    await journal.update(Update(prompt_id="p1"))
    found = await journal.find("p1")
    assert found == replace(FULL, state="running", started=9.0, order_key=None, number=None, front=False)


async def test_updates_take_effect_in_the_order_of_their_calls(journal: Journal) -> None:
    await journal.accept(record(1))
    for attempt in range(1, 50):
        journal.update(Update(prompt_id="p1", attempts=attempt))
    found = await journal.find("p1")
    assert found is not None
    assert found.attempts == 49


async def test_a_finished_prompt_can_be_taken_up_again(journal: Journal) -> None:
    await journal.accept(record(1, finished=5.0, outcome="error", history=b"{}"))
    await journal.update(Update(prompt_id="p1", finished=None, outcome=None, history=None))
    assert (await journal.load()).unfinished == (record(1),)
    assert await journal.history() == ()


async def test_an_update_of_an_unknown_prompt_is_an_error(journal: Journal) -> None:
    with pytest.raises(UnknownPrompt, match="p1"):
        await journal.update(Update(prompt_id="p1", state="running"))


async def test_lookups_of_what_is_not_there(journal: Journal) -> None:
    assert await journal.find("p1") is None
    assert await journal.find_key("key") is None
    assert await journal.history_entry("p1") is None


async def test_facts_are_kept_replaced_and_forgotten(journal: Journal, path: Path) -> None:
    journal.remember({"load.a": 1.5, "load.b": {"cold": [1, 2]}, "paused": False})
    journal.remember({"load.a": 2.5, "load.b": None, "\ud800": "odd"})
    async with await reopen(journal, path) as again:
        assert (await again.load()).facts == {"load.a": 2.5, "paused": False, "\ud800": "odd"}


async def test_facts_are_taken_as_they_are_at_the_call(journal: Journal) -> None:
    costs = {"cold": [1]}
    with held_up(journal):
        journal.remember({"load.a": costs})
        costs["cold"].append(2)
    assert (await journal.load()).facts == {"load.a": {"cold": [1]}}
    with pytest.raises(TypeError):
        journal.remember({"not JSON": {1, 2}})


def comfyui_history(entries: dict[str, bytes], max_items: int | None, offset: int) -> list[HistoryEntry]:
    """ComfyUI's paging (execution.py, `get_history`), in other words."""
    start = len(entries) - max_items if offset < 0 and max_items is not None else offset
    chosen = [pair for index, pair in enumerate(entries.items()) if index >= start]
    return [HistoryEntry(*pair) for pair in chosen[:max_items]]


async def test_history_is_paged_as_comfyui_does(journal: Journal) -> None:
    entries: dict[str, bytes] = {}
    for sequence in (3, 1, 4, 2):  # ends in this order; 5 ends without an entry
        await journal.accept(record(sequence))
        entries[f"p{sequence}"] = b'{"status": %d}' % sequence
        journal.update(Update(prompt_id=f"p{sequence}", finished=1.0, history=entries[f"p{sequence}"]))
    await journal.accept(record(5, finished=1.0, outcome="cancelled"))
    for max_items in (None, 1, 3, 4, 10):
        for offset in (-1, 0, 1, 3, 4, 10):
            page = await journal.history(max_items, offset)
            assert list(page) == comfyui_history(entries, max_items, offset), (max_items, offset)
    assert await journal.history_entry("p4") == HistoryEntry("p4", b'{"status": 4}')
    assert await journal.history_entry("p5") is None


async def test_an_entry_that_is_written_again_keeps_its_place(journal: Journal) -> None:
    for sequence in (1, 2):
        await journal.accept(record(sequence, finished=1.0, history=b"first"))
    await journal.update(Update(prompt_id="p1", history=b"second"))
    assert await journal.history() == (HistoryEntry("p1", b"second"), HistoryEntry("p2", b"first"))


async def test_deleting_forgets_the_finished_only(journal: Journal) -> None:
    for sequence in (1, 2, 3):
        await journal.accept(record(sequence, history=b"{}", idempotency_key=f"k{sequence}"))
    for sequence in (1, 2):
        journal.update(Update(prompt_id=f"p{sequence}", finished=1.0))
    assert await journal.delete(["p1", "p3", "unknown"]) == 1
    assert await journal.find("p1") is None
    assert await journal.find_key("k1") is None
    assert [entry.prompt_id for entry in await journal.history()] == ["p2", "p3"]
    await journal.accept(record(4, prompt_id="p1", idempotency_key="k1"))
    assert await journal.clear() == 1
    assert [one.prompt_id for one in (await journal.load()).unfinished] == ["p3", "p1"]


async def test_what_is_withdrawn_is_forgotten_whether_it_has_finished_or_not(journal: Journal) -> None:
    for sequence in (1, 2, 3):
        await journal.accept(record(sequence, idempotency_key=f"k{sequence}"))
    journal.update(Update(prompt_id="p1", finished=1.0))
    journal.withdraw(("p1", "p3", "unknown"))
    await journal.accept(record(4, prompt_id="p1", idempotency_key="k1"))
    assert [one.prompt_id for one in (await journal.load()).unfinished] == ["p2", "p1"]


async def test_deleting_leaves_no_rows_behind(journal: Journal) -> None:
    await journal.accept(record(1, finished=1.0, history=b"{}"))
    await journal.clear()
    query = "SELECT (SELECT count(*) FROM bodies) + (SELECT count(*) FROM histories)"
    assert await inside(journal, lambda store: store.connection.execute(query).fetchone()) == (0,)


async def test_retention_goes_by_count_and_by_age_and_spares_what_waits(journal: Journal) -> None:
    await journal.accept(record(1))
    for sequence in range(2, 12):
        await journal.accept(record(sequence, finished=100.0 - sequence))  # 2 finished last, 11 first
    assert await journal.retain(count=100, finished_since=91.0) == 2
    assert await journal.retain(count=100, finished_since=91.0) == 0
    assert await journal.retain(count=3, finished_since=0.0) == 5
    recovered = await journal.load()
    assert [one.prompt_id for one in recovered.finished] == ["p4", "p3", "p2"]
    assert [one.prompt_id for one in recovered.unfinished] == ["p1"]
    assert await journal.retain(count=0, finished_since=0.0) == 3


async def test_the_file_shrinks_bit_by_bit_when_little_is_left_in_it(journal: Journal) -> None:
    await asyncio.gather(*(journal.accept(record(n, body=os.urandom(100_000), finished=1.0)) for n in range(1, 101)))
    await journal.accept(record(101))
    await journal.clear()

    async def pages() -> int:
        (count,) = await inside(journal, lambda store: store.connection.execute("PRAGMA page_count").fetchone())
        assert isinstance(count, int)
        return count

    before = await pages()
    assert await journal.retain(count=0, finished_since=0.0) == 0
    assert 0 <= before - SHRINK_PAGES - await pages() <= 2  # the pages that list pages go with them
    for _ in range(5):
        await journal.retain(count=0, finished_since=0.0)
    assert await pages() < 2 * SHRINK_PAGES
    assert (await journal.load()).unfinished == (record(101),)
