"""Stops the queue before a ComfyUI that only a restart can mend, and restarts it where a command for that is given.

`core.upkeep` decides; here its commands are carried out.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import assert_never

from proxy.core import events as ev
from proxy.core import upkeep as up
from proxy.tasks import Tasks

log = logging.getLogger(__name__)

RESTARTING = 120.0
"""Seconds that the command may take."""

WEIGHING = 30.0
"""Seconds between two looks at ComfyUI's memory."""


class Caretaker:
    """Looks after one ComfyUI."""

    def __init__(
        self,
        upkeep: up.Upkeep,
        command: str,
        tasks: Tasks,
        clock: Callable[[], float],
        tell: Callable[[ev.Event], None],
        resident: Callable[[], int | None],
        warmed: Callable[[], bool],
    ) -> None:
        """`command` is for the shell, empty where there is none; `clock` gives monotonic seconds.

        `resident` tells the bytes that ComfyUI has resident, None where they cannot be seen; `warmed` whether nothing
        is still to be warmed up in it.
        """
        self._warmed = warmed
        self._resident = resident
        self._weighed_at = clock()
        self.upkeep = upkeep
        self._command = command
        self._tasks = tasks
        self._clock = clock
        self._tell = tell
        self._restarting: asyncio.Task[None] | None = None

    def follow(self, settings: up.Settings, command: str) -> None:
        """The configuration has changed."""
        self.upkeep.settings, self._command = settings, command

    def failed(self, failure: up.Failed) -> ev.Outcome:
        """A run has failed; what that means for its prompt."""
        outcome = ev.Outcome.DOUBTED
        for command in self.upkeep.handle(failure, self._clock()):
            if command == up.Tell(failure.prompt_id):
                outcome = ev.Outcome.ERROR
            elif command == up.Repeat(failure.prompt_id):
                outcome = ev.Outcome.SPOILED
            else:
                self._perform(command)
        return outcome

    def stepped(self) -> None:
        """A node that runs has made a step."""
        self._handle(up.Stepped())

    def succeeded(self) -> None:
        """A run has ended well."""
        self._handle(up.Succeeded())

    def reborn(self) -> None:
        """ComfyUI is a new process."""
        self._handle(up.Reborn())

    def excused(self) -> None:
        """The operator lets the queue go on."""
        self._handle(up.Excused())

    def look(self, *, drained: bool) -> None:
        """Time has passed; `drained` when nothing is at ComfyUI."""
        now = self._clock()
        if self.upkeep.settings.recycle_bytes and now >= self._weighed_at + WEIGHING:
            self._weighed_at = now
            resident = self._resident()
            if resident is not None:
                self._handle(up.Resident(resident))
        if self._warmed():
            self._handle(up.Warmed())
        self._handle(up.Drained() if drained else up.Tick())

    def _handle(self, event: up.Event) -> None:
        for command in self.upkeep.handle(event, self._clock()):
            self._perform(command)

    def _perform(self, command: up.Command) -> None:
        match command:
            case up.Stop():
                level = logging.ERROR if command.by == up.POISON else logging.INFO
                log.log(level, "nothing more is sent to ComfyUI (%s): %s", command.by, command.why)
                self._tell(ev.Paused(command.by))
            case up.Tell() | up.Repeat():
                self._tell(ev.Judged(command.prompt_id, spoiled=isinstance(command, up.Repeat)))
            case up.Go():
                log.info("the queue goes on; it was stopped by %s", command.by)
                self._tell(ev.Resumed(command.by))
            case up.Restart():
                if self._restarting is None or self._restarting.done():
                    self._restarting = self._tasks.spawn(self._restart(command.why), "restart ComfyUI")
            case up.Alert():
                log.critical(
                    "ComfyUI has to be restarted: %s. The queue waits for that and goes on by itself then. Set "
                    "[upstream] restart_command to have it done, or say `comfykeep queue resume` to go on as it is.",
                    command.why,
                )
            case _:
                assert_never(command)

    async def _restart(self, why: str) -> None:
        log.warning("ComfyUI is restarted with %r: %s", self._command, why)
        process = await asyncio.create_subprocess_shell(
            self._command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(RESTARTING):
                output, _ = await process.communicate()
        except TimeoutError:
            log.critical("the command that restarts ComfyUI did not end within %.0f s", RESTARTING)
            return
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        level = logging.INFO if process.returncode == 0 else logging.CRITICAL
        text = output.decode(errors="replace").strip()
        log.log(level, "the command that restarts ComfyUI ended with %d: %s", process.returncode, text)
