"""What the warm-up service needs from the outside, as protocols that the engine and the composition root fulfil."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from normalizer import ModelRef, ModelSet
from warmup.plan import Tier
from warmup.prompts import Surroundings
from warmup.state import Result


@dataclass(frozen=True, slots=True)
class WarmResult:
    """How one prompt ended: WARMED, FAILED, TIMED_OUT or CANCELLED; the seconds it ran (not waited); and the reason."""

    result: Result
    seconds: float
    detail: str = ""


class Warmer(Protocol):
    """Runs warm-up prompts on one ComfyUI and knows what is loaded there."""

    def surroundings(self) -> Surroundings | None:
        """What the upstream is like; None while it does not answer or its schema has not been read."""
        ...

    def tier(self, ref: ModelRef) -> Tier:
        """Where this component's weights are now."""
        ...

    def idle_for(self) -> float | None:
        """Seconds since the last client's prompt ended; None while one runs or waits. Warm-ups do not count."""
        ...

    async def run(
        self,
        prompt: Mapping[str, Any],
        *,
        name: str,
        priority: int,
        time_limit: float,
        progress: Callable[[float], None],
    ) -> WarmResult:
        """Submit a prompt behind all clients' prompts, hidden from them, and wait until it has ended.

        `priority` orders warm-ups among themselves, higher first. `time_limit` is in seconds from when it begins to
        run; then it is interrupted and TIMED_OUT is the result. `progress` may be called with the part done, 0 to 1.
        A refusal, an error in a node and the end of the ComfyUI process are FAILED, with the reason. When this call
        is cancelled, the prompt is taken back.
        """
        ...

    def keep(self, models: ModelSet, seconds: float) -> None:
        """Have these components pinned for so long from now on, however little they are used."""
        ...


class Clock(Protocol):
    """The wall clock, and waiting on it."""

    def now(self) -> float:
        """Seconds since the epoch."""
        ...

    async def wait(self, event: asyncio.Event, seconds: float) -> None:
        """Return when the event is set or so many seconds have passed, whichever is first."""
        ...


class Store(Protocol):
    """Keeps one text across restarts."""

    def load(self) -> str | None:
        """What was saved last; None at first, or when it cannot be read."""
        ...

    def save(self, text: str) -> None:
        """Keep this instead. Never raises: losing it costs a missed cron time at worst."""
        ...
