"""Simulated time.

A minute of GPU work must not take a minute of a test. Everything that waits asks this clock, which sleeps the simulated
seconds divided by `time_scale`. Short sleeps overshoot by a millisecond or so, which at a scale of 600 would be most of
the time spent; so a sleep that follows closely on another starts where that one should have ended.
"""

import asyncio
import math
import time

# How far behind its due time (real seconds) the clock may run and still catch up; an idle gap is longer than this.
_CATCH_UP = 0.05


class Clock:
    """Waits in simulated seconds.

    Args:
        time_scale: simulated seconds per real second; `math.inf` waits for nothing but still yields to other tasks.
    """

    def __init__(self, time_scale: float) -> None:
        if not time_scale > 0:
            raise ValueError(f"time_scale must be positive, got {time_scale}")
        self.time_scale = time_scale
        self.slept = 0.0
        """Simulated seconds spent in `sleep` so far: the work that was done, free of the machine's own overhead."""
        self._due = time.monotonic()
        self._started = self._due

    def now(self) -> float:
        """Simulated seconds since the clock was made (with an infinite scale: the seconds slept)."""
        if math.isinf(self.time_scale):
            return self.slept
        return (time.monotonic() - self._started) * self.time_scale

    async def sleep(self, seconds: float) -> None:
        """Let `seconds` of simulated time pass; always yields to the event loop once."""
        self.slept += seconds
        now = time.monotonic()
        start = self._due if now - self._due < _CATCH_UP else now
        self._due = start + seconds / self.time_scale
        await asyncio.sleep(max(0.0, self._due - now))
