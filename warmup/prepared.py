"""The prompts of entries, made once for each schema: making them takes longer than looking whether they are needed."""

from dataclasses import dataclass

from normalizer import Schema
from warmup.entries import Depth
from warmup.faults import BadEntry
from warmup.prompts import Preparation, Surroundings, prepare
from warmup.schedule import Planned


@dataclass(frozen=True)
class _Made:
    """The prompts that were made for an entry, and what they were made from."""

    schema: Schema
    key: tuple[str, Depth]
    prepared: Preparation | BadEntry


class Prepared:
    """What was made last for each entry."""

    def __init__(self) -> None:
        self._made: dict[str, _Made] = {}

    def get(self, planned: Planned, around: Surroundings, depth: Depth) -> Preparation | BadEntry:
        """The prompts of an entry, or why there are none; those of a group depend on what clients send meanwhile."""
        key = (planned.definition, depth)
        known = self._made.get(planned.name)
        if known is not None and known.schema is around.schema and known.key == key:
            return known.prepared
        prepared: Preparation | BadEntry
        try:
            prepared = prepare(planned, around, depth)
        except BadEntry as bad:
            prepared = bad
        if planned.entry.group is None:
            self._made[planned.name] = _Made(around.schema, key, prepared)
        return prepared
