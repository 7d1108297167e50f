"""Readiness after a restart of ComfyUI: held back until the entries for it have been tried, or a time has passed."""

from collections.abc import Collection, Iterable


class Gate:
    """Open at first; all times are in seconds since the epoch."""

    def __init__(self, limit: float) -> None:
        """Once closed it stays so for `limit` seconds at most."""
        self._limit = limit
        self._awaited: set[str] = set()
        self._until = 0.0

    def close(self, names: Iterable[str], now: float) -> None:
        """Wait for these entries, and for no others any more."""
        self._awaited = set(names)
        self._until = now + self._limit

    def tried(self, name: str) -> None:
        """An entry has been tried, with whatever result."""
        self._awaited.discard(name)

    def keep(self, names: Collection[str]) -> None:
        """Only these entries are still on the schedule."""
        self._awaited.intersection_update(names)

    def open(self, now: float) -> bool:
        """Whether no entry is waited for any more."""
        return not self._awaited or now >= self._until
