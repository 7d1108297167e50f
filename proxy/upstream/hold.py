"""Why a client's socket stays open although the client may not be there: its prompts.

The engine must see the events of a prompt whose client polls, has left, or connects later. So outstanding prompts are
counted, the socket outlives the last of them for a while (the next one usually follows soon), and who is about to
submit can wait until the socket is ready to hear of it.
"""

import asyncio
from collections.abc import Callable

from proxy.upstream.attachment import CallLater, Timer
from proxy.upstream.dial import Knock


class Hold:
    """The outstanding prompts of one client id. Times are in seconds."""

    def __init__(self, knock: Knock, call_later: CallLater, changed: Callable[[], None]) -> None:
        """`knock` is what to ask ComfyUI with; `changed` is called when the hold may have come to its end."""
        self.knock = knock
        self._call_later = call_later
        self._changed = changed
        self._count = 0
        self._lingering: Timer | None = None
        self._waiting: list[asyncio.Future[bool]] = []

    @property
    def needed(self) -> bool:
        """Whether the socket is to be kept."""
        return self._count > 0 or self._lingering is not None

    def take(self) -> None:
        """One prompt more."""
        self._count += 1
        self._stop_lingering()

    def give(self, linger: float) -> None:
        """One prompt less; after the last the socket is kept for `linger`."""
        if self._count == 0:
            return
        self._count -= 1
        if self._count == 0:
            self._lingering = self._call_later(linger, self._expire)

    def wait(self, patience: float) -> asyncio.Future[bool]:
        """True when the socket is ready, false when it cannot be or is not within `patience`."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        timer = self._call_later(patience, lambda: _answer(future, ready=False))
        future.add_done_callback(lambda _: timer.cancel())
        self._waiting.append(future)
        return future

    def answer(self, *, ready: bool) -> None:
        """Tell all who wait."""
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            _answer(future, ready=ready)

    def end(self) -> None:
        """Nothing is kept any more."""
        self._count = 0
        self._stop_lingering()
        self.answer(ready=False)

    def _expire(self) -> None:
        self._lingering = None
        self._changed()

    def _stop_lingering(self) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None


def _answer(future: asyncio.Future[bool], *, ready: bool) -> None:
    if not future.done():
        future.set_result(ready)
