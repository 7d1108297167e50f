"""How long prompts run, learned from those that have run.

Estimates of start times, the shares of clients and the staging of a prompt behind a running one all need the length of
a run before it has happened. The best guide is the last prompts of the same workload, then those with the same models,
then all.
"""

from dataclasses import dataclass, field
from typing import TypeVar

from normalizer.models import ModelSet

ASSUMED_SECONDS = 10.0
"""Before any prompt has run."""
NEWEST_WEIGHT = 0.3
"""The weight of the newest run in a running mean: about the last five count."""
REMEMBERED = 2_000
"""Workloads and model sets that are remembered; the one not seen for longest goes first."""

_Key = TypeVar("_Key")


@dataclass(slots=True)
class Durations:
    """Learned run times, in seconds from start to end."""

    _by_workload: dict[str, float] = field(default_factory=dict)
    _by_models: dict[ModelSet, float] = field(default_factory=dict)
    _overall: float | None = None

    def observe(self, workload: str, models: ModelSet, seconds: float) -> None:
        """Learn one run."""
        if workload:
            _learn(self._by_workload, workload, seconds)
        _learn(self._by_models, models, seconds)
        self._overall = seconds if self._overall is None else self._overall + NEWEST_WEIGHT * (seconds - self._overall)

    def estimate(self, workload: str, models: ModelSet) -> float:
        """Seconds that a run is expected to take."""
        known = self._by_workload.get(workload) if workload else None
        if known is None:
            known = self._by_models.get(models)
        return self.typical if known is None else known

    @property
    def typical(self) -> float:
        """Seconds of a run about which nothing is known."""
        return ASSUMED_SECONDS if self._overall is None else self._overall


def _learn(known: dict[_Key, float], key: _Key, seconds: float) -> None:
    old = known.pop(key, None)
    known[key] = seconds if old is None else old + NEWEST_WEIGHT * (seconds - old)
    if len(known) > REMEMBERED:
        del known[next(iter(known))]
