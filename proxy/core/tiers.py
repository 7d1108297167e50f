"""Where a component's weights are, as far as anybody can tell, and so what using it will cost.

The scheduler asks for a tier before it orders prompts; the residency model answers. *Unknown* is an honest answer, not
a fault: under dynamic VRAM a cached loader proves only that the object lives.
"""

from enum import StrEnum
from typing import Protocol

from normalizer.models import ModelRef


class Tier(StrEnum):
    """The place of a component's weights: VRAM, RAM, disk, or nobody knows."""

    HOT = "hot"
    WARM = "warm"
    COLD = "cold"
    UNKNOWN = "unknown"


class Tiers(Protocol):
    """Whoever knows where components are."""

    def tier(self, ref: ModelRef) -> Tier:
        """Where this component's weights are now."""
        ...
