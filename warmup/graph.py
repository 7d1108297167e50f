"""Walking a prompt in API format, all of whose links lead to nodes that are there."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from normalizer.workflow import Link, is_link


def links(inputs: Mapping[str, Any]) -> Iterator[Link]:
    """Yield the links among a node's inputs, in order."""
    for name, value in inputs.items():
        if is_link(value):
            yield Link(name, value[0], value[1])


def upstream(nodes: Mapping[str, Any], tips: Collection[str]) -> list[str]:
    """These nodes and all that they take from, in the prompt's order."""
    seen, stack = set(tips), list(tips)
    while stack:
        for link in links(nodes[stack.pop()]["inputs"]):
            if link.source not in seen:
                seen.add(link.source)
                stack.append(link.source)
    return [node_id for node_id in nodes if node_id in seen]


def free_id(nodes: Collection[str], wanted: str) -> str:
    """A node id that is not taken."""
    while wanted in nodes:
        wanted += "-"
    return wanted
