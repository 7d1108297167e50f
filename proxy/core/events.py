"""What the scheduler can be told: by clients, by ComfyUI, by the operator, by the clock.

Events are facts. They may come late, twice or out of order (a prompt's start is often seen before the answer to its
submission); the scheduler copes, so whoever reports them need not sort them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from normalizer.models import ModelSet
from proxy.core.jobs import State
from proxy.core.settings import Settings


class Outcome(StrEnum):
    """How a run ended.

    `SPOILED` is a failure for a cause outside the prompt (a device error, for example): it is run again. `DOUBTED` is
    one that may be: `Judged` tells.
    """

    SUCCESS = "success"
    ERROR = "error"
    INTERRUPTED = "interrupted"
    DOUBTED = "doubted"
    SPOILED = "spoiled"


class Where(StrEnum):
    """Where a look at ComfyUI's queue found a prompt."""

    PENDING = "pending"
    RUNNING = "running"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """A client wants a prompt run.

    Attributes:
        prompt_id: unique; a second submission of one that has not ended is ignored.
        client: whose share of the GPU it uses.
        models: the components it needs.
        priority: higher runs first.
        number: as the client gave it; lower runs first, as in ComfyUI. None lets the queue count.
        front: before everything of its priority that has no lower number.
        order_key: prompts of one client that share one run in the order of their submission.
        workload: prompts with the same one take about as long; empty where nobody knows.
        paid: it contains paid remote nodes and must not run twice.
    """

    prompt_id: str
    client: str = ""
    models: ModelSet = frozenset()
    priority: int = 0
    number: float | None = None
    front: bool = False
    order_key: str | None = None
    workload: str = ""
    paid: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """A prompt that was accepted before this process began; in the order of submission, before the first `Submitted`.

    Attributes:
        prompt: as it was submitted.
        number: the number it was accepted with.
        submitted: when, on the clock of `now`.
        state: what was last written down. What is neither waiting nor ended may be at ComfyUI. One that has ended is
            worth restoring if prompts submitted before it still wait: it has overtaken them.
        attempts: its runs that were lost.
        started: whether it had begun to run.
        run_seconds: for one that has ended: how long it ran.
    """

    prompt: Submitted
    number: float
    submitted: float
    state: State = State.WAITING
    attempts: int = 0
    started: bool = False
    run_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class ProbeAccepted:
    """ComfyUI found it valid, and it is out of ComfyUI's queue again."""

    prompt_id: str


@dataclass(frozen=True, slots=True)
class ProbeRefused:
    """ComfyUI found it invalid."""

    prompt_id: str


@dataclass(frozen=True, slots=True)
class ProbeSlipped:
    """ComfyUI found it valid and started it before it could be taken out."""

    prompt_id: str


@dataclass(frozen=True, slots=True)
class ProbeUnclear:
    """No answer that says whether ComfyUI has it; not `sent`: it has certainly seen nothing of it."""

    prompt_id: str
    sent: bool = True


@dataclass(frozen=True, slots=True)
class Dispatched:
    """ComfyUI has taken it into its queue."""

    prompt_id: str


@dataclass(frozen=True, slots=True)
class DispatchRefused:
    """ComfyUI found it invalid."""

    prompt_id: str


@dataclass(frozen=True, slots=True)
class DispatchUnclear:
    """No answer that says whether ComfyUI has it; not `sent`: it has certainly seen nothing of it."""

    prompt_id: str
    sent: bool = True


@dataclass(frozen=True, slots=True)
class Located:
    """What a look for one prompt showed; also to be sent unasked for a prompt that is no longer where it was."""

    prompt_id: str
    where: Where


@dataclass(frozen=True, slots=True)
class RecallDone:
    """It is out of ComfyUI's queue, or was found to be running: `started`."""

    prompt_id: str
    started: bool


@dataclass(frozen=True, slots=True)
class Started:
    """ComfyUI has begun to run it."""

    prompt_id: str


@dataclass(frozen=True, slots=True)
class Finished:
    """Its run has ended. `run_seconds` from start to end, of them `load_seconds` for loading; None if not measured."""

    prompt_id: str
    outcome: Outcome = Outcome.SUCCESS
    run_seconds: float | None = None
    load_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """Whose fault it was that a run failed is known now: not the prompt's, where that run is `spoiled`."""

    prompt_id: str
    spoiled: bool


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """Take it out; when it runs already, interrupt it or, without `interrupt`, leave it."""

    prompt_id: str
    interrupt: bool = True


@dataclass(frozen=True, slots=True)
class ClearRequested:
    """Take these out, in this order, but for one that runs."""

    prompt_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class InterruptRequested:
    """Stop this prompt if it runs; None: whatever runs."""

    prompt_id: str | None = None


@dataclass(frozen=True, slots=True)
class UpstreamLost:
    """ComfyUI does not answer any more. Nothing is asked of it until `UpstreamReady`."""


@dataclass(frozen=True, slots=True)
class UpstreamReady:
    """ComfyUI answers, and this is what it has: queue read first, then history, so that nothing falls between.

    Attributes:
        new_process: it is certainly not the process that was asked before.
        running: ids that run.
        pending: ids in its queue, in the order in which it will run them.
        finished: how those of our prompts ended that its history knows.
    """

    new_process: bool
    running: frozenset[str] = frozenset()
    pending: tuple[str, ...] = ()
    finished: Mapping[str, Finished] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ForeignSeen:
    """A prompt that did not come through us is in ComfyUI's queue, or `running`."""

    prompt_id: str
    running: bool


@dataclass(frozen=True, slots=True)
class ForeignGone:
    """It is no longer there."""

    prompt_id: str


@dataclass(frozen=True, slots=True)
class Paused:
    """Send nothing until `Resumed` with the same `by`; what is staged comes back, what runs finishes."""

    by: str = "operator"


@dataclass(frozen=True, slots=True)
class Resumed:
    """The end of a pause."""

    by: str = "operator"


@dataclass(frozen=True, slots=True)
class MoveToFront:
    """Run it, and what must come before it, before everything else of its priority."""

    prompt_id: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Nothing but time has passed: the answer to `next_wakeup()`, or residency has changed."""


@dataclass(frozen=True, slots=True)
class SettingsChanged:
    """The operator has changed the settings."""

    settings: Settings


Event: TypeAlias = (
    Submitted
    | Restored
    | ProbeAccepted
    | ProbeRefused
    | ProbeSlipped
    | ProbeUnclear
    | Dispatched
    | DispatchRefused
    | DispatchUnclear
    | Located
    | RecallDone
    | Started
    | Finished
    | Judged
    | CancelRequested
    | ClearRequested
    | InterruptRequested
    | UpstreamLost
    | UpstreamReady
    | ForeignSeen
    | ForeignGone
    | Paused
    | Resumed
    | MoveToFront
    | Tick
    | SettingsChanged
)
