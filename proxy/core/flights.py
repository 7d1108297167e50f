"""The prompts that are at ComfyUI: sent, and not yet ended.

What ComfyUI will hold when the next prompt begins hangs on those that are before it, so each is remembered with what it
needs and carries, and, once it runs, with what was believed when it started.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from normalizer.models import ModelRef, ModelSet
from proxy.core.evidence import PromptSent
from proxy.core.node_cache import CacheKey, SizeOf
from proxy.core.tiers import Tier


@dataclass(slots=True)
class Flight:
    """A prompt at ComfyUI, from sending to its end, with what was believed when it started."""

    sent: PromptSent
    own: Mapping[CacheKey, ModelRef]
    pins: Mapping[CacheKey, ModelRef]
    started: bool = False
    predicted: Mapping[ModelRef, Tier] = field(default_factory=dict)
    held: frozenset[CacheKey] = frozenset()
    """Its own results that ComfyUI was thought to hold, or may have held."""
    known: ModelSet = frozenset()
    """Its components that ComfyUI was thought to hold in whatever variant."""
    cached: frozenset[str] = frozenset()
    handed_over: frozenset[str] = frozenset()
    """Its shared loaders that were thought to find their models under their keys."""

    @property
    def needs(self) -> ModelSet:
        """The components of the prompt itself."""
        return frozenset(self.own.values())

    @property
    def carries(self) -> ModelSet:
        """The components of its pins."""
        return frozenset(self.pins.values())

    def pinned_bytes(self, size_of: SizeOf) -> int:
        """The bytes that its pins add to its own components."""
        return sum(map(size_of, self.carries - self.needs))


class Flights(dict[str, Flight]):
    """All of them by prompt id, in the order in which they were sent."""

    @property
    def running(self) -> bool:
        """Whether one has started."""
        return any(flight.started for flight in self.values())

    @property
    def running_with_pins(self) -> bool:
        """Whether one that carries pins has started."""
        return any(flight.started and flight.pins for flight in self.values())

    @property
    def carried(self) -> ModelSet:
        """The components that are pinned now."""
        return frozenset[ModelRef]().union(*(flight.carries for flight in self.values()))

    @property
    def coming(self) -> tuple[ModelSet, ...]:
        """What each of those that wait needs."""
        return tuple(flight.needs for flight in self.values() if not flight.started)

    @property
    def brought(self) -> ModelSet:
        """All that those that wait need or carry."""
        waiting = (flight.needs | flight.carries for flight in self.values() if not flight.started)
        return frozenset[ModelRef]().union(*waiting)
