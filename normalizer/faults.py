"""Submissions that are known to kill ComfyUI, found before they reach it.

ComfyUI answers 200 to some prompts that then end its worker thread for good while its HTTP lives on, or the process:
what its validation does not look at, its worker trusts. One such prompt stops everybody's queue, so it is refused with
a 400 that says what to change. What ComfyUI refuses by itself, or answers with a harmless 500, is not looked for.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that would kill ComfyUI: at which node (None for the submission as a whole), what, and what to do."""

    node_id: str | None
    what: str
    remedy: str


def fatal_faults(body: Mapping[str, Any]) -> list[Fault]:
    """Find what in the body of a `POST /prompt` is known to kill ComfyUI (0.3.64 or 0.33.0)."""
    return [*_envelope(body), *_nodes(body.get("prompt"))]


def _envelope(body: Mapping[str, Any]) -> Iterator[Fault]:
    extra_data = body.get("extra_data", {})
    if not isinstance(extra_data, Mapping):
        yield Fault(None, "extra_data is no object", "send an object, or leave extra_data out")
        extra_data = {}
    for place, holder in (("client_id", body), ("extra_data.client_id", extra_data)):
        if isinstance(holder.get("client_id"), (list, dict)):
            yield Fault(None, f"{place} is no string", "send the id of your WebSocket as a string, or leave it out")


def _nodes(prompt: Any) -> Iterator[Fault]:
    if not isinstance(prompt, Mapping):
        return
    nodes = {node_id: node for node_id, node in prompt.items() if isinstance(node, Mapping)}
    if len(nodes) < len(prompt) or any("class_type" not in node for node in nodes.values()):
        return  # ComfyUI refuses the whole prompt
    for node_id, node in nodes.items():
        if "inputs" not in node:
            yield Fault(node_id, "the node has no inputs", 'give it "inputs": {}, even if it is wired to nothing')
        elif not isinstance(node["inputs"], Mapping):
            yield Fault(node_id, "the node's inputs are no object", "send the inputs as an object of names and values")
