"""The prompt as a graph: links, the nodes that expand at run time, and the builder that expanding nodes use.

Behaviour from ComfyUI comfy_execution/graph_utils.py and graph.py.
"""

from collections.abc import Mapping
from typing import Any

_LINK_LENGTH = 2


class NodeNotFoundError(Exception):
    """A link points to a node that is not in the prompt."""


def is_link(value: object) -> bool:
    """Whether an input value is a connection: `[node id, output slot]`."""
    return (
        isinstance(value, list)
        and len(value) == _LINK_LENGTH
        and isinstance(value[0], str)
        and isinstance(value[1], (int, float))
    )


class ExecutionBlocker:
    """A value that keeps whoever receives it from running.

    Args:
        message: told as an error where it blocks; None blocks silently.
    """

    def __init__(self, message: str | None) -> None:
        self.message = message


class DynamicPrompt:
    """The prompt as submitted plus the nodes that its nodes expanded into."""

    def __init__(self, original: dict[str, Any]) -> None:
        self.original = original
        self._ephemeral: dict[str, Any] = {}
        self._parents: dict[str, str] = {}
        self._display: dict[str, str] = {}

    def node(self, node_id: str) -> Any:
        """The node's JSON. Raises NodeNotFoundError."""
        if node_id in self._ephemeral:
            return self._ephemeral[node_id]
        if node_id in self.original:
            return self.original[node_id]
        raise NodeNotFoundError(f"Node {node_id} not found")

    def has(self, node_id: str) -> bool:
        """Whether there is such a node."""
        return node_id in self.original or node_id in self._ephemeral

    def add(self, node_id: str, node: Any, parent_id: str, display_id: str) -> None:
        """Add a node that `parent_id` expanded into."""
        self._ephemeral[node_id] = node
        self._parents[node_id] = parent_id
        self._display[node_id] = display_id

    def real_id(self, node_id: str) -> str:
        """The submitted node that this one comes from."""
        while node_id in self._parents:
            node_id = self._parents[node_id]
        return node_id

    def parent_id(self, node_id: str) -> str | None:
        """The node that expanded into this one."""
        return self._parents.get(node_id)

    def display_id(self, node_id: str) -> str:
        """The submitted node that shows this one's progress."""
        while node_id in self._display:
            node_id = self._display[node_id]
        return node_id

    def all_ids(self) -> list[str]:
        """Submitted nodes, then those added since."""
        return [*self.original, *(node_id for node_id in self._ephemeral if node_id not in self.original)]


class GraphBuilder:
    """Builds the graph that a node expands into, with ids that are stable from run to run.

    Args:
        prefix: `{node id}.{call index}.{graph index}.`, put before every id.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._nodes: dict[str, Any] = {}

    def node(self, class_type: str, name: str, **inputs: object) -> str:
        """Add a node and return its id."""
        node_id = self._prefix + name
        self._nodes[node_id] = {"class_type": class_type, "inputs": inputs}
        return node_id

    def finish(self) -> Mapping[str, Any]:
        """The graph, as a node returns it under `expand`."""
        return self._nodes
