"""What ComfyUI has in memory, and what the next prompt has to load: a model of it, for benchmarks in virtual time.

Two things decide. A component's object lives as long as its loader's output is cached; the modes of the node cache
differ in what they keep from one prompt to the next (ComfyUI comfy_execution/caching.py). Of what lives, VRAM holds
what was used last, the rest is in RAM (comfy/model_management.py). So a component is hot, warm or cold; loading a cold
one reads the disk and crosses the bus, a warm one crosses the bus.

Simpler than the real thing in stated ways: a component is moved as a whole; files are never read from the page cache;
what does not fit into RAM is dropped, longest unused first, where the real ComfyUI might be killed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from bench.traces import Machine
from normalizer import Chain
from normalizer.models import ModelRef, ModelSet
from proxy.core.budget import Budget, Limits
from proxy.core.chain_book import ChainBook
from proxy.core.eviction import plan
from proxy.core.tiers import Tier

LRU_RESULTS = 50
"""`--cache-lru 50`: so many node results stay."""
OTHER_RESULTS = 7
"""Results of a prompt that are not loaders: two encoded texts, latent, sampler, decoder, image, and its saving."""


class Cache(StrEnum):
    """How ComfyUI's node cache is run."""

    DEFAULT = "default"
    LRU = "lru"
    LOW_RAM_THRESHOLDS = "low thresholds"
    PINNED = "pinned"


@dataclass(frozen=True, slots=True)
class Load:
    """One component was loaded."""

    ref: ModelRef
    tier: Tier
    seconds: float


class Memory:
    """The components that live, the most recently used last, and those of them that are in VRAM."""

    def __init__(self, machine: Machine, sizes: Mapping[ModelRef, int], cache: Cache) -> None:
        self.machine = machine
        self.sizes = sizes
        self._cache = cache
        self._alive: dict[ModelRef, int] = {}
        """With the turn in which it was used last."""
        self._hot: dict[ModelRef, None] = {}
        self._turn = 0
        self._book = ChainBook()
        self._chains = {ref: _chain(ref) for ref in sizes}
        limits = Limits()
        self._budget = Budget(limits.max_chains, int(machine.ram * limits.ram_share), machine.model_ram)

    def tier(self, ref: ModelRef) -> Tier:
        """Where it is."""
        if ref in self._hot:
            return Tier.HOT
        return Tier.WARM if ref in self._alive else Tier.COLD

    def seconds(self, ref: ModelRef, tier: Tier) -> float:
        """To load it from there."""
        if tier is Tier.HOT:
            return 0.0
        crossing = self.machine.crossing_seconds(self.sizes[ref])
        return crossing if tier is Tier.WARM else crossing + self.machine.reading_seconds(self.sizes[ref])

    def cost(self, models: ModelSet) -> float:
        """Seconds that a prompt with these would load for now."""
        return sum(self.seconds(ref, self.tier(ref)) for ref in models)

    def run(self, models: ModelSet, now: float, foresight: Sequence[ModelSet] = ()) -> list[Load]:
        """A prompt with these components runs: what it loads. `foresight` are the prompts that the pins may look at."""
        self._turn += 1
        kept = self._kept(models, now, foresight)
        self._alive = {ref: turn for ref, turn in self._alive.items() if ref in kept or ref in models}
        self._hot = {ref: None for ref in self._hot if ref in self._alive}
        loads = []
        for ref in sorted(models, key=lambda ref: (self.sizes[ref], ref)):
            tier = self.tier(ref)
            if tier is not Tier.HOT:
                loads.append(Load(ref, tier, self.seconds(ref, tier)))
            self._touch(ref)
        self._book.used([self._chains[ref] for ref in sorted(models)], now)
        self._drop_for_ram(models)
        return loads

    def _touch(self, ref: ModelRef) -> None:
        self._hot.pop(ref, None)
        room = self.machine.model_vram - self.sizes[ref]
        while self._hot and sum(self.sizes[other] for other in self._hot) > room:
            del self._hot[next(iter(self._hot))]
        self._hot[ref] = None
        self._alive.pop(ref, None)
        self._alive[ref] = self._turn

    def _kept(self, models: ModelSet, now: float, foresight: Sequence[ModelSet]) -> Iterable[ModelRef]:
        if self._cache is Cache.LOW_RAM_THRESHOLDS:
            return self._alive
        if self._cache is Cache.LRU:
            return self._recent_results(models)
        if self._cache is Cache.PINNED:
            return self._pinned(models, now, foresight)
        return ()

    def _recent_results(self, models: ModelSet) -> set[ModelRef]:
        """Whole turns of results, as many of the newest as make `LRU_RESULTS`."""
        kept: set[ModelRef] = set(models)
        results = len(models) + OTHER_RESULTS
        for turn in range(self._turn - 1, 0, -1):
            of_turn = {ref for ref, used in self._alive.items() if used == turn and ref not in models}
            results += len(of_turn) + OTHER_RESULTS
            if results > LRU_RESULTS:
                break
            kept |= of_turn
        return kept

    def _pinned(self, models: ModelSet, now: float, foresight: Sequence[ModelSet]) -> set[ModelRef]:
        own = [self._chains[ref] for ref in sorted(models)]
        alive = [item for item in self._book.candidates() if next(iter(item.chain.models)) in self._alive]
        chosen = plan(alive, own, self._budget, foresight, (), self.sizes.__getitem__, now).chosen
        return {ref for chain in chosen for ref in chain.models}

    def _drop_for_ram(self, models: ModelSet) -> None:
        limit = self.machine.model_ram
        for ref in list(self._alive):
            if sum(self.sizes[other] for other in self._alive) <= limit:
                return
            if ref not in models:
                del self._alive[ref]
                self._hot.pop(ref, None)


def _chain(ref: ModelRef) -> Chain:
    (name,) = ref.files
    node = {"class_type": ref.class_type, "inputs": {"name": name}}
    return Chain(key=name, signature=name, nodes={name: node}, models=frozenset({ref}))
