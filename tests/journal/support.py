"""What the journal's tests share: records, a sight of the database from inside, and a disk that fills up."""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from proxy.journal import Journal
from proxy.journal_commit import Kind
from proxy.journal_records import Record
from proxy.journal_store import Store

PLAIN = Record(
    prompt_id="", sequence=1, body=b'{"prompt": {}}', answer=b'{"number": 1}', submitted=1000.0, state="waiting"
)


def record(sequence: int, **fields: Any) -> Record:
    """A record that differs from others in its sequence and its id, which is `p<sequence>`."""
    return replace(PLAIN, **{"prompt_id": f"p{sequence}", "sequence": sequence, **fields})


async def inside(journal: Journal, look: Callable[[Store], Any]) -> Any:
    """Do something in the journal's thread."""
    return await journal._worker.submit(Kind.READ, look)


async def limit_growth(journal: Journal, pages: int | None) -> None:
    """Let the database grow by `pages` of 4 KiB, then be full; `None` for as much as it likes."""

    def limit(store: Store) -> None:
        (count,) = store.connection.execute("PRAGMA page_count").fetchone()
        most = 2**31 if pages is None else count + pages
        store.connection.execute(f"PRAGMA max_page_count = {most}").fetchone()

    await inside(journal, limit)


@contextmanager
def held_up(journal: Journal) -> Iterator[None]:
    """Keep the journal's thread busy, so that what is asked for inside waits together."""
    release = threading.Event()
    blocker = journal._worker.submit(Kind.READ, lambda _: release.wait(30))
    try:
        yield
    finally:
        release.set()
    assert not blocker.cancelled()


def body_of(number: int) -> bytes:
    """A body that tells its prompt's number; some are large, so that a commit is cut in the middle of one."""
    return random.Random(number).randbytes(number * 7919 % 30_000)  # noqa: S311 - no secret
