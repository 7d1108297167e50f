"""Under which keys ComfyUI caches: what a node computes, and which node it is.

Outputs are cached by what determines them: the node's class, what its IS_CHANGED says, its inputs (links as positions
among the ancestors, so ids do not matter), and the same for all ancestors. Instances and subgraphs are cached by node
id and class. Behaviour from ComfyUI comfy_execution/caching.py, including which values never equal themselves.
"""

import itertools
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

from .graph import DynamicPrompt, is_link
from .nodes.base import Node

IsChanged = Callable[[str], Awaitable[Any]]


class _Unhashable:
    """Stands for a value that equals nothing, itself from another prompt included."""


def _hashable(value: Any) -> Hashable:
    if isinstance(value, (int, float, str, bool, bytes)) or value is None:
        return value
    if isinstance(value, Mapping):
        return frozenset((_hashable(key), _hashable(item)) for key, item in sorted(value.items()))
    if isinstance(value, Sequence):
        return frozenset(zip(itertools.count(), (_hashable(item) for item in value), strict=False))
    return _Unhashable()


class KeySet:
    """Keys of the nodes of one prompt."""

    def __init__(self, prompt: DynamicPrompt) -> None:
        self.prompt = prompt
        self.keys: dict[str, Hashable] = {}
        self.subcache_keys: dict[str, Hashable] = {}

    async def add(self, node_ids: Iterable[str]) -> None:
        """Make the keys of further nodes; nodes that do not exist are left out."""
        for node_id in node_ids:
            if node_id in self.keys or not self.prompt.has(node_id):
                continue
            identity = (node_id, self.prompt.node(node_id)["class_type"])
            self.keys[node_id] = await self._key(node_id)
            self.subcache_keys[node_id] = identity

    def fresh(self) -> "KeySet":
        """An empty set of the same kind for the same prompt."""
        return KeySet(self.prompt)

    async def _key(self, node_id: str) -> Hashable:
        return (node_id, self.prompt.node(node_id)["class_type"])


class InputSignatures(KeySet):
    """Keys made of everything that determines a node's outputs."""

    def __init__(self, prompt: DynamicPrompt, classes: Mapping[str, type[Node]], is_changed: IsChanged) -> None:
        super().__init__(prompt)
        self._classes = classes
        self._is_changed = is_changed

    def fresh(self) -> "InputSignatures":
        """See KeySet."""
        return InputSignatures(self.prompt, self._classes, self._is_changed)

    async def _key(self, node_id: str) -> Hashable:
        order: dict[str, int] = {}
        self._order_ancestors(node_id, order)
        parts = [await self._immediate(each, order) for each in (node_id, *order)]
        return _hashable(parts)

    async def _immediate(self, node_id: str, order: Mapping[str, int]) -> list[Any]:
        if not self.prompt.has(node_id):
            return [float("nan")]
        node = self.prompt.node(node_id)
        node_class = self._classes[node["class_type"]]
        signature = [node["class_type"], await self._is_changed(node_id)]
        if node_class.NOT_IDEMPOTENT or node_class.keyed_by_id():
            signature.append(node_id)
        inputs = node["inputs"]
        for name in sorted(inputs):
            value = inputs[name]
            signature.append((name, ("ANCESTOR", order[value[0]], value[1])) if is_link(value) else (name, value))
        return signature

    def _order_ancestors(self, node_id: str, order: dict[str, int]) -> None:
        if not self.prompt.has(node_id):
            return
        inputs = self.prompt.node(node_id)["inputs"]
        for name in sorted(inputs):
            value = inputs[name]
            if is_link(value) and value[0] not in order:
                order[value[0]] = len(order)
                self._order_ancestors(value[0], order)
