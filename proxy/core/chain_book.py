"""The loader chains seen lately: which are candidates for pins, how often each was used, what its loading cost.

Of variants that differ only in numeric knobs there is one entry, the newest: the others' outputs are dropped by ComfyUI
when the newest is executed under the same id. Seconds are the caller's monotonic ones.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from normalizer import Chain
from normalizer.models import ModelRef
from proxy.core.eviction import Candidate, frequency_after

REMEMBERED = 512
"""Chains remembered at most; far above what any budget pins, and small in memory."""


class ChainBook:
    """Candidates by key, the most recently used last."""

    def __init__(self) -> None:
        self._candidates: dict[str, Candidate] = {}
        self._seconds: dict[ModelRef, float] = {}

    def used(self, chains: Iterable[Chain], now: float) -> None:
        """These chains were held by a prompt that has just run: each is alive and the newest of its kind."""
        for chain in chains:
            old = self._candidates.pop(chain.key, None)
            frequency = 1.0 if old is None else frequency_after(old.frequency, old.last_used, now) + 1.0
            self._candidates[chain.key] = Candidate(chain, now, frequency)
        while len(self._candidates) > REMEMBERED:
            del self._candidates[next(iter(self._candidates))]

    def loaded(self, seconds: Mapping[ModelRef, float]) -> None:
        """These components were loaded in so many seconds."""
        self._seconds |= seconds

    def forget(self) -> None:
        """ComfyUI holds nothing any more: it is a new process, or its cache was emptied."""
        self._candidates.clear()

    def candidates(self) -> list[Candidate]:
        """All that could be pinned, the most recently used first, with measured seconds where all are known."""
        return [self._with_seconds(candidate) for candidate in reversed(self._candidates.values())]

    def _with_seconds(self, candidate: Candidate) -> Candidate:
        models = candidate.chain.models
        if not all(ref in self._seconds for ref in models):
            return candidate
        return replace(candidate, load_seconds=sum(self._seconds[ref] for ref in models))
