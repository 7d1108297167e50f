"""How long to wait before trying again, for ever.

All clients of a restarted ComfyUI come back at the same moment; a random part keeps them from doing so in step.
"""

from collections.abc import Callable


class Backoff:
    """Delays that double up to a ceiling, each cut by up to half at random. Seconds throughout."""

    def __init__(self, random: Callable[[], float], *, first: float = 0.25, ceiling: float = 5.0) -> None:
        """`random` gives numbers from 0 up to 1. The ceiling is short: a person waits for ComfyUI to be back."""
        self._random = random
        self._first = first
        self._ceiling = ceiling
        self._bound = first

    def next(self) -> float:
        """The delay before the next attempt."""
        delay = self._bound * (0.5 + self._random() / 2)
        self._bound = min(self._ceiling, self._bound * 2)
        return delay

    def reset(self) -> None:
        """To be called after a success."""
        self._bound = self._first
