"""The schedule in force: read at the start, read again when its files change, and kept when what is new is broken."""

import logging
from pathlib import Path

from warmup.faults import Fault
from warmup.schedule import Schedule, load
from warmup.system import FileWatch

log = logging.getLogger(__name__)


class InForce:
    """One schedule file; without a path there is an empty schedule, for ever."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._files = FileWatch([path] if path else [])
        self.schedule = load(path) if path else Schedule(Path())
        self.rejected: tuple[Fault, ...] = ()
        """The faults of a newer file that was not taken into force for them."""
        self._files.follow(self.schedule.files)

    def changed(self) -> bool:
        """Whether the schedule, or a workflow that it names, has changed on disk since this was last asked."""
        return self._files.changed()

    def reload(self) -> bool:
        """Read it again; whether it is in force. A file with faults that the one in force has not is not taken."""
        if self.path is None:
            return False
        self._files.changed()  # what is read now is no news at the next look
        new = load(self.path)
        self.rejected = tuple(fault for fault in new.faults if fault not in self.schedule.faults)
        if self.rejected:
            self._files.follow({*new.files, *self.schedule.files})
            for fault in self.rejected:
                log.error("%s", fault)
            log.error("%s: the schedule as it was before stays in force", self.path)
            return False
        log.info("%s: read again, %d entries", self.path, len(new.entries))
        self._files.follow(new.files)
        self.schedule = new
        return True
