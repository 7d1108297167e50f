"""An API-format prompt as a graph, without changing or judging it.

What ComfyUI takes for a link decides which values are ids and which are not, so the test is its own, to the letter
(`comfy_execution/graph_utils.py`, `is_link`): a list of a string and a number. Everything that does not look like a
node or a link is left alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from normalizer.errors import MalformedPrompt

LINK_LENGTH = 2


class Link(NamedTuple):
    """One input that comes from another node; `source` need not exist."""

    input: str
    source: str
    slot: int | float


class Node(NamedTuple):
    """One node that looks as it should: a class by name and inputs by name. `place` counts the nodes of the prompt."""

    id: str
    place: int
    class_type: str
    inputs: dict[str, Any]
    raw: Mapping[str, Any]
    links: tuple[Link, ...]


class OddLink(NamedTuple):
    """A value that is no link to ComfyUI, yet its validation looks the node up if the input is declared.

    `["4", "0"]` is a bad link; `{"__value__": ["4", 0]}` becomes a link when validation unwraps it.
    """

    class_type: str
    input: str
    source: str


@dataclass(frozen=True, slots=True)
class Graph:
    """The nodes of a prompt by id, without what does not look like one, and the odd links among them.

    `missing` are the ids that links of either kind name and nothing in the prompt has.
    """

    nodes: dict[str, Node]
    odd: tuple[OddLink, ...]
    missing: frozenset[str]


def is_link(value: Any) -> bool:
    """Tell whether ComfyUI takes this value for a link."""
    return (
        isinstance(value, list)
        and len(value) == LINK_LENGTH
        and isinstance(value[0], str)
        and isinstance(value[1], (int, float))
    )


def read_graph(prompt: Any) -> Graph:
    """Read a prompt.

    Raises:
        MalformedPrompt: if the prompt is no object.
    """
    if not isinstance(prompt, Mapping):
        raise MalformedPrompt(f"a prompt is an object of nodes, not {type(prompt).__name__}")
    nodes = {}
    odd: list[OddLink] = []
    for place, (node_id, raw) in enumerate(prompt.items()):
        if isinstance(raw, dict):
            class_type, inputs = raw.get("class_type"), raw.get("inputs")
            if isinstance(class_type, str) and isinstance(inputs, dict):
                nodes[node_id] = Node(node_id, place, class_type, inputs, raw, _links(class_type, inputs, odd))
    named = {link.source for node in nodes.values() for link in node.links}.union(link.source for link in odd)
    return Graph(nodes, tuple(odd), frozenset(named.difference(prompt)))


def _links(class_type: str, inputs: dict[str, Any], odd: list[OddLink]) -> tuple[Link, ...]:
    """Give the links among a node's inputs, declared or not, in order; add the odd ones to `odd`."""
    found = []
    for name, value in inputs.items():
        kind = type(value)
        if kind is str:
            continue  # most values are
        if kind is list:
            if is_link(value):
                found.append(Link(name, *value))
                continue
            named = value
        elif kind is dict and "__value__" in value:
            named = value["__value__"]
        else:
            continue
        if isinstance(named, list) and len(named) == LINK_LENGTH and isinstance(named[0], str):
            odd.append(OddLink(class_type, name, named[0]))
    return tuple(found)
