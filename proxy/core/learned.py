"""What was learned about this machine, in a form that outlives the process: run times of prompts, costs of loading.

An estimate is worth most after a restart, when hundreds of prompts wait and none has run yet. What is kept is what the
estimates say, not what they were made of: for each kind of prompt that has run lately the seconds a run is expected to
take, and for each component the seconds it takes to load. To take that up again is to observe it once.
"""

from collections.abc import Mapping
from typing import Any

from normalizer.models import ModelRef, ModelSet
from proxy.core.costs import LoadCosts
from proxy.core.durations import Durations
from proxy.core.tiers import Tier

KINDS_KEPT = 300
"""Kinds of prompts whose run times are kept; the one that has not run for longest goes first."""


class Learned:
    """Follows what runs, for `to_json`; the learning itself is done by `durations` and `costs`."""

    def __init__(self, durations: Durations, costs: LoadCosts) -> None:
        self._durations = durations
        self._costs = costs
        self._kinds: dict[tuple[str, ModelSet], None] = {}

    def ran(self, workload: str, models: ModelSet) -> None:
        """A prompt of this kind has run to its end."""
        self._kinds.pop((workload, models), None)
        self._kinds[workload, models] = None
        if len(self._kinds) > KINDS_KEPT:
            del self._kinds[next(iter(self._kinds))]

    def to_json(self) -> dict[str, Any]:
        """Everything that is worth keeping."""
        runs = [
            {
                "workload": workload,
                "models": sorted([ref.class_type, *ref.files] for ref in models),
                "seconds": self._durations.estimate(workload, models),
            }
            for workload, models in self._kinds
        ]
        return {"runs": runs, "loads": self._costs.to_json()}

    def restore(self, data: Mapping[str, Any]) -> None:
        """Take up what `to_json` gave, unless something newer is known already.

        Raises:
            KeyError, TypeError, ValueError: when it is something else; then nothing is taken up.
        """
        loads = LoadCosts.from_json(data["loads"]).to_json()
        runs = [(str(row["workload"]), _models(row["models"]), float(row["seconds"])) for row in data["runs"]]
        if not self._kinds:
            for workload, models, seconds in runs:
                self._durations.observe(workload, models, seconds)
                self.ran(workload, models)
        if not self._costs.to_json()["seconds"]:
            self._restore_loads(loads)

    def _restore_loads(self, loads: Mapping[str, Any]) -> None:
        bandwidths = dict(loads["bandwidth"])
        for row in loads["seconds"]:
            seconds = row["seconds"]
            # One observation of a size that fits tells the bandwidth as it was.
            bandwidth = bandwidths.pop(row["tier"], None) if seconds > 0 else None
            size = None if bandwidth is None else max(1, round(bandwidth * seconds))
            self._costs.observe(ModelRef(row["class_type"], tuple(row["files"])), Tier(row["tier"]), seconds, size)


def _models(rows: list[list[str]]) -> ModelSet:
    return frozenset(ModelRef(class_type, tuple(files)) for class_type, *files in rows)
