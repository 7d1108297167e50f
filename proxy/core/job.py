"""What the scheduler knows of one prompt."""

from dataclasses import dataclass, field

from normalizer.models import ModelSet
from proxy.core.commands import Reason
from proxy.core.jobs import State

REASONS_KEPT = 32
"""So many reasons of one prompt are remembered; the oldest but the first goes."""


@dataclass(slots=True, eq=False, kw_only=True)
class Job:
    """One prompt, from its submission to its end. Times in seconds on the clock of `now`.

    Attributes:
        sequence: its place in the order of submission.
        number: what ComfyUI would have given it, or what its client asked for.
        place: its place among those of its priority; lower first. Its number, unless it had to move.
        fixed: the client asked for this place (`number`, `front`): nothing behind passes it, it passes nothing before.
        priority: as submitted, or that of the prompt before it in its chain if that is lower.
        submitted: when.
        state: where it is.
        asked: ComfyUI owes an answer to its submission, which is to be passed on.
        answered: its client has been told that it was accepted, or refused.
        valid: ComfyUI has found it valid.
        attempts: its runs that were lost.
        started: when its present run began.
        confirmed: ComfyUI has certainly had it, and nobody has asked ComfyUI to give it back.
        reached: its last submission may have come to ComfyUI.
        parked: what ComfyUI may have of it is a probe.
        sent: it has passed others, and its client has been charged, for the run it is at ComfyUI for.
        interrupt: it is to be stopped even if it runs.
        sent_at: when it was last sent to run.
        estimate: seconds that its run is expected to take, loading included; set when it is sent.
        charged: seconds its client has been charged for it.
        ran: seconds its present run had lasted when the connection to ComfyUI was lost.
    """

    prompt_id: str
    client: str
    models: ModelSet
    sequence: int
    number: float
    place: float
    fixed: bool
    priority: int
    submitted: float
    order_key: str | None = None
    workload: str = ""
    paid: bool = False
    state: State = State.ARRIVED
    asked: bool = False
    answered: bool = False
    valid: bool = False
    attempts: int = 0
    started: float | None = None
    confirmed: bool = False
    reached: bool = False
    parked: bool = False
    sent: bool = False
    sent_at: float | None = None
    interrupt: bool = False
    estimate: float = 0.0
    charged: float = 0.0
    ran: float | None = None
    reasons: list[Reason] = field(default_factory=list)

    def note(self, reason: Reason) -> None:
        """Add to its story."""
        self.reasons.append(reason)
        if len(self.reasons) > REASONS_KEPT:
            del self.reasons[1]
