"""ComfyUI's queue and history: in memory, ordered by number, told to all clients at every change.

Behaviour from ComfyUI execution.py, `PromptQueue`; two entries with the same number and id cannot be compared, and that
is kept too: the heap raises, with the entry already in it.
"""

import asyncio
import copy
import heapq
from collections.abc import Callable
from typing import Any

Item = tuple[Any, str, Any, dict[str, Any], list[str], dict[str, Any]]
"""Number, prompt id, prompt, extra data, outputs to execute, sensitive values."""

_LONGEST_HISTORY = 10_000


class PromptQueue:
    """What waits, what runs, what ran.

    Args:
        updated: called at every change, to tell the clients.
        interrupt: stops the running prompt.
    """

    def __init__(self, updated: Callable[[], None], interrupt: Callable[[], None]) -> None:
        self.pending: list[Item] = []
        self.running: dict[int, Item] = {}
        self.history: dict[str, dict[str, Any]] = {}
        self._updated = updated
        self._interrupt = interrupt
        self._flags: dict[str, Any] = {}
        self._started = 0
        self._something = asyncio.Event()
        self.idle = asyncio.Event()
        """Set while nothing waits and nothing runs."""
        self.idle.set()

    def remaining(self) -> int:
        """Prompts that wait or run."""
        return len(self.pending) + len(self.running)

    def put(self, item: Item) -> None:
        """Add a prompt. Raises TypeError where number and id are those of a waiting one."""
        self.idle.clear()
        heapq.heappush(self.pending, item)
        self._changed()
        self._something.set()

    async def get(self) -> tuple[Item, int] | None:
        """The next prompt and the number under which it runs; None when only flags were set."""
        if not self.pending:
            self._something.clear()
            await self._something.wait()
        if not self.pending:
            return None
        item = heapq.heappop(self.pending)
        run = self._started
        self.running[run] = copy.deepcopy(item)
        self._started += 1
        self._changed()
        return item, run

    def done(self, run: int, result: dict[str, Any], status: dict[str, Any]) -> None:
        """Move a prompt that ran into the history."""
        item = self.running.pop(run)
        if len(self.history) > _LONGEST_HISTORY:
            self.history.pop(next(iter(self.history)))
        self.history[item[1]] = {"prompt": item[:5], "outputs": {}, "status": copy.deepcopy(status), **result}
        self._changed()

    def clear(self) -> None:
        """Forget all that waits."""
        self.pending = []
        self._changed()

    def delete(self, prompt_id: Any) -> bool:
        """Forget the first waiting prompt with this id; whether there was one."""
        for index, item in enumerate(self.pending):
            if item[1] == prompt_id:
                if len(self.pending) == 1:
                    self.clear()
                else:
                    self.pending.pop(index)
                    heapq.heapify(self.pending)
                self._changed()
                return True
        return False

    def interrupt_if_running(self, prompt_id: Any) -> bool:
        """Interrupt the prompt with this id if it is the one that runs; whether it was."""
        if any(item[1] == prompt_id for item in self.running.values()):
            self._interrupt()
            return True
        return False

    def past(self, max_items: int | None = None, offset: int = -1) -> dict[str, Any]:
        """A part of the history, the oldest first."""
        if offset < 0 and max_items is not None:
            offset = len(self.history) - max_items
        out: dict[str, Any] = {}
        for index, (prompt_id, entry) in enumerate(self.history.items()):
            if index >= offset:
                out[prompt_id] = entry
                if max_items is not None and len(out) >= max_items:
                    break
        return out

    def set_flag(self, name: str, value: Any) -> None:
        """Leave the worker a request."""
        self._flags[name] = value
        self._something.set()

    def take_flags(self) -> dict[str, Any]:
        """The requests since the last time."""
        flags, self._flags = self._flags, {}
        return flags

    def _changed(self) -> None:
        self._updated()
        if not self.remaining():
            self.idle.set()
