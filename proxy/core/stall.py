"""A ComfyUI in which nothing starts, ends or progresses while prompts wait: HTTP that answers proves nothing.

Its worker may be dead or wait for ever. That is reported and not acted upon: a slow step looks the same.
"""


class Stall:
    """Watches for movement. Times in seconds on any clock that does not go back."""

    def __init__(self, timeout: float) -> None:
        """`timeout` without movement counts as a stall; 0 never does."""
        self.timeout = timeout
        self.since: float | None = None
        """When the last movement was before the stall; None while there is none."""
        self._moved_at: float | None = None

    def moved(self, now: float) -> None:
        """Something has started, ended or progressed."""
        self._moved_at, self.since = now, None

    def look(self, now: float, *, busy: bool) -> bool:
        """Whether a stall has just begun; `busy` while prompts wait for ComfyUI to do something."""
        if not busy or self._moved_at is None:
            self._moved_at, self.since = now, None
            return False
        if not self.timeout or self.since is not None or now < self._moved_at + self.timeout:
            return False
        self.since = self._moved_at
        return True
