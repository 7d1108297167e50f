"""When ComfyUI has to be restarted: after an error that only a new process can get rid of, or because it is time.

After a CUDA error every prompt fails until ComfyUI is restarted, and a queue would burn through itself. So a fatal
device error, or failures in a row on different graphs, stop the queue. Where ComfyUI can be restarted from here, it is;
otherwise people are told. Failures of the prompts' own doing (`blame`) do not count. Of the others, clients are not
told as long as they may be part of such a row (`doubts`), and those that were are repeated.

Events in, commands out; no clock. Times in seconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from proxy.core.blame import Blame, blamed
from proxy.core.doubts import Doubts

POISON = "poison"
RECYCLE = "recycling"
WARM_UP = "warm-up"
"""Who pauses the queue."""
GIB = 1 << 30
IN_A_ROW = 3
"""Failures on different graphs, without a success between them, that ComfyUI is blamed for."""


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
class Stepped:
    """A node that runs has made a step."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A run has ended with an error of this type and text. `graph` is equal for prompts that do the same.

    Its prompt's client is to hear of it with `Tell`, which may come later, or `Repeat` comes.

    `paid`: it uses paid remote nodes, so it is not to be repeated, and may have failed far away. `again`: it was run in
    an earlier ComfyUI too. `alone`: nothing runs or waits behind it.
    """

    prompt_id: str
    graph: str
    type: str
    message: str
    paid: bool = False
    again: bool = False
    alone: bool = False


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


Event: TypeAlias = Succeeded | Stepped | Failed | Resident | Drained | Reborn | Warmed | Excused | Tick


@dataclass(frozen=True, slots=True)
class Stop:
    """Send nothing more."""

    by: str
    why: str


@dataclass(frozen=True, slots=True)
class Tell:
    """The failure of this prompt was its own."""

    prompt_id: str


@dataclass(frozen=True, slots=True)
class Repeat:
    """This prompt has failed for no fault of its own, and is to be run again."""

    prompt_id: str


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


Command: TypeAlias = Stop | Tell | Repeat | Go | Restart | Alert


class Upkeep:
    """Judges one ComfyUI by how its runs end."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.poisoned: str | None = None
        """What is wrong with it; None: nothing."""
        self._recycling: str | None = None
        self._warming = False
        self._doubts = Doubts()
        self._runs = 0
        self._may_grow = False
        """The operator has let this process go on, however much memory it has."""
        self._restarted_at: float | None = None

    def handle(self, event: Event, now: float) -> Sequence[Command]:
        """Take note of an event and say what is to be done."""
        match event:
            case Succeeded() | Stepped():
                return self._works(event)
            case Failed():
                return self._failed(event, now)
            case Resident():
                return self._weighed(event.bytes)
            case Drained() | Tick():
                due = self._doubts.take_due(now, idle=isinstance(event, Drained))
                return (*map(Tell, due), *self._restart_if_due(event, now))
            case Reborn():
                self._doubts.take()  # the queue runs them again, as it does what was lost with the old one
                return (*self._forgive(), *self._recycled())
            case Warmed() | Excused():
                excused = self._excuse() if isinstance(event, Excused) else ()
                return (*excused, *self._warmed())

    def _works(self, event: Succeeded | Stepped) -> Sequence[Command]:
        if isinstance(event, Stepped):
            self._doubts.stepped()
            return ()
        self._doubts.end_row()
        return (*map(Tell, self._doubts.take()), *self._ran())

    def _failed(self, event: Failed, now: float) -> Sequence[Command]:
        blame = blamed(event.type, event.message)
        if blame is Blame.PROMPT or (blame is Blame.UNKNOWN and (event.paid or event.again)):
            return (Tell(event.prompt_id), *self._ran())
        before = self._doubts.failed(event.prompt_id, event.graph, now)
        line = f"{event.type}: {event.message}".strip().splitlines()[0]
        if blame is Blame.DEVICE:
            return self._poison(line, before, now)
        if self.poisoned is not None or self._doubts.in_a_row >= IN_A_ROW:
            why = f"{IN_A_ROW} different workflows failed in a row, the last one with {line}"
            return self._poison(why, before, now)
        told = (*before, *self._doubts.take()) if event.alone else before
        return (*map(Tell, told), *self._ran())

    def _poison(self, why: str, before: Sequence[str], now: float) -> Sequence[Command]:
        repeats = tuple(map(Repeat, (*before, *self._doubts.take())))
        if self.poisoned is not None:
            return repeats
        self.poisoned = why
        further = self._restart_if_due(Tick(), now) if self.settings.can_restart else (Alert(why),)
        return (Stop(POISON, why), *repeats, *further)

    def _ran(self) -> Sequence[Command]:
        self._runs += 1
        if not 0 < self.settings.recycle_after <= self._runs:
            return ()
        return self._recycle(f"it has run {self._runs} prompts")

    def _weighed(self, resident: int) -> Sequence[Command]:
        if self._may_grow or not 0 < self.settings.recycle_bytes <= resident:
            return ()
        return self._recycle(f"it has {resident / GIB:.1f} GB of memory resident")

    def _recycle(self, why: str) -> Sequence[Command]:
        if self._recycling is not None or not self.settings.can_restart:
            return ()
        self._recycling = why
        return (Stop(RECYCLE, why),)

    def _restart_if_due(self, event: Event, now: float) -> Sequence[Command]:
        """Poison does not wait for what else is there: it would fail as well."""
        if not self.settings.can_restart:
            return self._spare()
        why = self.poisoned or (self._recycling if isinstance(event, Drained) else None)
        rests = self._restarted_at is not None and now < self._restarted_at + self.settings.pause
        if why is None or rests:
            return ()
        self._restarted_at = now
        return (Restart(why),)

    def _excuse(self) -> Sequence[Command]:
        self._may_grow = self._may_grow or self._recycling is not None
        return (*self._forgive(), *self._spare())

    def _forgive(self) -> Sequence[Command]:
        commands = () if self.poisoned is None else (Go(POISON),)
        self.poisoned = None
        self._doubts.end_row()
        return commands

    def _recycled(self) -> Sequence[Command]:
        """A restart that nothing was wrong before can wait for its models; what had failed has waited long enough."""
        self._runs, self._may_grow = 0, False
        if self._recycling is None:
            return ()
        self._recycling, self._warming = None, True
        return Stop(WARM_UP, "models are warmed up in the new ComfyUI first"), Go(RECYCLE)

    def _spare(self) -> Sequence[Command]:
        """It works, and goes on when it is not to be restarted after all, or cannot be; its runs count anew."""
        if self._recycling is None:
            return ()
        self._recycling, self._runs = None, 0
        return (Go(RECYCLE),)

    def _warmed(self) -> Sequence[Command]:
        if not self._warming:
            return ()
        self._warming = False
        return (Go(WARM_UP),)
