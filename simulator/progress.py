"""How far each node is, told to clients after every change.

Behaviour from ComfyUI comfy_execution/progress.py, `ProgressRegistry` and `WebUIProgressHandler`.
"""

from dataclasses import dataclass
from typing import Any

from .events import Events
from .graph import DynamicPrompt


@dataclass
class _State:
    state: str = "pending"
    value: float = 0
    max: float = 1


class Progress:
    """Progress of the nodes of one prompt.

    Args:
        prompt_id: the prompt.
        prompt: its nodes.
        events: where changes are told.
    """

    def __init__(self, prompt_id: str, prompt: DynamicPrompt, events: Events) -> None:
        self._prompt_id = prompt_id
        self._prompt = prompt
        self._events = events
        self._nodes: dict[str, _State] = {}

    def start(self, node_id: str) -> None:
        """The node begins."""
        self._nodes[node_id] = _State("running", 0.0, 1.0)
        self._tell()

    def update(self, node_id: str, value: float, maximum: float) -> None:
        """The node got further."""
        self._nodes[node_id] = _State("running", value, maximum)
        self._tell()

    def finish(self, node_id: str) -> None:
        """The node is done."""
        entry = self._nodes.setdefault(node_id, _State())
        entry.state = "finished"
        entry.value = entry.max
        self._tell()

    def identity(self, node_id: str) -> dict[str, Any]:
        """Which node it is, in the terms of the submitted prompt."""
        return {
            "node_id": node_id,
            "prompt_id": self._prompt_id,
            "display_node_id": self._prompt.display_id(node_id),
            "parent_node_id": self._prompt.parent_id(node_id),
            "real_node_id": self._prompt.real_id(node_id),
        }

    def _tell(self) -> None:
        nodes = {
            node_id: {"value": entry.value, "max": entry.max, "state": entry.state, **self.identity(node_id)}
            for node_id, entry in self._nodes.items()
        }
        self._events.send("progress_state", {"prompt_id": self._prompt_id, "nodes": nodes}, self._events.client_id)
