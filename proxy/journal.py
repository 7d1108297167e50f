"""An accepted prompt is a promise, and memory is no place to keep promises.

ComfyUI holds its queue and history in memory and loses both whenever it dies. The journal holds every prompt that was
accepted, with all it takes to run it again, and what became of it, in an SQLite database: `accept` returns when the
prompt is on disk, and only then is its client answered.

Calls take effect in the order in which they are made, whether they are awaited or not. SQLite runs in a thread
(`journal_worker`), never in the event loop; `journal_store` has the statements, `journal_schema` the opening.
"""

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

from proxy.journal_commit import Kind
from proxy.journal_errors import JournalUnwritable
from proxy.journal_records import HistoryEntry, Record, Recovered, Sync, Update
from proxy.journal_worker import Worker


class Journal:
    """The journal, open. Get one from `open`; all methods belong to the event loop it was opened in.

    Every method may raise `JournalClosed` after `close` and `JournalDamaged` when the file turns out to be damaged.
    A caller that is cancelled while it waits leaves its call in the queue: it is carried out all the same.
    """

    def __init__(self, worker_path: Path, sync: Sync) -> None:
        self._trouble: JournalUnwritable | None = None
        self._failure: asyncio.Future[NoReturn] = asyncio.get_running_loop().create_future()
        self._worker = Worker(worker_path, sync, self._set_trouble, self._fail)

    @classmethod
    async def open(cls, path: Path, sync: Sync = Sync.NORMAL) -> Self:
        """Open the journal at `path`, created with its folder if it is missing, and lock it.

        Raises:
            JournalUnusable: one of its kinds: locked, too new, damaged, unreachable. The file is as it was.
        """
        journal = cls(path, sync)
        await journal._worker.start()
        return journal

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def trouble(self) -> JournalUnwritable | None:
        """What keeps the journal from being written just now: changes wait for that to end, new prompts are refused."""
        return self._trouble

    async def watch(self) -> NoReturn:
        """Wait for ever, or until something went wrong for good, and raise that.

        This is where the error of an `update` or `remember` that nobody awaits comes to light: one that can never be
        written, or a journal found damaged. Run it beside the one who writes. A change to a prompt that is not there is
        no such thing: a client may delete a prompt from the history before the last news of it is written.
        """
        await asyncio.shield(self._failure)

    def accept(self, record: Record) -> asyncio.Future[None]:
        """Write a new prompt. When the future, to be awaited, is done, it is durable to the degree that `sync` says.

        Raises:
            AlreadyAccepted: when its id, sequence or idempotency key is known.
            JournalRefused: when a value of it cannot be stored.
            JournalFull: when there is no space.
            JournalUnwritable: when nothing can be written for another reason.
        """
        return self._worker.submit(Kind.ACCEPT, lambda store: store.insert(record))

    def update(self, change: Update) -> asyncio.Future[None]:
        """Change a prompt. The future is done when that is durable, and need not be awaited (see `watch`).

        While nothing can be written, changes are kept in order and written when they can be.

        Raises:
            UnknownPrompt: when the prompt was never accepted, or deleted since.
        """
        return self._worker.submit(Kind.CHANGE, lambda store: store.update(change))

    def withdraw(self, prompt_ids: Sequence[str]) -> asyncio.Future[None]:
        """Forget prompts altogether, finished or not, their ids included. Otherwise like `update`."""
        return self._worker.submit(Kind.CHANGE, lambda store: store.withdraw(prompt_ids))

    def remember(self, facts: Mapping[str, Any]) -> asyncio.Future[None]:
        """Keep facts (any JSON) under their names, for `load`; `None` forgets one. Otherwise like `update`."""
        encoded = {key: None if value is None else json.dumps(value) for key, value in facts.items()}
        return self._worker.submit(Kind.CHANGE, lambda store: store.remember(encoded))

    async def flush(self) -> None:
        """Wait until every change made so far is durable."""
        await self._worker.submit(Kind.CHANGE, lambda _: None)

    async def load(self) -> Recovered:
        """What has to be run, what has ended, and every fact."""
        recovered: Recovered = await self._worker.submit(Kind.READ, lambda store: store.load())
        return recovered

    async def find(self, prompt_id: str) -> Record | None:
        """The record of a prompt, finished or not."""
        record: Record | None = await self._worker.submit(Kind.READ, lambda store: store.find(prompt_id))
        return record

    async def find_key(self, idempotency_key: str) -> Record | None:
        """The record that was accepted under an idempotency key."""
        record: Record | None = await self._worker.submit(Kind.READ, lambda store: store.find_key(idempotency_key))
        return record

    async def history_entry(self, prompt_id: str) -> HistoryEntry | None:
        """The history entry of one prompt; `None` where there is none."""
        entry: HistoryEntry | None = await self._worker.submit(Kind.READ, lambda store: store.history_entry(prompt_id))
        return entry

    async def history(self, max_items: int | None = None, offset: int = -1) -> tuple[HistoryEntry, ...]:
        """A page of the history, oldest first; a negative `offset` means the newest ones (ComfyUI execution.py)."""
        page: tuple[HistoryEntry, ...] = await self._worker.submit(
            Kind.READ, lambda store: store.history(max_items, offset)
        )
        return page

    async def delete(self, prompt_ids: Iterable[str]) -> int:
        """Forget finished prompts altogether, their ids included; others stay. Returns how many were forgotten.

        Raises:
            JournalUnwritable: when nothing can be written now; also from `clear` and `retain`.
        """
        chosen = tuple(prompt_ids)
        deleted: int = await self._worker.submit(Kind.DELETE, lambda store: store.delete(chosen))
        return deleted

    async def clear(self) -> int:
        """Forget all finished prompts. Returns how many."""
        deleted: int = await self._worker.submit(Kind.DELETE, lambda store: store.clear())
        return deleted

    async def retain(self, count: int, finished_since: float) -> int:
        """Forget finished prompts older than `finished_since` (Unix seconds) or beyond the newest `count`; how many."""
        deleted: int = await self._worker.submit(Kind.DELETE, lambda store: store.retain(count, finished_since))
        return deleted

    async def close(self) -> None:
        """Write everything that is still to be written, close the file and drop the lock. May be called again.

        Raises:
            JournalUnwritable: when changes were lost because they could not be written even now.
        """
        await self._worker.close()

    def _set_trouble(self, trouble: JournalUnwritable | None) -> None:
        self._trouble = trouble

    def _fail(self, error: Exception) -> None:
        if not self._failure.done():
            self._failure.set_exception(error)
            self._failure.exception()  # counts as seen: `watch` may not be running
