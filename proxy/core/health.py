"""What is wrong with a ComfyUI that answers, for people and their tools."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Health:
    """`stalled_since`: nothing has moved since then (Unix seconds) although prompts wait.

    `poisoned`: why the queue stands until ComfyUI is restarted. Both None while all is well.
    """

    stalled_since: float | None = None
    poisoned: str | None = None
