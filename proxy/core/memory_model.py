"""A model of what ComfyUI keeps in memory, so that one can tell before a prompt runs what it will have to load.

ComfyUI says what it holds only when a prompt starts (`execution_cached`), and never where weights are. But it forgets
by rules: its node cache by the mode it was started with, its VRAM by the order in `free_memory`. `NodeCache` and `Vram`
follow those rules; `residency` feeds them and corrects them by what is seen. Both can doubt: a doubted thing may be
there or not.

Sources: ComfyUI `comfy_execution/caching.py`, `execution.py` (`PromptExecutor`), `comfy/model_management.py`
(`free_memory`, `load_models_gpu`) of 0.3.64 and 0.33.0. Bytes throughout.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from normalizer import Chain
from normalizer.models import ModelRef
from proxy.core.flags import GB, CacheMode, UpstreamFlags

SizeOf: TypeAlias = Callable[[ModelRef], int]

RAM_MARGIN = GB
"""So near a RAM-pressure threshold nobody can tell from outside which side ComfyUI saw."""
LOAD_FACTOR = 1.1
"""ComfyUI frees this multiple of what it loads (`load_models_gpu`)."""
RESIDENT_SHARE = 0.5
"""A component of which at least this share is in VRAM counts as there."""
CREDIBLE = 0.8
"""A reading of less than this share of what is thought to be in VRAM refutes it."""
INFERENCE = int(0.8 * GB)
"""What ComfyUI keeps free to compute with, beside its reserve (`minimum_inference_memory`)."""
DEFAULT_RESERVE = 0.4
"""GB of VRAM that ComfyUI leaves alone by default on Linux (`EXTRA_RESERVED_VRAM`)."""


@dataclass(frozen=True, slots=True)
class CacheKey:
    """One cached node result: the stable id and the exact inputs, knobs included."""

    node_id: str
    signature: str


@dataclass(frozen=True, slots=True)
class _Entry:
    ref: ModelRef
    generation: int
    doubted: bool = False


class NodeCache:
    """Which loader results ComfyUI's output cache holds."""

    def __init__(self, flags: UpstreamFlags, host_ram: int) -> None:
        self._flags = flags
        self._inactive = flags.thresholds(host_ram).inactive
        self._always_short = self._inactive >= host_ram
        self._entries: dict[CacheKey, _Entry] = {}
        self._others: dict[int, int] = {}
        self._generation = 0

    @property
    def forgets_uncarried(self) -> bool:
        """Whether what a prompt does not contain is gone for certain once it runs."""
        mode = self._flags.cache
        return mode in {CacheMode.CLASSIC, CacheMode.NONE} or (mode is CacheMode.RAM_PRESSURE and self._always_short)

    def start(
        self, nodes: Mapping[CacheKey, ModelRef], other_nodes: int, size_of: SizeOf, ram_free: int | None
    ) -> None:
        """A prompt begins: its nodes are marked as used, and what it does not contain may go.

        Args:
            nodes: the loader nodes of the prompt and its pins; only those already held are marked.
            other_nodes: how many other nodes it has; they compete in the LRU cache.
            size_of: bytes of a component.
            ram_free: available RAM as ComfyUI sees it, before the prompt loads anything; None if unknown.
        """
        self._generation += 1
        for key in nodes.keys() & self._entries.keys():
            self._entries[key] = replace(self._entries[key], generation=self._generation)
        if self.forgets_uncarried:
            self._entries = {k: e for k, e in self._entries.items() if e.generation == self._generation}
        elif self._flags.cache is CacheMode.LRU:
            self._trim()
            self._others[self._generation] = other_nodes
        elif self._flags.cache is CacheMode.RAM_PRESSURE:
            to_load = sum(size_of(ref) for key, ref in nodes.items() if key not in self._entries)
            self._release(None if ram_free is None else ram_free - to_load, size_of)

    def put(self, key: CacheKey, ref: ModelRef) -> None:
        """A loader ran, or was seen in the cache."""
        self._entries[key] = _Entry(ref, self._generation)

    def remove(self, key: CacheKey) -> None:
        """A result was seen to be missing."""
        self._entries.pop(key, None)

    def end_prompt(self) -> None:
        """A prompt ended; without a cache all it held goes."""
        if self._flags.cache is CacheMode.NONE:
            self.clear()

    def clear(self) -> None:
        """The cache was reset: `/free` with `free_memory`, or a new process."""
        self._entries.clear()
        self._others.clear()

    def doubt(self) -> None:
        """Something ran that we do not know; anything may be gone."""
        self._entries = {key: replace(entry, doubted=True) for key, entry in self._entries.items()}

    def holds(self, key: CacheKey) -> bool:
        """Whether this very result is there, as far as known."""
        entry = self._entries.get(key)
        return entry is not None and not entry.doubted

    def holds_node(self, node_id: str) -> bool:
        """Whether any result of this node may be there, doubted ones included."""
        return any(key.node_id == node_id for key in self._entries)

    def alive(self, ref: ModelRef) -> bool | None:
        """Whether any result with this component is there; None where that is in doubt."""
        found = [entry.doubted for entry in self._entries.values() if entry.ref == ref]
        return None if found and all(found) else bool(found)

    def refs(self) -> frozenset[ModelRef]:
        """The components that are or may be there."""
        return frozenset(entry.ref for entry in self._entries.values())

    def _trim(self) -> None:
        """`LRUCache.clean_unused`: whole generations go, oldest first, until the number of results fits."""
        for oldest in sorted({entry.generation for entry in self._entries.values()} | self._others.keys()):
            if len(self._entries) + sum(self._others.values()) <= self._flags.lru_size or oldest == self._generation:
                return
            self._entries = {k: e for k, e in self._entries.items() if e.generation != oldest}
            self._others.pop(oldest, None)

    def _release(self, available: int | None, size_of: SizeOf) -> None:
        """`RAMPressureCache.ram_release`: the entries of the oldest prompts go until enough RAM is available."""
        inactive = [(e.generation, k) for k, e in self._entries.items() if e.generation != self._generation]
        for _, key in sorted(inactive, key=lambda item: item[0]):
            if available is not None and available >= self._inactive + RAM_MARGIN:
                return
            entry = self._entries[key]
            if available is None or available >= self._inactive - RAM_MARGIN:
                self._entries[key] = replace(entry, doubted=True)
            else:
                del self._entries[key]
            if available is not None and self.alive(entry.ref) is not True:
                available += size_of(entry.ref)


