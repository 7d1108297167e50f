"""What one prompt loaded, what was kept for it, and the seconds that saved.

Only measured loads count: a kept component saves what it cost when it was last loaded, and only if ComfyUI would have
dropped it on its own, that is, if the prompt before did not hold it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from normalizer.models import ModelRef
from proxy.core.timeline import Timeline


@dataclass(frozen=True, slots=True)
class Loaded:
    """One component that was loaded; `seconds` is None when nobody watched the node run."""

    ref: ModelRef
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Account:
    """The balance of one prompt, for its log line and the totals."""

    loaded: tuple[Loaded, ...] = ()
    kept: tuple[ModelRef, ...] = ()
    saved_seconds: float = 0.0
    avoidable_seconds: float = 0.0
    """Seconds of loading that pins would have spared: what `observe` reports."""


class LoadBook:
    """Remembers what each component cost to load and what the prompt before held."""

    def __init__(self) -> None:
        self._seconds: dict[ModelRef, float] = {}
        self._held: frozenset[str] = frozenset()

    def settle(self, components: Mapping[str, ModelRef], timeline: Timeline, *, keeps_alone: bool) -> Account:
        """Close the account of a prompt that ended.

        Args:
            components: the client's own loader nodes, by the id of their cache entry, with what each loads.
            timeline: the events of the prompt, its ids translated to those of `components`.
            keeps_alone: ComfyUI's own flags keep models across workflows, so nothing is saved by pins.
        """
        loaded, kept = [], []
        saved = avoidable = 0.0
        for node_id, ref in components.items():
            switched = node_id not in self._held and not keeps_alone
            if node_id in timeline.cached:
                kept.append(ref)
                saved += self._seconds.get(ref, 0.0) if switched else 0.0
            elif node_id in timeline.node_seconds:
                seconds = timeline.node_seconds[node_id]
                avoidable += seconds if switched and ref in self._seconds else 0.0
                self._seconds[ref] = seconds
                loaded.append(Loaded(ref, seconds))
        self._held = frozenset(components)
        return Account(tuple(loaded), tuple(kept), saved, avoidable)

    def disturb(self) -> None:
        """Somebody else's prompt ran: what ComfyUI holds on its own is not known."""
        self._held = frozenset()
