"""Which components have left VRAM, or RAM as well, from one look at the residency to the next."""

from collections.abc import Iterable

from normalizer.models import ModelRef, ModelSet
from proxy.core.residency import ComponentState
from proxy.core.tiers import Tier

_RANKS = {Tier.HOT: 2, Tier.WARM: 1, Tier.COLD: 0}


class Departures:
    """Remembers where each component was when that was last certain."""

    def __init__(self) -> None:
        self._ranks: dict[ModelRef, int] = {}

    def look(self, components: Iterable[ComponentState]) -> ModelSet:
        """The components that are certain to be farther from VRAM than they last were."""
        gone = set()
        for state in components:
            rank = _RANKS.get(state.tier)
            if rank is not None:
                if rank < self._ranks.get(state.ref, 0):
                    gone.add(state.ref)
                self._ranks[state.ref] = rank
        return frozenset(gone)
