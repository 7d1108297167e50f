"""The history entry of one run, as far as its events tell it.

ComfyUI puts an entry into its history when a run has ended, and may die before anybody has read it. What the events
have told is enough to say how it went and what came out, so a prompt is never without an entry.
Source: ComfyUI execution.py, `PromptExecutor.execute_async`, `task_done`.
"""

from collections.abc import Mapping
from typing import Any

from normalizer import WayBack

_MESSAGES = frozenset(
    {"execution_start", "execution_cached", "execution_success", "execution_error", "execution_interrupted"}
)
_ENDS = frozenset({"execution_success", "execution_error", "execution_interrupted"})


class Chronicle:
    """What is known of one run."""

    def __init__(self) -> None:
        self._messages: list[tuple[str, Any]] = []
        self._outputs: dict[str, Any] = {}
        self._meta: dict[str, Any] = {}
        self._remembered: Mapping[str, Any] | None = None
        self.kept_back = False
        """Its end has come by an event that its client was not sent."""

    def note(self, kind: str, data: Mapping[str, Any], way_back: WayBack | None) -> None:
        """An event of its run, as ComfyUI sent it; `execution_start` begins a run anew."""
        restored = way_back.event(data) if way_back else data
        if restored is None:
            return
        if kind == "execution_start":
            self._messages, self._outputs, self._meta = [], {}, {}
            self._remembered, self.kept_back = None, False
        if kind in _MESSAGES:
            self._messages.append((kind, restored))
        elif kind == "executed":
            node_id = str(restored.get("node"))
            self._outputs[node_id] = restored.get("output")
            display = restored.get("display_node", node_id)
            self._meta[node_id] = {
                "node_id": node_id,
                "display_node": display,
                "parent_node": None,
                "real_node_id": node_id,
            }

    def remember(self, entry: Mapping[str, Any]) -> None:
        """ComfyUI's own entry, restored: it is the whole truth."""
        self._remembered = entry

    def entry(self, item: Any) -> Mapping[str, Any] | None:
        """The entry for `/history`; `item` is the prompt as `/queue` shows it. None where no end is known."""
        if self._remembered is not None:
            return self._remembered
        if not self._messages or self._messages[-1][0] not in _ENDS:
            return None
        succeeded = self._messages[-1][0] == "execution_success"
        return {
            "prompt": item,
            "outputs": self._outputs,
            "status": {
                "status_str": "success" if succeeded else "error",
                "completed": succeeded,
                "messages": [list(message) for message in self._messages],
            },
            "meta": self._meta,
        }

    @property
    def error(self) -> Mapping[str, Any] | None:
        """The data of its `execution_error`; None where it has not failed, as far as is known."""
        kind, data = self._end() or ("", None)
        return data if kind == "execution_error" and isinstance(data, Mapping) else None

    def last_words(self) -> tuple[str, Any] | None:
        """The event that would have told the end, where its client cannot have heard it; else None."""
        return self._end() if self.kept_back or self._remembered is not None else None

    def _end(self) -> tuple[str, Any] | None:
        messages = self._messages if self._remembered is None else self._remembered["status"]["messages"]
        return next(((kind, data) for kind, data in reversed(messages) if kind in _ENDS), None)
