"""The operating system's part: the clock, whether files have changed, and a file that keeps the state."""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Iterable
from pathlib import Path

log = logging.getLogger(__name__)


class SystemClock:
    """The wall clock."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    async def wait(self, event: asyncio.Event, seconds: float) -> None:
        """Return when the event is set or so many seconds have passed, whichever is first."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await event.wait()


class FileWatch:
    """Tells that one of some files has changed, appeared or gone, by time and size; no events of the system needed."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._marks = {file: _mark(file) for file in files}

    def changed(self) -> bool:
        """Whether any of them differs from what it was when this was last asked or it was first followed.

        To be asked before the files are read, so that a change during the reading is a change at the next look.
        """
        before = self._marks
        self._marks = {file: _mark(file) for file in before}
        return self._marks != before

    def follow(self, files: Iterable[Path]) -> None:
        """Look at these from now on."""
        self._marks = {file: self._marks.get(file) or _mark(file) for file in files}


def _mark(file: Path) -> tuple[int, int]:
    try:
        status = file.stat()
    except OSError:
        return -1, -1
    return status.st_mtime_ns, status.st_size


class StateFile:
    """Keeps the state of the schedule in a file of its own, replaced as a whole so that no crash leaves half of it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> str | None:
        """What was saved last; None when there is nothing, or nothing that can be read."""
        try:
            return self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            log.warning("%s cannot be read: %s", self._path, error)
            return None

    def save(self, text: str) -> None:
        """Keep this instead; a full disk is logged, and the old text stays."""
        new = self._path.with_name(f"{self._path.name}.new")
        try:
            new.write_text(text, encoding="utf-8")
            os.replace(new, self._path)  # noqa: PTH105 - Path.replace says the same, but os.replace is the one documented as atomic
        except OSError as error:
            log.warning("%s cannot be written: %s", self._path, error)
