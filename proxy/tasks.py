"""The one way to start a task that outlives the function that started it.

A bare `asyncio.create_task` can be collected while it runs, hides its exception until then, and is forgotten at
shutdown. `asyncio.TaskGroup` has none of these faults but ends all members when one fails, which is wrong for services
that must not take each other down (one client's socket and another's). So: a group that holds its tasks, logs what
escapes from them, and cancels and awaits them all on `close`.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger(__name__)


class Tasks:
    """A set of running tasks with one owner. After `close` it takes no more."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._running)

    def spawn(self, coro: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run `coro` in the background. Raises RuntimeError after `close`."""
        if self._closed:
            coro.close()
            raise RuntimeError("this group of tasks is closed")
        task = asyncio.get_running_loop().create_task(coro, name=name)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task %s failed", task.get_name(), exc_info=error)

    async def close(self) -> None:
        """Cancel what runs and wait until it has ended. May be called again."""
        self._closed = True
        while self._running:
            for task in self._running:
                task.cancel()
            await asyncio.wait(self._running)
