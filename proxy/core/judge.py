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
from proxy.core.evidence import PromptEnded, PromptSent, Use
from proxy.core.flags import UpstreamFlags
from proxy.core.memory_model import CacheKey
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

    def settle(self, flight: Flight, event: PromptEnded, flags: UpstreamFlags) -> tuple[Finding, ...]:
        """Judge a prompt that ended and learn from it."""
        reads = self._reads(flight, event)
        moves: dict[ModelRef, float] = {}
        findings = [Finding(ref, flight.predicted.get(ref, Tier.UNKNOWN), Tier.COLD) for ref in reads]
        seen: set[ModelRef] = set()
        for use in event.uses:
            delay = self._delay(use, again=seen.issuperset(use.refs))
            first = seen.isdisjoint(use.refs)
            seen |= use.refs
            if delay is None or not first:
                continue
            if use.refs <= reads.keys():
                moves |= self._shares(use.refs, delay)
            elif use.refs.isdisjoint(reads):
                tier = self._judge(use.refs, delay, flags, event.disk_bytes)
                if tier is not None:
                    findings += [Finding(ref, flight.predicted.get(ref, Tier.UNKNOWN), tier) for ref in use.refs]
        self._learn(reads, moves, flags)
        for finding in findings:
            self.scores.judge(finding.predicted, finding.seen)
        return tuple(findings)

    def _reads(self, flight: Flight, event: PromptEnded) -> dict[ModelRef, float]:
        """The components that were read from disk, with the seconds of their loaders."""
        reads: dict[ModelRef, float] = {}
        for key, ref in flight.own.items():
            ran = key.node_id in event.node_seconds and key.node_id not in flight.cached
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

    def _judge(self, refs: ModelSet, delay: float, flags: UpstreamFlags, disk_bytes: int | None) -> Tier | None:
        if not flags.uses_vram:
            return Tier.WARM
        size = self._size(refs)
        move, read = (size / self._costs.bandwidth(tier) for tier in (Tier.WARM, Tier.COLD))
        if move < TELLABLE:
            return None
        if delay < move / 2:
            return Tier.HOT
        if not flags.dynamic_vram:
            return Tier.WARM
        from_disk = delay > move + read / 2 if disk_bytes is None else disk_bytes >= size / 2
        return Tier.COLD if from_disk else Tier.WARM

    def _learn(self, reads: Mapping[ModelRef, float], moves: Mapping[ModelRef, float], flags: UpstreamFlags) -> None:
        for ref, seconds in reads.items():
            size = self._sizes.bytes_of(ref)
            taught = size if size >= TEACHING else None
            self._costs.observe(ref, Tier.COLD, seconds + moves.get(ref, 0.0), taught)
            # Under dynamic VRAM the first use may still read from disk: that is no move from RAM.
            if ref in moves and flags.uses_vram and not flags.dynamic_vram:
                self._costs.observe(ref, Tier.WARM, moves[ref], taught)

    def _shares(self, refs: ModelSet, seconds: float) -> dict[ModelRef, float]:
        size = self._size(refs)
        return {ref: seconds * self._sizes.bytes_of(ref) / size for ref in refs} if size else {}

    def _size(self, refs: Collection[ModelRef]) -> int:
        return sum(map(self._sizes.bytes_of, refs))
