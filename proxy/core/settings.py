"""What the operator can set about the queue. The defaults come from the benchmark; docs/scheduling.md says why."""

from dataclasses import dataclass
from enum import StrEnum


class Validate(StrEnum):
    """When ComfyUI checks a prompt: at once, by a probe, or only when it is sent to run."""

    PROBE = "probe"
    DISPATCH = "dispatch"


@dataclass(frozen=True, slots=True)
class Settings:
    """How the queue behaves. Times are in seconds.

    Attributes:
        depth: prompts at ComfyUI that may run; 2 is one running and one ready behind it.
        validate: when ComfyUI checks a prompt.
        max_bypass: so many later submitted prompts of its priority may overtake a prompt.
        max_wait: so many seconds of their run time, plus one prompt.
        age_step: each such stretch of waiting counts as one step of priority.
        fair_quantum: a client that has had so many seconds of run time more than another waits until that one has
            caught up.
        recall_gain: a staged prompt is called back when that saves at least so many seconds of loading.
        max_waiting: prompts held at most; further ones are refused.
        max_attempts: a prompt whose run is lost so often has failed.
        rerun_paid: run prompts with paid remote nodes again although they had started.
    """

    depth: int = 2
    validate: Validate = Validate.PROBE
    max_bypass: int = 16
    max_wait: float = 60.0
    age_step: float = 300.0
    fair_quantum: float = 60.0
    recall_gain: float = 0.5
    max_waiting: int = 10_000
    max_attempts: int = 3
    rerun_paid: bool = False
