"""What a prompt that ended tells about where its components were, and what loading them cost.

Two witnesses speak, neither of them the model that predicted: a loader that had to run found nothing in memory, and a
node whose first step came late waited for weights. Where neither speaks clearly (a small component moves faster than
timings scatter; a node without steps was never timed with its weights in place) nothing is concluded.

Only certain cases teach what loading costs: a loader that ran has read its files, and the first node that computes with
what was just loaded has moved it to VRAM.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from normalizer.models import ModelRef, ModelSet
from proxy.core.accuracy import Scores
from proxy.core.costs import LoadCosts
from proxy.core.evidence import Part, PromptEnded, PromptSent, Use
from proxy.core.flags import UpstreamFlags
from proxy.core.node_cache import CacheKey
from proxy.core.shared_store import HANDED_OVER
from proxy.core.sizes import Sizes
from proxy.core.tiers import Tier

TELLABLE = 0.2
"""Seconds that moving weights must take at least to stand out from a node's other preparations."""
TEACHING = 64 * 1024**2
"""Bytes under which a timing says nothing about bandwidth."""


@dataclass(slots=True)
class Flight:
    """A prompt at ComfyUI, from sending to its end, with what was believed when it started."""

    sent: PromptSent
    own: Mapping[CacheKey, ModelRef]
    pins: Mapping[CacheKey, ModelRef]
    started: bool = False
    predicted: Mapping[ModelRef, Tier] = field(default_factory=dict)
    held: frozenset[CacheKey] = frozenset()
    """Its own results that ComfyUI was thought to hold."""
    known: ModelSet = frozenset()
    """Its components that ComfyUI was thought to hold in whatever variant."""
    cached: frozenset[str] = frozenset()
    handed_over: frozenset[str] = frozenset()
    """Its shared loaders that were thought to find their models under their keys."""


def handed_over(thought: Collection[str], node_id: str, node_seconds: Mapping[str, float]) -> bool:
    """Whether a shared loader that was thought to find its models did: reading a file takes longer than a look."""
    return node_id in thought and node_seconds.get(node_id, 0.0) < HANDED_OVER


@dataclass(frozen=True, slots=True)
class Finding:
    """One judged use of one component."""

    ref: ModelRef
    predicted: Tier
    seen: Tier


class Judge:
    """Judges prompts of one upstream; keeps the score and teaches the costs."""

    def __init__(self, sizes: Sizes, costs: LoadCosts) -> None:
        self.scores = Scores()
        self._sizes = sizes
        self._costs = costs
        self._computing: dict[str, float] = {}
        """Seconds that a node without steps takes when its weights are in place, by class."""
        self._patched: dict[Part, ModelSet] = {}

    def settle(self, flight: Flight, event: PromptEnded, flags: UpstreamFlags) -> tuple[Finding, ...]:
        """Judge a prompt that ended and learn from it."""
        reads = self._reads(flight, event)
        moved: dict[ModelRef, _Moved] = {}
        tiers: dict[ModelRef, tuple[int, Tier]] = {ref: (self._sizes.bytes_of(ref), Tier.COLD) for ref in reads}
        seen: set[Part] = set()
        for use in event.uses:
            delay = self._delay(use, again=seen.issuperset(use.weights))
            judged = seen.isdisjoint(use.weights) and not self._patched_anew(use)
            seen |= use.weights
            if delay is None or not judged or not use.weights:
                continue
            refs = {part.ref for part in use.weights}
            sizes = self._part_sizes(use)
            if refs <= reads.keys():
                for ref, size in sizes.items():
                    moved[ref] = moved.get(ref, _Moved()).more(size, delay * size / max(1, sum(sizes.values())))
            elif refs.isdisjoint(reads):
                tier = self._judge(sum(sizes.values()), delay, flags, event.disk_bytes)
                for ref, size in sizes.items():
                    # Of several parts the largest speaks for the component.
                    if tier is not None and size > tiers.get(ref, (-1, tier))[0]:
                        tiers[ref] = size, tier
        self._learn(reads, moved, flags)
        findings = [Finding(ref, flight.predicted.get(ref, Tier.UNKNOWN), tier) for ref, (_, tier) in tiers.items()]
        for finding in findings:
            self.scores.judge(finding.predicted, finding.seen)
        return tuple(findings)

    def _patched_anew(self, use: Use) -> bool:
        """Whether other LoRAs than last time are baked in: that takes time wherever the weights were."""
        anew = any(self._patched.get(part, use.patches) != use.patches for part in use.weights)
        self._patched.update(dict.fromkeys(use.weights, use.patches))
        return anew

    def _reads(self, flight: Flight, event: PromptEnded) -> dict[ModelRef, float]:
        """The components that were read from disk, with the seconds of their loaders."""
        reads: dict[ModelRef, float] = {}
        for key, ref in flight.own.items():
            ran = key.node_id in event.node_seconds and key.node_id not in flight.cached
            ran = ran and not handed_over(flight.handed_over, key.node_id, event.node_seconds)
            # A variant in its knobs runs its node again without reading the file: that is no load.
            if ran and (key in flight.held or ref not in flight.known):
                reads[ref] = reads.get(ref, 0.0) + event.node_seconds[key.node_id]
        return reads

    def _delay(self, use: Use, *, again: bool) -> float | None:
        """How long the weights were waited for; None where there is nothing to compare with."""
        if use.step_seconds is not None:
            return max(0.0, use.seconds - use.step_seconds)
        if again:
            # The same weights a second time in one prompt are where they are needed: this is computing alone.
            self._computing[use.consumer] = use.seconds
        known = self._computing.get(use.consumer)
        return None if known is None else max(0.0, use.seconds - known)

    def _judge(self, size: int, delay: float, flags: UpstreamFlags, disk_bytes: int | None) -> Tier | None:
        if not flags.uses_vram:
            return Tier.WARM
        if not flags.can_offload:
            return Tier.HOT
        move, read = (size / self._costs.bandwidth(tier) for tier in (Tier.WARM, Tier.COLD))
        if move < TELLABLE:
            return None
        if delay < move / 2:
            return Tier.HOT
        if not flags.dynamic_vram:
            return Tier.WARM
        from_disk = delay > move + read / 2 if disk_bytes is None else disk_bytes >= size / 2
        return Tier.COLD if from_disk else Tier.WARM

    def _learn(self, reads: Mapping[ModelRef, float], moved: Mapping[ModelRef, "_Moved"], flags: UpstreamFlags) -> None:
        for ref, seconds in reads.items():
            size = self._sizes.bytes_of(ref)
            move = moved.get(ref, _Moved())
            self._costs.observe(ref, Tier.COLD, seconds + move.seconds, size if size >= TEACHING else None)
            # Under dynamic VRAM the first use may still read from disk: that is no move from RAM.
            if move.bytes and flags.uses_vram and flags.can_offload and not flags.dynamic_vram:
                whole = move.seconds * size / move.bytes
                self._costs.observe(ref, Tier.WARM, whole, size if move.bytes >= TEACHING else None)

    def _part_sizes(self, use: Use) -> dict[ModelRef, int]:
        sizes: dict[ModelRef, int] = {}
        for part in use.weights:
            sizes[part.ref] = sizes.get(part.ref, 0) + int(self._sizes.bytes_of(part.ref) * part.share)
        return sizes


@dataclass(frozen=True, slots=True)
class _Moved:
    """What was seen to move to VRAM, and for how long it was waited for."""

    bytes: int = 0
    seconds: float = 0.0

    def more(self, size: int, seconds: float) -> "_Moved":
        return _Moved(self.bytes + size, self.seconds + seconds)
