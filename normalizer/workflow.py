"""An API-format prompt as a graph, without changing or judging it.

What ComfyUI takes for a link decides which values are ids and which are not, so the test is its own, to the letter
(`comfy_execution/graph_utils.py`, `is_link`): a list of a string and a number. Everything that does not look like a
node or a link is left alone.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from normalizer.errors import MalformedPrompt


@dataclass(frozen=True, slots=True)
class Node:
    """One node that looks as it should: a class by name and inputs by name. `index` is its place in the prompt."""

    id: str
    index: int
    class_type: str
    inputs: dict[str, Any]
    raw: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Link:
    """One input that comes from another node; `source` need not exist."""

    input: str
    source: str
    slot: int | float


LINK_LENGTH = 2


def is_link(value: Any) -> bool:
    """Tell whether ComfyUI takes this value for a link."""
    return (
        isinstance(value, list)
        and len(value) == LINK_LENGTH
        and isinstance(value[0], str)
        and isinstance(value[1], (int, float))
    )


def links(inputs: Mapping[str, Any]) -> Iterator[Link]:
    """Yield the links among a node's inputs, declared or not, in order."""
    for name, value in inputs.items():
        if type(value) is list and is_link(value):
            yield Link(name, value[0], value[1])


def read_nodes(prompt: Any) -> dict[str, Node]:
    """Give the nodes of a prompt by id, leaving out what does not look like one.

    Raises:
        MalformedPrompt: if the prompt is no object.
    """
    if not isinstance(prompt, Mapping):
        raise MalformedPrompt(f"a prompt is an object of nodes, not {type(prompt).__name__}")
    nodes = {}
    for index, (node_id, raw) in enumerate(prompt.items()):
        if isinstance(raw, dict):
            class_type, inputs = raw.get("class_type"), raw.get("inputs")
            if isinstance(class_type, str) and isinstance(inputs, dict):
                nodes[node_id] = Node(node_id, index, class_type, inputs, raw)
    return nodes
