"""How often the predicted tier was the right one: a number that the operator can see.

Residency that is assumed and never checked drifts. Each judged use of a component counts once, under the tier that was
predicted for it; predictions of *unknown* are counted too, and are never right.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from proxy.core.tiers import Tier


@dataclass(frozen=True, slots=True)
class TierScore:
    """Of the judged uses for which one tier was predicted, how many were right."""

    uses: int = 0
    right: int = 0


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How good the predictions were, by predicted tier."""

    tiers: Mapping[Tier, TierScore]

    @property
    def share(self) -> float | None:
        """Right predictions among all judged uses; None before there were any."""
        uses = sum(score.uses for score in self.tiers.values())
        return sum(score.right for score in self.tiers.values()) / uses if uses else None


@dataclass(slots=True)
class Scores:
    """Counts predictions against what was seen."""

    _counts: dict[tuple[Tier, Tier], int] = field(default_factory=dict)

    def judge(self, predicted: Tier, seen: Tier) -> None:
        """One use of one component."""
        self._counts[predicted, seen] = self._counts.get((predicted, seen), 0) + 1

    def accuracy(self) -> Accuracy:
        """The state of the count."""
        tiers = {}
        for tier in Tier:
            uses = sum(count for (predicted, _), count in self._counts.items() if predicted is tier)
            tiers[tier] = TierScore(uses, self._counts.get((tier, tier), 0))
        return Accuracy(tiers)
