"""What a prompt that ended tells about where its components were, and what loading them cost.

Two witnesses speak, neither of them the model that predicted: a loader that had to run found nothing in memory, and a
node whose first step came late waited for weights. Where neither speaks clearly (a small component moves faster than
timings scatter; a node without steps was never timed with its weights in place) nothing is concluded.

Only certain cases teach what loading costs: a loader that ran has read its files, and the first node that computes with
what was just loaded has moved it to VRAM.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from normalizer.models import ModelRef, ModelSet
from proxy.core.accuracy import Scores
from proxy.core.costs import LoadCosts
from proxy.core.evidence import Part, PromptEnded, Use
from proxy.core.flags import UpstreamFlags
from proxy.core.flights import Flight
from proxy.core.shared_store import HANDED_OVER
from proxy.core.sizes import Sizes
from proxy.core.tiers import Tier

TELLABLE = 0.2
"""Seconds that moving weights must take at least to stand out from a node's other preparations."""
TEACHING = 64 * 1024**2
"""Bytes under which a timing says nothing about bandwidth."""


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
        waits: list[_Wait] = []
        tiers = dict.fromkeys(reads, Tier.COLD)
        seen: set[Part] = set()
        for use in event.uses:
            delay = self._delay(use, again=seen.issuperset(use.weights))
            judged = seen.isdisjoint(use.weights) and not self._patched_anew(use)
            seen |= use.weights
            if delay is None or not judged or not use.weights:
                continue
            refs = {part.ref for part in use.weights}
            sizes = self._part_sizes(use)
            waits.append(_Wait(use, sizes, delay))
            if refs <= reads.keys():
                for ref, size in sizes.items():
                    moved[ref] = moved.get(ref, _Moved()).more(size, delay * size / max(1, sum(sizes.values())))
        from_disk = _from_disk(waits, event.disk_bytes)
        held = [wait for wait in waits if reads.keys().isdisjoint(wait.sizes)]
        if flags.only_place is None:
            tiers |= self._seen(held, from_disk, flight.predicted, flags)
        else:
            found = {ref for key, ref in flight.own.items() if key.node_id in flight.cached}
            tiers |= dict.fromkeys(found - reads.keys(), flags.only_place)
        self._learn(reads, moved, flags)
        findings = [Finding(ref, flight.predicted.get(ref, Tier.UNKNOWN), tier) for ref, tier in tiers.items()]
        for finding in findings:
            self.scores.judge(finding.predicted, finding.seen)
        return tuple(findings)

    def _seen(
        self,
        waits: Sequence["_Wait"],
        from_disk: Collection["_Wait"] | None,
        predicted: Mapping[ModelRef, Tier],
        flags: UpstreamFlags,
    ) -> dict[ModelRef, Tier]:
        """Where components that ComfyUI held were, by what was waited for them."""
        tiers: dict[ModelRef, tuple[int, Tier]] = {}
        for wait in waits:
            if from_disk is not None and wait not in from_disk:
                self._learn_moving(wait, predicted, flags)
            tier = self._judge(wait, flags, None if from_disk is None else wait in from_disk)
            for ref, size in wait.sizes.items():
                # Of several parts the largest speaks for the component.
                if tier is not None and size > tiers.get(ref, (-1, tier))[0]:
                    tiers[ref] = size, tier
        return {ref: tier for ref, (_, tier) in tiers.items()}

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

    def _judge(self, wait: "_Wait", flags: UpstreamFlags, from_disk: bool | None) -> Tier | None:
        """Where the weights were that a node waited for; `from_disk` is None where nobody counts what is read."""
        if all(flags.computes_on_cpu(part.kind) for part in wait.use.weights):
            return Tier.WARM
        move, read = (wait.size / self._costs.bandwidth(tier) for tier in (Tier.WARM, Tier.COLD))
        if move < TELLABLE:
            return None
        if wait.delay < move / 2:
            return Tier.HOT
        if not flags.dynamic_vram:
            return Tier.WARM
        if from_disk is None:
            from_disk = wait.delay > move + read / 2
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

    def _learn_moving(self, wait: "_Wait", predicted: Mapping[ModelRef, Tier], flags: UpstreamFlags) -> None:
        """Under dynamic VRAM a first use reads, so moving alone shows only later: in what was thought to be in RAM."""
        late = wait.delay > wait.size / self._costs.bandwidth(Tier.WARM) / 4
        if flags.dynamic_vram and late and all(predicted.get(ref) is Tier.WARM for ref in wait.sizes):
            for ref, size in wait.sizes.items():
                whole = wait.delay * self._sizes.bytes_of(ref) / max(1, wait.size)
                self._costs.observe(ref, Tier.WARM, whole, self._sizes.bytes_of(ref) if size >= TEACHING else None)

    def _part_sizes(self, use: Use) -> dict[ModelRef, int]:
        sizes: dict[ModelRef, int] = {}
        for part in use.weights:
            sizes[part.ref] = sizes.get(part.ref, 0) + int(self._sizes.bytes_of(part.ref) * part.share)
        return sizes


@dataclass(frozen=True, slots=True)
class _Wait:
    """A node waited so many seconds for so many bytes of each component's weights."""

    use: Use
    sizes: Mapping[ModelRef, int]
    delay: float

    @property
    def size(self) -> int:
        """Bytes of all."""
        return sum(self.sizes.values())


def _from_disk(waits: Sequence[_Wait], disk_bytes: int | None) -> Collection[_Wait] | None:
    """Which waits were for the disk: those that took longest for each byte, as far as what was read reaches."""
    if disk_bytes is None:
        return None
    found = []
    for wait in sorted(waits, key=lambda wait: -wait.delay / max(1, wait.size)):
        if wait.size and disk_bytes >= wait.size / 2:
            found.append(wait)
            disk_bytes -= wait.size
    return found


@dataclass(frozen=True, slots=True)
class _Moved:
    """What was seen to move to VRAM, and for how long it was waited for."""

    bytes: int = 0
    seconds: float = 0.0

    def more(self, size: int, seconds: float) -> "_Moved":
        return _Moved(self.bytes + size, self.seconds + seconds)
