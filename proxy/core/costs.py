"""How many seconds of loading a prompt would still cause: the price the order of the queue is made by.

Nobody tells us what loading costs on this machine. It is learned: for each component and each tier it is loaded from,
and, until a component has been seen, from its file size and the bandwidth that others have shown. A component is
counted for itself, so a new LoRA on a checkpoint that is there costs a LoRA.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from normalizer.models import ModelRef, ModelSet
from proxy.core.tiers import Tier, Tiers

NEWEST_WEIGHT = 0.3
"""The weight of the newest observation in a running mean: about the last five count."""
ASSUMED_BANDWIDTH: Mapping[Tier, float] = {Tier.COLD: 1.5e9, Tier.WARM: 8e9}
"""Bytes per second before anything was measured: an NVMe disk with the overhead of reading weights, and PCIe 4."""
ASSUMED_SIZE = 2_000_000_000
"""Bytes of a component of which not even the file size is known."""

SizeOf = Callable[[ModelRef], int | None]
"""Bytes of a component, None where unknown."""


class Costs(Protocol):
    """What the scheduler asks about loading."""

    def load_seconds(self, models: ModelSet, after: Sequence[ModelSet] = ()) -> float:
        """Seconds of loading still to pay for `models` once prompts that need `after` have run, in that order."""
        ...


@dataclass(slots=True)
class LoadCosts:
    """Learned seconds of loading for each component and tier."""

    _seconds: dict[tuple[ModelRef, Tier], float] = field(default_factory=dict)
    _bandwidth: dict[Tier, float] = field(default_factory=dict)

    def observe(self, ref: ModelRef, tier: Tier, seconds: float, size: int | None = None) -> None:
        """Learn that loading `ref` from `tier` took `seconds`; its size in bytes teaches the bandwidth."""
        if tier not in ASSUMED_BANDWIDTH or seconds < 0:
            return
        self._seconds[ref, tier] = _blend(self._seconds.get((ref, tier)), seconds)
        if size and seconds > 0:
            self._bandwidth[tier] = _blend(self._bandwidth.get(tier), size / seconds)

    def seconds(self, ref: ModelRef, tier: Tier, size: int | None = None) -> float:
        """Seconds until `ref` can be computed with, when it is in `tier` now."""
        if tier is Tier.HOT:
            return 0.0
        if tier is Tier.UNKNOWN:
            return (self.seconds(ref, Tier.WARM, size) + self.seconds(ref, Tier.COLD, size)) / 2
        known = self._seconds.get((ref, tier))
        if known is not None:
            return known
        return (ASSUMED_SIZE if size is None else size) / self.bandwidth(tier)

    def bandwidth(self, tier: Tier) -> float:
        """Bytes per second from `tier`, measured or assumed."""
        return self._bandwidth.get(tier, ASSUMED_BANDWIDTH[tier])

    def to_json(self) -> dict[str, Any]:
        """Everything learned, for the journal."""
        return {
            "seconds": [
                {"class_type": ref.class_type, "files": list(ref.files), "tier": str(tier), "seconds": seconds}
                for (ref, tier), seconds in self._seconds.items()
            ],
            "bandwidth": {str(tier): value for tier, value in self._bandwidth.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`.

        Raises:
            KeyError, TypeError, ValueError: for anything else.
        """
        seconds = {
            (ModelRef(row["class_type"], tuple(row["files"])), Tier(row["tier"])): float(row["seconds"])
            for row in data["seconds"]
        }
        return cls(seconds, {Tier(tier): float(value) for tier, value in data["bandwidth"].items()})


@dataclass(frozen=True, slots=True)
class ResidentCosts:
    """`Costs` from what was learned, where components are now, and how much VRAM there is.

    What prompts that run before will have done to VRAM is predicted: the components used last stay, as many as fit into
    `vram` bytes (None: all), and what does not fit is in RAM.
    """

    learned: LoadCosts
    tiers: Tiers
    size_of: SizeOf
    vram: int | None = None

    def load_seconds(self, models: ModelSet, after: Sequence[ModelSet] = ()) -> float:
        """Seconds of loading still to pay for `models` once prompts that need `after` have run, in that order."""
        hot = self._hot(models, after)
        used = frozenset().union(*after)
        displaced = self.vram is not None and bool(used)
        total = 0.0
        for ref in models:
            tier = self.tiers.tier(ref)
            if ref in hot:
                tier = Tier.HOT
            elif ref in used or (displaced and tier is Tier.HOT):
                tier = Tier.WARM
            total += self.learned.seconds(ref, tier, self.size_of(ref))
        return total

    def _hot(self, models: ModelSet, after: Sequence[ModelSet]) -> ModelSet:
        """What of `after`, and of what is hot now, will be in VRAM when `models` come in."""
        if self.vram is None:
            return frozenset().union(*after)
        room = self.vram - sum(map(self._bytes, models))
        hot: set[ModelRef] = set()
        for used in reversed(after):
            new = used - models - hot
            room -= sum(map(self._bytes, new))
            if room < 0 and hot:
                break
            hot |= used
        if room >= 0:
            hot.update(ref for ref in models if self.tiers.tier(ref) is Tier.HOT)
        return frozenset(hot)

    def _bytes(self, ref: ModelRef) -> int:
        size = self.size_of(ref)
        return ASSUMED_SIZE if size is None else size


def _blend(old: float | None, new: float) -> float:
    return new if old is None else old + NEWEST_WEIGHT * (new - old)
