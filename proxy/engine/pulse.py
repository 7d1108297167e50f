"""Signs of life: that this loop turns, that the queue decides, and that ComfyUI moves while prompts wait."""

import asyncio
import logging
from collections.abc import Callable

from proxy.core.health import Health
from proxy.core.stall import Stall
from proxy.engine.queue import HeldQueue
from proxy.upstream.feed import Feed
from proxy.wire.frames import Frame

log = logging.getLogger(__name__)

BEAT = 2.0
"""Seconds between two signs of life."""

_MOVEMENTS = tuple(f'{{"type": "{kind}' for kind in ("execut", "progress"))
"""How frames begin that tell that something starts, ends or progresses; custom nodes send others all the time."""


class Pulse:
    """Looks every `BEAT` seconds, and says what is wrong with ComfyUI."""

    def __init__(
        self,
        feed: Feed,
        *,
        held: Callable[[], HeldQueue | None],
        remaining: Callable[[], int],
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        """`clock` gives monotonic, `wall` Unix seconds; `remaining` counts the prompts that wait or run."""
        self.stall = Stall(0.0)
        self.beaten: Callable[[], object] = lambda: None
        """Called every `BEAT` seconds, as long as decisions are made."""
        self._feed = feed
        self._held = held
        self._remaining = remaining
        self._clock = clock
        self._wall = wall

    async def run(self) -> None:
        """Show that this loop turns, and that the queue still decides; look for a stall."""
        while True:
            try:
                self._beat()
            except Exception:
                log.exception("no sign of life this time")  # the next may come, and much waits for it
            await asyncio.sleep(BEAT)

    def _beat(self) -> None:
        held = self._held()
        if held is None or held.beat():
            self.beaten()
        self._look_for_a_stall(held)

    def heard(self, frame: Frame) -> None:
        """ComfyUI has sent this to somebody."""
        if isinstance(frame, bytes) or frame.startswith(_MOVEMENTS):
            self.stall.moved(self._clock())

    @property
    def health(self) -> Health:
        """What is wrong with ComfyUI."""
        since, held = self.stall.since, self._held()
        return Health(
            None if since is None else self._wall() - (self._clock() - since),
            None if held is None else held.caretaker.upkeep.poisoned,
        )

    def _look_for_a_stall(self, held: HeldQueue | None) -> None:
        busy = self._feed.up and self._remaining() > 0
        if busy and held is not None:
            context = held.holding.scheduler.context
            busy = bool(context.ledger.upstream or context.foreign or not context.pauses)
        if self.stall.look(self._clock(), busy=busy):
            log.error(
                "ComfyUI answers, but for %.0f s nothing has started, ended or progressed, and prompts wait. Its "
                "worker may be dead: look into its log, and restart it if so; what waits here is kept.",
                self.stall.timeout,
            )
