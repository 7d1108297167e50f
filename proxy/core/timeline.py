"""What one prompt did, told by the events ComfyUI sends while it runs.

ComfyUI says which nodes came out of its cache (`execution_cached`) and which node runs now (`executing`), never how
long a node took. Two neighbouring `executing` events give that: a node's seconds end when the next one starts. Times
are the caller's monotonic seconds; ids are those ComfyUI knows.

Source: ComfyUI execution.py, `PromptExecutor.execute_async` and `execute`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from proxy.core.events import Outcome
from proxy.core.shortage import Shortage, shortage

_ENDS = {
    "execution_success": Outcome.SUCCESS,
    "execution_error": Outcome.ERROR,
    "execution_interrupted": Outcome.INTERRUPTED,
}


@dataclass(slots=True)
class Timeline:
    """The course of one prompt; fed by `handle`, read by whoever accounts for it."""

    started_at: float | None = None
    ended_at: float | None = None
    outcome: Outcome | None = None
    shortage: Shortage | None = None
    """Of which memory it wanted more than there was, if that is how it ended."""
    cached: frozenset[str] = frozenset()
    node_seconds: dict[str, float] = field(default_factory=dict)
    current_node: str | None = None
    _node_since: float = 0.0
    _stamps: dict[str, float] = field(default_factory=dict)

    def handle(self, kind: str, data: Mapping[str, Any], now: float) -> bool:
        """Take in one event of this prompt; True when it is the one that ends it."""
        if isinstance(stamp := data.get("timestamp"), int | float):
            self._stamps.setdefault(kind, stamp / 1000)
        if kind == "execution_start":
            self.started_at = now
        elif kind == "execution_cached":
            nodes: Iterable[object] = data.get("nodes") or ()
            self.cached = frozenset(node for node in nodes if isinstance(node, str))
        elif kind == "executing":
            self._enter(data.get("node"), now)
        elif kind in _ENDS and self.outcome is None:
            self._enter(None, now)
            self.outcome = _ENDS[kind]
            if kind == "execution_error":
                self.shortage = shortage(str(data.get("exception_type")), str(data.get("exception_message")))
            self.ended_at = now
            return True
        return False

    def _enter(self, node: object, now: float) -> None:
        if self.current_node is not None:
            # A node may be entered again (it waits for a subgraph or an async result): its parts add up.
            passed = now - self._node_since
            self.node_seconds[self.current_node] = self.node_seconds.get(self.current_node, 0.0) + passed
        self.current_node = node if isinstance(node, str) else None
        self._node_since = now

    @property
    def start_seconds(self) -> float | None:
        """Seconds from `execution_start` to `execution_cached` by ComfyUI's own stamps; None while either is unknown.

        By its stamps, because frames may be late here: the thread that asks every `IS_CHANGED` keeps its loop busy.
        """
        start, cached = self._stamps.get("execution_start"), self._stamps.get("execution_cached")
        return None if start is None or cached is None else cached - start

    @property
    def run_seconds(self) -> float | None:
        """Seconds from start to end; None while either is unknown."""
        if self.started_at is None or self.ended_at is None:
            return None
        return self.ended_at - self.started_at
