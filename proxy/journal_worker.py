"""The one thread that touches the journal's database.

A write to disk takes as long as the disk likes, and an event loop that waits for it stalls every client. So calls are
put in a queue and carried out, in order, by one thread. What comes in while a commit is on its way shares the next one:
a burst of submissions costs a few commits, not one each, and a lone one does not wait for company.
"""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from proxy.journal_commit import Call, Committer, Kind, Settled
from proxy.journal_errors import JournalClosed, JournalUnwritable, UnknownPrompt
from proxy.journal_records import Sync
from proxy.journal_schema import InstanceLock, open_database, prepare_folder
from proxy.journal_store import Store

log = logging.getLogger(__name__)

GROUP_LIMIT: Final = 256
"""The most calls in one commit: bounds what the first of them waits for the others."""

RETRY_SECONDS: Final = 1.0
"""How often it is tried whether there is room again when nothing else happens."""


class Worker:
    """Carries out calls in a thread of its own.

    `on_trouble` is told, in the event loop, why the last write did not happen, and `None` when one did again;
    `on_failure` what went wrong for good: a change that can never be written, or a journal that is damaged.
    """

    def __init__(
        self,
        path: Path,
        sync: Sync,
        on_trouble: Callable[[JournalUnwritable | None], None],
        on_failure: Callable[[Exception], None],
    ) -> None:
        self._path = path
        self._sync = sync
        self._on_trouble = on_trouble
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._closing = False
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        # A daemon: a program that dies without `close` must not hang, and an open transaction is safe to lose.
        self._thread = threading.Thread(target=self._main, name="journal", daemon=True)

    async def start(self) -> None:
        """Open the database.

        Raises:
            JournalUnusable: when it cannot be used.
        """
        self._thread.start()
        await asyncio.shield(self._opened)

    def submit(self, kind: Kind, perform: Callable[[Store], Any]) -> asyncio.Future[Any]:
        """Queue a call; the future has its result once that is durable.

        Raises:
            JournalClosed: after `close`.
        """
        if self._closing:
            raise JournalClosed("the journal is closed")
        waiter: asyncio.Future[Any] = self._loop.create_future()
        self._calls.put(Call(kind, perform, waiter))
        return waiter

    async def close(self) -> None:
        """Carry out everything that was queued, and close the database.

        Raises:
            JournalUnwritable: when changes were lost because there is still no room for them.
        """
        if not self._closing:
            self._closing = True
            self._calls.put(None)
        await asyncio.shield(self._ended)

    # What follows runs in the thread.

    def _main(self) -> None:
        lost: Exception | None
        try:
            with ExitStack() as stack:
                committer = self._open(stack)
                self._post(_settle, self._opened, None, None)
                lost = self._work(committer)
        except Exception as error:  # noqa: BLE001 - raised by `start`, or else by `close`
            self._post(_settle, self._opened, None, error)
            lost = error
        self._post(_settle, self._ended, None, lost)

    def _open(self, stack: ExitStack) -> Committer:
        path = prepare_folder(self._path)
        stack.enter_context(InstanceLock(path.with_name(f"{path.name}.lock")))
        connection = stack.enter_context(closing(open_database(path, self._sync)))
        return Committer(path, Store(connection))

    def _work(self, committer: Committer) -> Exception | None:
        """Carry out calls until `close`; why some of them came to nothing in the end, if they did."""
        more = True
        while more:
            calls, more = self._next_calls(RETRY_SECONDS if committer.kept or committer.trouble else None)
            try:
                self._carry_out(committer, calls)
            except Exception as error:  # noqa: BLE001 - a fault in this program must not leave anybody waiting
                committer.broken = error
                self._deliver(committer, [Settled(call, error=error) for call in calls])
        lost = (committer.broken or committer.trouble) if committer.kept else None
        self._deliver(committer, [Settled(call, error=lost) for call in committer.kept])
        return lost

    def _next_calls(self, patience: float | None) -> tuple[list[Call], bool]:
        """What is to be done next, nothing if nothing came for `patience` seconds, and whether there will be more."""
        calls: list[Call] = []
        with suppress(queue.Empty):
            call = self._calls.get(timeout=patience)
            while call is not None:
                calls.append(call)
                if len(calls) == GROUP_LIMIT:
                    return calls, True
                call = self._calls.get_nowait()
            return calls, False
        return calls, True

    def _carry_out(self, committer: Committer, calls: Sequence[Call]) -> None:
        """Writes that follow each other share a commit; a journal in trouble is tried again with the last, or after."""
        for reading, group in groupby(calls, key=lambda call: call.kind is Kind.READ):
            if reading:
                for call in group:
                    self._deliver(committer, [committer.read(call)])
            else:
                self._deliver(committer, committer.write(list(group)))
        if (committer.kept or committer.trouble) and (not calls or calls[-1].kind is Kind.READ):
            self._deliver(committer, committer.write([]))

    def _deliver(self, committer: Committer, settled: Sequence[Settled]) -> None:
        """Tell the event loop what became of calls, and of the journal."""
        self._post(self._take_delivery, tuple(settled), committer.trouble, committer.broken)

    def _post(self, function: Callable[..., None], *args: Any) -> None:
        """Call something in the event loop. When that is closed, nobody is left who waits."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *args)

    # And this in the event loop again.

    def _take_delivery(
        self, settled: Sequence[Settled], trouble: JournalUnwritable | None, broken: Exception | None
    ) -> None:
        self._on_trouble(trouble)
        if broken is not None:
            self._on_failure(broken)
        for one in settled:
            _settle(one.call.waiter, one.result, one.error)
            if isinstance(one.error, UnknownPrompt):
                log.info("a change came too late: %s", one.error)
            elif one.error is not None and one.call.kind is Kind.CHANGE:
                self._on_failure(one.error)


def _settle(waiter: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if waiter.done():
        return  # whoever waited was cancelled, or has its answer
    if error is None:
        waiter.set_result(result)
    else:
        waiter.set_exception(error)
        waiter.exception()  # counts as seen: `on_failure` tells what nobody awaits
