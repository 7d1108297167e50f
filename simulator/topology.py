"""Which node runs next.

ComfyUI dissolves the graph from the outputs backwards and picks among the nodes that are ready by a few rules of thumb
(output nodes and asynchronous nodes first, then what leads to an output soonest). A client sees that order in its
events. Behaviour from ComfyUI comfy_execution/graph.py, `TopologicalSort` and `ExecutionList`.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .cache import Cache, CacheEntry
from .graph import DynamicPrompt, is_link
from .nodes.base import Node


class NodeInputError(Exception):
    """A node asked for an input that it cannot get."""


@dataclass(frozen=True)
class Cycle:
    """No node can run; `node_id` gets the blame."""

    node_id: str


class ExecutionList:
    """The nodes still to run and what each of them waits for."""

    def __init__(self, prompt: DynamicPrompt, classes: Mapping[str, type[Node]], cache: Cache) -> None:
        self._prompt = prompt
        self._classes = classes
        self._cache = cache
        self._pending: dict[str, bool] = {}
        self._blocked_by: dict[str, int] = {}
        self._blocking: dict[str, dict[str, bool]] = {}
        self._external = 0
        self._unblocked = asyncio.Event()
        self._staged: str | None = None
        self._values: dict[str, dict[str, CacheEntry | None]] = {}
        self._listeners: dict[str, dict[str, bool]] = {}

    def empty(self) -> bool:
        """Whether everything has run."""
        return not self._pending

    def add(self, node_id: str) -> None:
        """Add a node and everything it needs that is neither cached nor lazy."""
        todo = [node_id]
        links: list[tuple[str, str]] = []
        while todo:
            current = todo.pop()
            if current in self._pending:
                continue
            self._pending[current] = True
            self._blocked_by[current] = 0
            self._blocking[current] = {}
            node = self._prompt.node(current)
            for name, value in node["inputs"].items():
                if not is_link(value) or self._class(current).is_lazy(name):
                    continue
                if not self._cached(value[0]):
                    todo.append(value[0])
                links.append((value[0], current))
        for source, target in links:
            self.link(source, target)

    def need_input(self, node_id: str, name: str) -> None:
        """Make a lazy input a real one. Raises NodeInputError."""
        inputs = self._prompt.node(node_id)["inputs"]
        if name not in inputs:
            raise NodeInputError(
                f"Node {node_id} says it needs input {name}, but there is no input to that node at all"
            )
        if not is_link(inputs[name]):
            raise NodeInputError(f"Node {node_id} says it needs input {name}, but that value is a constant")
        self.link(inputs[name][0], node_id)

    def link(self, source: str, target: str) -> None:
        """Make `target` wait for `source`, unless that is cached, and hand it the value."""
        if not self._cached(source):
            self.add(source)
            if target not in self._blocking[source]:
                self._blocking[source][target] = True
                self._blocked_by[target] += 1
        self.watch(source, target)

    def watch(self, source: str, target: str) -> None:
        """Give `target` the value of `source` now, if there is one, and later, when it changes."""
        self._values.setdefault(target, {})[source] = self._cache.peek(source)
        self._listeners.setdefault(source, {})[target] = True

    def value(self, source: str, target: str) -> CacheEntry | None:
        """The value of `source` for `target`; written back to the cache, as it was touched."""
        entry = self._values.get(target, {}).get(source)
        if entry is not None:
            self._cache.put_back(source, entry)
        return entry

    def update(self, source: str, entry: CacheEntry) -> None:
        """Tell everyone who waits for `source` its value."""
        for target in self._listeners.get(source, {}):
            if target in self._values:
                self._values[target][source] = entry

    def block(self, node_id: str) -> Callable[[], None]:
        """Keep `node_id` from being ready until the returned function is called."""
        self._external += 1
        self._blocked_by[node_id] += 1

        def unblock() -> None:
            self._external -= 1
            self._blocked_by[node_id] -= 1
            self._unblocked.set()

        return unblock

    async def stage(self) -> str | Cycle:
        """The node to run next; waits while all are waiting for something outside the graph."""
        ready = self._ready()
        while not ready and self._external:
            await self._unblocked.wait()
            self._unblocked.clear()
            ready = self._ready()
        if not ready:
            return Cycle(self._blamed())
        self._staged = self._pick(ready)
        return self._staged

    def unstage(self) -> None:
        """The staged node is not done; it stays in the list."""
        self._staged = None

    def complete(self) -> None:
        """The staged node is done."""
        node_id = self._staged
        if node_id is None:
            raise RuntimeError("no node is staged")
        del self._pending[node_id]
        for blocked in self._blocking.pop(node_id):
            self._blocked_by[blocked] -= 1
        self._values.pop(node_id, None)
        self._listeners.pop(node_id, None)
        self._staged = None

    def _class(self, node_id: str) -> type[Node]:
        return self._classes[self._prompt.node(node_id)["class_type"]]

    def _cached(self, node_id: str) -> bool:
        return self._cache.peek(node_id) is not None

    def _ready(self) -> list[str]:
        return [node_id for node_id in self._pending if not self._blocked_by[node_id]]

    def _pick(self, ready: list[str]) -> str:
        for node_id in ready:
            if self._class(node_id).OUTPUT_NODE or self._class(node_id).ASYNC:
                return node_id
        for node_id in ready:
            if any(self._class(after).OUTPUT_NODE for after in self._blocking[node_id]):
                return node_id
        for node_id in ready:
            for after in self._blocking[node_id]:
                if any(self._class(later).OUTPUT_NODE for later in self._blocking[after]):
                    return node_id
        return ready[0]

    def _blamed(self) -> str:
        """The first node of the cycle, or better the first that an expanding node brought in."""
        waits_for: dict[str, set[str]] = {node_id: set() for node_id in self._pending}
        for source, targets in self._blocking.items():
            for target in targets:
                waits_for[target].add(source)
        while free := [node_id for node_id, sources in waits_for.items() if not sources]:
            for node_id in free:
                del waits_for[node_id]
            for sources in waits_for.values():
                sources.difference_update(free)
        for node_id in waits_for:
            display_id = self._prompt.display_id(node_id)
            if display_id != node_id:
                return display_id
        return next(iter(waits_for))
