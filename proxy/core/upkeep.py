"""When ComfyUI has to be restarted: after an error that only a new process can get rid of, or because it is time.

After a CUDA error every prompt fails until ComfyUI is restarted, and a queue would burn through itself. So a fatal
device error, or failures in a row on different graphs, stop the queue. Where ComfyUI can be restarted from here, it is;
otherwise people are told. A graph that fails again and again is its own fault, and so is want of memory: ComfyUI
unloads everything then and goes on.

Events in, commands out; no clock. Times in seconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from proxy.core.shortage import Shortage, shortage

POISON = "poison"
RECYCLE = "recycling"
WARM_UP = "warm-up"
"""Who pauses the queue."""
GIB = 1 << 30
IN_A_ROW = 3
"""Failures on different graphs, without a success between them, that ComfyUI is blamed for."""
_FATAL = (
    *("cuda error", "hip error", "device-side assert", "no kernel image", "illegal memory access"),
    *(
        "unspecified launch failure",
        "uncorrectable ecc",
        "cudnn_status",
        "cudnn error",
        "cublas_status",
        "cublas error",
    ),
    *("driver shutting down", "nvml", "device lost", "gpu is lost", "launch timed out"),
)
"""What torch and the drivers say when the device, or this process's use of it, is broken."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What may be done.

    Attributes:
        can_restart: there is a command for it.
        recycle_after: prompts after which ComfyUI is restarted anyway; 0 is never.
        recycle_bytes: resident memory from which on it is; 0 is never.
        pause: seconds between two restarts at least.
    """

    can_restart: bool = False
    recycle_after: int = 0
    recycle_bytes: int = 0
    pause: float = 60.0


@dataclass(frozen=True, slots=True)
class Succeeded:
    """A run has ended well."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A run has ended with an error of this type and text. `graph` is equal for prompts that do the same."""

    graph: str
    type: str
    message: str


@dataclass(frozen=True, slots=True)
class Resident:
    """ComfyUI has so much memory resident."""

    bytes: int


@dataclass(frozen=True, slots=True)
class Drained:
    """Nothing is at ComfyUI any more."""


@dataclass(frozen=True, slots=True)
class Reborn:
    """ComfyUI is a new process."""


@dataclass(frozen=True, slots=True)
class Warmed:
    """What is to be warmed up in a new ComfyUI has been, or has been tried."""


@dataclass(frozen=True, slots=True)
class Excused:
    """The operator lets the queue go on."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Event: TypeAlias = Succeeded | Failed | Resident | Drained | Reborn | Warmed | Excused | Tick


@dataclass(frozen=True, slots=True)
class Stop:
    """Send nothing more; `spoils` when the run that has just failed is not to blame and is to be repeated."""

    by: str
    why: str
    spoils: bool = False


@dataclass(frozen=True, slots=True)
class Go:
    """Send again."""

    by: str


@dataclass(frozen=True, slots=True)
class Restart:
    """Restart ComfyUI."""

    why: str


@dataclass(frozen=True, slots=True)
class Alert:
    """Somebody has to restart ComfyUI."""

    why: str


Command: TypeAlias = Stop | Go | Restart | Alert


class Upkeep:
    """Judges one ComfyUI by how its runs end."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.poisoned: str | None = None
        """What is wrong with it; None: nothing."""
        self._recycling: str | None = None
        self._warming = False
        self._failed_graphs: list[str] = []
        self._runs = 0
        self._restarted_at: float | None = None

    def handle(self, event: Event, now: float) -> Sequence[Command]:
        """Take note of an event and say what is to be done."""
        match event:
            case Succeeded():
                self._failed_graphs.clear()
                return self._ran()
            case Failed():
                return self._failed(event, now)
            case Resident():
                return self._weighed(event.bytes)
            case Drained() | Tick():
                return self._restart_if_due(event, now)
            case Reborn():
                return (*self._forgive(), *self._recycled())
            case Warmed() | Excused():
                forgiven = self._forgive() if isinstance(event, Excused) else ()
                return (*forgiven, *self._warmed())

    def _failed(self, event: Failed, now: float) -> Sequence[Command]:
        said = f"{event.type}: {event.message}"
        lower = said.lower()
        if shortage(event.type, event.message) is Shortage.VRAM:
            return self._ran()
        fatal = any(word in lower for word in _FATAL)
        if event.graph not in self._failed_graphs:
            self._failed_graphs.append(event.graph)
        if not fatal and len(self._failed_graphs) < IN_A_ROW:
            return self._ran()
        line = said.strip().splitlines()[0]
        why = line if fatal else f"{IN_A_ROW} different workflows failed in a row, the last one with {line}"
        stop = Stop(POISON, why, spoils=True)
        if self.poisoned is not None:
            return (stop,)
        self.poisoned = why
        if not self.settings.can_restart:
            return (stop, Alert(why))
        return (stop, *self._restart_if_due(Tick(), now))

    def _ran(self) -> Sequence[Command]:
        self._runs += 1
        if not 0 < self.settings.recycle_after <= self._runs:
            return ()
        return self._recycle(f"it has run {self._runs} prompts")

    def _weighed(self, resident: int) -> Sequence[Command]:
        if not 0 < self.settings.recycle_bytes <= resident:
            return ()
        return self._recycle(f"it has {resident / GIB:.1f} GB of memory resident")

    def _recycle(self, why: str) -> Sequence[Command]:
        if self._recycling is not None or not self.settings.can_restart:
            return ()
        self._recycling = why
        return (Stop(RECYCLE, why),)

    def _restart_if_due(self, event: Event, now: float) -> Sequence[Command]:
        """Poison does not wait for what else is there: it would fail as well."""
        why = self.poisoned or (self._recycling if isinstance(event, Drained) else None)
        rests = self._restarted_at is not None and now < self._restarted_at + self.settings.pause
        if why is None or rests or not self.settings.can_restart:
            return ()
        self._restarted_at = now
        return (Restart(why),)

    def _forgive(self) -> Sequence[Command]:
        commands = () if self.poisoned is None else (Go(POISON),)
        self.poisoned = None
        self._failed_graphs.clear()
        return commands

    def _recycled(self) -> Sequence[Command]:
        """A restart that nothing was wrong before can wait for its models; what had failed has waited long enough."""
        self._runs = 0
        if self._recycling is None:
            return ()
        self._recycling, self._warming = None, True
        return Stop(WARM_UP, "models are warmed up in the new ComfyUI first"), Go(RECYCLE)

    def _warmed(self) -> Sequence[Command]:
        if not self._warming:
            return ()
        self._warming = False
        return (Go(WARM_UP),)