class Vram:
    """Which components' weights are in VRAM."""

    def __init__(self, flags: UpstreamFlags, total: int) -> None:
        self._flags = flags
        self._total = total
        reserve = DEFAULT_RESERVE if flags.reserve_vram is None else flags.reserve_vram
        self._headroom = INFERENCE + int((reserve + flags.vram_headroom) * GB)
        self._others = 0
        self._loaded: dict[ModelRef, int] = {}
        """Bytes in VRAM of each component, the most recently used last."""
        self._doubted: set[ModelRef] = set()

    @property
    def loaded_bytes(self) -> int:
        """Bytes of all components that are in VRAM."""
        return sum(self._loaded.values())

    def resident(self, ref: ModelRef, size: int) -> bool | None:
        """Whether a living component's weights are in VRAM; None where that is in doubt."""
        if not self._flags.uses_vram:
            return False
        if not self._flags.can_offload:
            return True
        if ref in self._doubted:
            return None
        if self._loaded.get(ref, -1) >= size * RESIDENT_SHARE:
            return True
        return None if self._flags.dynamic_vram else False

    def use(self, refs: Iterable[ModelRef], size_of: SizeOf) -> None:
        """Something computes with these components: they come to VRAM, and others leave it for them."""
        if not self._flags.uses_vram:
            return
        used = [ref for ref in refs if size_of(ref)]
        held = {ref: self._loaded.pop(ref, 0) for ref in used}
        self._doubted -= held.keys()
        if self._flags.dynamic_vram:
            self._page_in(used, size_of)
        else:
            missing = sum(size_of(ref) - bytes_held for ref, bytes_held in held.items())
            self._evict(int(missing * LOAD_FACTOR) + sum(held.values()))
            for ref in used:
                fits = max(0, self._capacity - self.loaded_bytes) if self._flags.can_offload else size_of(ref)
                self._loaded[ref] = min(size_of(ref), fits)

    def unload_all(self) -> None:
        """All weights left VRAM: an out-of-memory error, `/free`, or `--disable-smart-memory` after a prompt."""
        self._loaded.clear()
        self._doubted.clear()

    def keep_only(self, alive: frozenset[ModelRef]) -> None:
        """Weights whose objects are gone leave VRAM with them."""
        self._loaded = {ref: size for ref, size in self._loaded.items() if ref in alive}
        self._doubted &= alive

    def doubt(self) -> None:
        """Something ran that we do not know; anything may have left VRAM."""
        self._doubted |= self._loaded.keys()
        self._loaded.clear()

    def observe(self, total: int, free: int) -> None:
        """A reading taken while nothing runs: tells what others take, and whether we believe in too much."""
        self._total = total
        taken = total - free
        if taken < self.loaded_bytes * CREDIBLE:
            self.doubt()
        self._others = max(0, taken - self.loaded_bytes)

    def missed(self, *, was_hot: bool) -> None:
        """A prediction was wrong by its timing: adjust how much VRAM computing is thought to take."""
        step = self._total // 50
        lowest, highest = INFERENCE, self._total // 2
        self._headroom = max(lowest, min(highest, self._headroom + (-step if was_hot else step)))

    @property
    def _capacity(self) -> int:
        return max(0, self._total - self._others - self._headroom)

    def _evict(self, needed: int) -> None:
        """`free_memory`: of the models that are not asked for, those least in VRAM and then the smallest go first."""
        if not self._flags.can_offload:
            return
        for ref in sorted(self._loaded, key=lambda ref: self._loaded[ref]):
            excess = self.loaded_bytes + needed - self._capacity
            if excess <= 0 and self._flags.smart_memory:
                return
            if self._flags.smart_memory and self._loaded[ref] > excess:
                self._loaded[ref] -= excess
            else:
                del self._loaded[ref]

    def _page_in(self, used: list[ModelRef], size_of: SizeOf) -> None:
        """Dynamic VRAM pages weights in on demand; those used longest ago may have made room."""
        for ref in used:
            self._loaded[ref] = size_of(ref)
        room = self._capacity
        for ref in reversed(list(self._loaded)):
            room -= self._loaded[ref]
            if room < 0:
                del self._loaded[ref]
                self._doubted.add(ref)


def cache_keys(chains: Iterable[Chain], components: Mapping[str, ModelRef]) -> dict[CacheKey, ModelRef]:
    """The loader nodes of some chains, each with its exact inputs and those of all nodes before it."""
    keys: dict[CacheKey, ModelRef] = {}
    for chain in chains:
        for node_id in chain.nodes.keys() & components.keys():
            keys[CacheKey(node_id, _signature(node_id, chain.nodes))] = components[node_id]
    return keys


def _signature(node_id: str, nodes: Mapping[str, Any]) -> str:
    inputs = nodes[node_id]["inputs"]
    parts = []
    for name in sorted(inputs):
        value = inputs[name]
        link = isinstance(value, list) and bool(value) and value[0] in nodes
        parts.append(f"{name}={_signature(value[0], nodes)}:{value[1:]}" if link else f"{name}={value!r}")
    return f"{nodes[node_id]['class_type']}({', '.join(parts)})"
