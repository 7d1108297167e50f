"""Which chains to carry along with a prompt, so that the right models are still there afterwards.

What a prompt does not carry, ComfyUI forgets; what it carries takes memory. The queue shows part of the future, so the
choice can do better than recency: of what fits, keep what is needed soonest, and let go first what the visible queue
needs last (Belady's rule, as far as the queue reaches). Behind the queue's horizon there is only the past: group
priority first, then the seconds of loading that a byte spares, by how often it was used lately. With no queue, no
groups and no measured loads this comes down to the most recently used first.

Components shared by several chains are counted once. The planner never fails: what does not fit is left out and said.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from normalizer import Chain
from normalizer.models import ModelRef, ModelSet
from proxy.core.budget import Budget
from proxy.core.flags import Overlap
from proxy.core.groups import Group, Keep, group_of

HALF_LIFE = 600.0
"""Seconds after which a use counts half in a chain's frequency."""
ASSUMED_BANDWIDTH = 1e9
"""Bytes per second from disk, where a chain's load was never timed."""

SizeOf: TypeAlias = Callable[[ModelRef], int]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A chain that could be carried along.

    `frequency` is its uses, each halved every `HALF_LIFE` seconds, as of `last_used` (monotonic seconds).
    `load_seconds` is what loading it again would cost, None where nobody has timed it. `alive` is False when ComfyUI
    has certainly dropped it: a pin would keep nothing. `kept`: somebody wants it kept for some time, whatever its use.
    `objection` says why it is not to be carried at all, None if nothing speaks against it.
    """

    chain: Chain
    last_used: float
    frequency: float = 1.0
    load_seconds: float | None = None
    alive: bool = True
    kept: bool = False
    objection: str | None = None


@dataclass(frozen=True, slots=True)
class PinReason:
    """Why one chain is kept or not."""

    key: str
    models: ModelSet
    kept: bool
    text: str


@dataclass(frozen=True, slots=True)
class PinPlan:
    """What to carry along. `unmet` names the chains that were to be kept always, or for now, and had to be left out."""

    chosen: tuple[Chain, ...] = ()
    reasons: tuple[PinReason, ...] = ()
    pinned_bytes: int = 0
    unmet: tuple[str, ...] = ()


def outlived(candidate: Candidate, group: Group | None, now: float) -> bool:
    """Whether its group has kept it for long enough since its last use."""
    return group is not None and not candidate.kept and now - candidate.last_used > group.idle_limit


def frequency_after(frequency: float, last_used: float, now: float) -> float:
    """A decayed use count, brought from `last_used` to `now`; add 1.0 for a use happening now."""
    return frequency * math.pow(0.5, max(0.0, now - last_used) / HALF_LIFE)


def plan(
    candidates: Sequence[Candidate],
    own: Sequence[Chain],
    budget: Budget,
    foresight: Sequence[ModelSet],
    groups: Sequence[Group],
    size_of: SizeOf,
    now: float,
) -> PinPlan:
    """Choose the chains to carry along with one prompt.

    Args:
        candidates: the chains known, one for each key.
        own: the chains of the prompt itself; they are there anyway and count against `budget.ram` and `budget.vram`.
        budget: what may be taken.
        foresight: the components of the prompts expected after this one, the next one first.
        groups: the operator's groups.
        size_of: bytes of a component.
        now: monotonic seconds.
    """
    needs = first_needs(foresight)
    ranked = sorted((_rank(candidate, needs, groups, size_of, now) for candidate in candidates), key=_Ranked.order)
    packing = _Packing(budget, own, size_of, _Arrivals(budget.overlap, foresight, size_of))
    reasons: dict[str, PinReason] = {}
    for item in ranked:
        if item.key in reasons:
            continue
        unit = [item]
        if item.gone is None and item.group is not None and item.group.keep is Keep.TOGETHER:
            unit = [other for other in ranked if other.group is item.group and other.gone is None]
            unit = unit if packing.add([other.chain for other in unit if other.key not in reasons]) is None else [item]
        for member in unit:
            if member.key not in reasons:
                reasons[member.key] = _decide(member, packing)
    unmet = tuple(item.key for item in ranked if item.always and item.gone is None and not reasons[item.key].kept)
    return PinPlan(tuple(packing.chosen), tuple(reasons.values()), packing.pinned_bytes, unmet)


@dataclass(frozen=True, slots=True)
class _Ranked:
    """A candidate with its place in the order of importance; `gone` says why it is no candidate after all."""

    candidate: Candidate
    group: Group | None
    why: str
    gone: str | None
    place: tuple[float, ...]

    @property
    def chain(self) -> Chain:
        return self.candidate.chain

    @property
    def key(self) -> str:
        return self.candidate.chain.key

    @property
    def always(self) -> bool:
        return self.candidate.kept or (self.group is not None and self.group.keep is Keep.ALWAYS)

    def order(self) -> tuple[tuple[float, ...], str]:
        return self.place, self.key


class _Arrivals:
    """What a later prompt may load while everything that is there now still is."""

    def __init__(self, overlap: Overlap, foresight: Sequence[ModelSet], size_of: SizeOf) -> None:
        self._overlap = overlap
        self._size_of = size_of
        self._prompts = frozenset(foresight)
        self._components = sorted(frozenset[ModelRef]().union(*foresight), key=lambda ref: (-size_of(ref), ref))

    def most(self, there: ModelSet) -> int:
        """Bytes at most beside `there`, as far as the queue tells; what it does not tell must be made room for."""
        if self._overlap is Overlap.WHOLE:
            return max((sum(map(self._size_of, models - there)) for models in self._prompts), default=0)
        if self._overlap is Overlap.FIRST:
            return next((self._size_of(ref) for ref in self._components if ref not in there), 0)
        return 0


def _rank(
    candidate: Candidate, needs: Mapping[ModelRef, int], groups: Sequence[Group], size_of: SizeOf, now: float
) -> _Ranked:
    models = candidate.chain.models
    group = group_of(models, groups)
    priority = float(group.priority) if group else 0.0
    idle = now - candidate.last_used
    # Its heaviest component decides: a LoRA on another base brings nothing that a prompt with that LoRA could use.
    needed = needs.get(max(models, key=lambda ref: (size_of(ref), ref))) if models else None
    gone = candidate.objection
    if not candidate.alive:
        gone = "ComfyUI does not hold it any more"
    elif gone is None and needed is None and group is not None and outlived(candidate, group, now):
        gone = f"unused for {idle:.0f} s, longer than group {group.name!r} keeps it"
    density = _density(candidate, size_of, now)
    place: tuple[float, ...] = (0.0, -priority, -density, -candidate.last_used)
    if candidate.kept:
        why = "kept for some time after its warm-up"
    elif group is not None and group.keep is Keep.ALWAYS:
        why = f"group {group.name!r} is always kept"
    elif needed is not None:
        why = f"prompt {needed} of the queue needs it"
        place = (1.0, float(needed), -priority, -density, -candidate.last_used)
    else:
        why = f"used {idle:.0f} s before"
        place = (2.0, -priority, -density, -candidate.last_used)
    return _Ranked(candidate, group, why, gone, place)


def _density(candidate: Candidate, size_of: SizeOf, now: float) -> float:
    """Seconds of loading spared per byte kept, by recent use."""
    size = max(1, sum(map(size_of, candidate.chain.models)))
    seconds = size / ASSUMED_BANDWIDTH if candidate.load_seconds is None else candidate.load_seconds
    return frequency_after(candidate.frequency, candidate.last_used, now) * seconds / size


def _decide(item: _Ranked, packing: "_Packing") -> PinReason:
    if packing.owns(item.chain):
        return PinReason(item.key, item.chain.models, kept=True, text="the prompt itself uses it")
    text = item.gone or packing.add([item.chain])
    kept = text is None
    return PinReason(item.key, item.chain.models, kept, item.why if text is None else text)


def first_needs(foresight: Sequence[ModelSet]) -> dict[ModelRef, int]:
    """The place in the queue, from 1, of the first prompt that needs each component."""
    needs: dict[ModelRef, int] = {}
    for place, wanted in enumerate(foresight, start=1):
        for ref in wanted:
            needs.setdefault(ref, place)
    return needs


@dataclass(slots=True)
class _Packing:
    """What has been chosen so far, and whether more fits."""

    budget: Budget
    own: Sequence[Chain]
    size_of: SizeOf
    arrivals: _Arrivals
    chosen: list[Chain] = field(default_factory=list)
    pinned_bytes: int = 0
    _held: set[ModelRef] = field(default_factory=set)
    _nodes: set[str] = field(default_factory=set)
    _there: ModelSet = frozenset()
    """What will be in memory, pinned or not."""
    _there_bytes: int = 0

    def __post_init__(self) -> None:
        for chain in self.own:
            self._held |= chain.models
            self._nodes |= chain.nodes.keys()
        self._there = frozenset(self._held) | self.budget.lingering
        self._there_bytes = sum(map(self.size_of, self._there))

    def owns(self, chain: Chain) -> bool:
        """Whether the prompt brings all of it anyway."""
        return frozenset().union(*(own.nodes.keys() for own in self.own)).issuperset(chain.nodes)

    def add(self, chains: Collection[Chain]) -> str | None:
        """Take all of these in, or none and say why."""
        wanted = [chain for chain in chains if not self._nodes.issuperset(chain.nodes)]
        if not wanted:
            return None
        new = frozenset().union(*(chain.models for chain in wanted)) - self._held
        size = sum(map(self.size_of, new))
        if len(self.chosen) + len(wanted) > self.budget.chains:
            return f"as many chains as may stay are chosen already: {self.budget.chains}"
        there = self._there | new
        total = self._there_bytes + sum(map(self.size_of, new - self._there)) + self.arrivals.most(there)
        for name, limit, taken in (
            ("pins", self.budget.pins, self.pinned_bytes + size),
            ("RAM", self.budget.ram, total),
            ("VRAM", self.budget.vram, total),
        ):
            if limit is not None and taken > limit:
                return f"{size / 1e9:.2f} GB more would pass the {limit / 1e9:.2f} GB that {name} may take"
        self.chosen.extend(wanted)
        self.pinned_bytes += size
        self._held |= new
        self._there, self._there_bytes = there, sum(map(self.size_of, there))
        for chain in wanted:
            self._nodes |= chain.nodes.keys()
        return None
