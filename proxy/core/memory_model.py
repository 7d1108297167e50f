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
from enum import Enum, auto
from hashlib import blake2b
from typing import Any, TypeAlias

from normalizer import Chain
from normalizer.models import ModelRef, ModelSet
from proxy.core.evidence import Part, Use
from proxy.core.flags import GB, CacheMode, UpstreamFlags, VramMode

SizeOf: TypeAlias = Callable[[ModelRef], int]

RAM_MARGIN = GB
"""So near a RAM-pressure threshold nobody can tell from outside which side ComfyUI saw."""
REMEMBERED = 64
"""Prompts after which a result that is thought to be gone is no candidate for a pin any more."""
LOAD_FACTOR = 1.1
"""ComfyUI frees this multiple of what it loads (`load_models_gpu`)."""
RESIDENT_SHARE = 0.5
"""A component of which at least this share is in VRAM counts as there."""
CREDIBLE = 0.8
"""A reading of less than this share of what is thought to be in VRAM refutes it."""
TELLING_MISSES = 6
"""So many more wrong predictions to one side than to the other correct what computing is thought to take."""
CONTEXT = GB // 2
"""What ComfyUI takes of the GPU without any model: the CUDA context and its libraries."""
INFERENCE = int(0.8 * GB)
"""What ComfyUI keeps free to compute with, beside its reserve (`minimum_inference_memory`)."""
DEFAULT_RESERVE = 0.4
"""GB of VRAM that ComfyUI leaves alone by default on Linux (`EXTRA_RESERVED_VRAM`)."""


@dataclass(frozen=True, slots=True)
class CacheKey:
    """One cached node result: the stable id and the exact inputs, knobs included."""

    node_id: str
    signature: str


class _Belief(Enum):
    """Whether a result is there. `GONE` is a guess by memory sizes, unlike an entry that is not listed at all."""

    PRESENT = auto()
    DOUBTED = auto()
    GONE = auto()


@dataclass(frozen=True, slots=True)
class _Entry:
    ref: ModelRef
    generation: int
    belief: _Belief = _Belief.PRESENT


class NodeCache:
    """Which loader results ComfyUI's output cache holds."""

    def __init__(self, flags: UpstreamFlags, host_ram: int) -> None:
        self._flags = flags
        self._inactive = flags.thresholds(host_ram).inactive
        self._always_short = self._inactive >= host_ram
        self._entries: dict[CacheKey, _Entry] = {}
        self._others: dict[str, int] = {}
        """Generation of each other node's result by its signature; kept for the LRU cache alone."""
        self._generation = 0

    @property
    def forgets_uncarried(self) -> bool:
        """Whether what a prompt does not contain is gone for certain once it runs."""
        mode = self._flags.cache
        return mode in {CacheMode.CLASSIC, CacheMode.NONE} or (mode is CacheMode.RAM_PRESSURE and self._always_short)

    def start(
        self,
        own: Mapping[CacheKey, ModelRef],
        pins: Mapping[CacheKey, ModelRef],
        prompt: Mapping[str, Any],
        in_ram: SizeOf,
        ram_free: int | None,
    ) -> None:
        """A prompt begins: its nodes are marked as used, and what it does not contain may go.

        Args:
            own: the loader nodes of the prompt; those that are not held will be loaded.
            pins: the loader nodes of its pins; those that are not held stay away.
            prompt: all its nodes; in the LRU cache the others compete with loaders.
            in_ram: bytes of RAM that a component takes, or will when it is loaded.
            ram_free: available RAM as ComfyUI sees it, before the prompt loads anything; None if unknown.
        """
        self._generation += 1
        for key in (own.keys() | pins.keys()) & self._entries.keys():
            self._entries[key] = replace(self._entries[key], generation=self._generation)
        if self.forgets_uncarried:
            self._entries = {k: e for k, e in self._entries.items() if e.generation == self._generation}
        elif self._flags.cache is CacheMode.LRU:
            loaders = {key.node_id for key in (*own, *pins)}
            others = {key.signature for key in signatures(prompt) if key.node_id not in loaders}
            self._others |= dict.fromkeys(others & self._others.keys(), self._generation)
            self._trim()
            self._others |= dict.fromkeys(others, self._generation)
        elif self._flags.cache is CacheMode.RAM_PRESSURE:
            to_load = sum(in_ram(ref) for key, ref in own.items() if not self.holds(key))
            self._release(None if ram_free is None else ram_free - to_load, in_ram)

    def put(self, key: CacheKey, ref: ModelRef) -> None:
        """A loader ran, or was seen in the cache."""
        self._entries[key] = _Entry(ref, self._generation)

    def remove(self, key: CacheKey) -> None:
        """A result was seen to be missing."""
        self._entries.pop(key, None)

    def observe(self, ram_used: int, in_ram: SizeOf) -> None:
        """A reading of the RAM that components take: what cannot be in it is not there, what may not be is doubted."""
        spare = ram_used - sum(in_ram(ref) for ref in self.refs() if self.alive(ref))
        for key in self._idle():
            if spare < 0 and self._entries[key].belief is _Belief.PRESENT:
                self._believe(key, _Belief.DOUBTED)
                spare += 0 if self.alive(self._entries[key].ref) else in_ram(self._entries[key].ref)
        for key in self._idle():
            entry = self._entries[key]
            if entry.belief is _Belief.DOUBTED and in_ram(entry.ref) > max(0, spare) + RAM_MARGIN:
                self._believe(key, _Belief.GONE)

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
        for key in self._entries:
            self._believe(key, _Belief.DOUBTED)

    def holds(self, key: CacheKey) -> bool:
        """Whether this very result is there, as far as known."""
        entry = self._entries.get(key)
        return entry is not None and entry.belief is _Belief.PRESENT

    def holds_node(self, node_id: str) -> bool:
        """Whether any result of this node may be there, guesses aside."""
        return any(key.node_id == node_id for key in self._entries)

    def alive(self, ref: ModelRef) -> bool | None:
        """Whether any result with this component is there; None where that is in doubt."""
        beliefs = {entry.belief for entry in self._entries.values() if entry.ref == ref}
        if _Belief.PRESENT in beliefs:
            return True
        return None if _Belief.DOUBTED in beliefs else False

    def refs(self) -> ModelSet:
        """The components that are or may be there."""
        return frozenset(entry.ref for entry in self._entries.values() if entry.belief is not _Belief.GONE)

    def _trim(self) -> None:
        """`LRUCache.clean_unused`: whole generations go, oldest first, until the number of results fits."""
        for oldest in sorted({entry.generation for entry in self._entries.values()} | set(self._others.values())):
            if len(self._entries) + len(self._others) <= self._flags.lru_size or oldest == self._generation:
                return
            self._entries = {key: entry for key, entry in self._entries.items() if entry.generation != oldest}
            self._others = {key: generation for key, generation in self._others.items() if generation != oldest}

    def _release(self, available: int | None, in_ram: SizeOf) -> None:
        """`RAMPressureCache.ram_release`: the entries of the oldest prompts go until enough RAM is available."""
        for key in self._idle():
            if available is not None and available >= self._inactive + RAM_MARGIN:
                return
            clear = available is not None and available < self._inactive - RAM_MARGIN
            self._believe(key, _Belief.GONE if clear else _Belief.DOUBTED)
            ref = self._entries[key].ref
            if available is not None and self.alive(ref) is not True:
                available += in_ram(ref)

    def _believe(self, key: CacheKey, belief: _Belief) -> None:
        self._entries[key] = replace(self._entries[key], belief=belief)

    def _idle(self) -> list[CacheKey]:
        """What the running prompt does not contain and is not gone, that of the oldest prompts first.

        What is gone is forgotten in the end, so that the list does not grow.
        """
        self._entries = {
            key: entry
            for key, entry in self._entries.items()
            if entry.belief is not _Belief.GONE or entry.generation > self._generation - REMEMBERED
        }
        idle = [
            (entry.generation, key)
            for key, entry in self._entries.items()
            if entry.generation != self._generation and entry.belief is not _Belief.GONE
        ]
        return [key for _, key in sorted(idle, key=lambda item: item[0])]


class Vram:
    """Which components' weights are in VRAM."""

    def __init__(self, flags: UpstreamFlags, total: int) -> None:
        self._flags = flags
        self._total = total
        reserve = DEFAULT_RESERVE if flags.reserve_vram is None else flags.reserve_vram
        self._headroom = INFERENCE + int((reserve + flags.vram_headroom) * GB)
        self.others = 0
        """Bytes that are taken by anything but our components."""
        self._misses = 0
        """Wrong predictions of "hot" less wrong ones of "warm", since the headroom was last corrected."""
        self._loaded: dict[Part, _Loaded] = {}
        """The most recently used last."""
        self._running: set[Part] = set()
        self._doubted: ModelSet = frozenset()
        self._patches: set[ModelRef] = set()

    @property
    def loaded_bytes(self) -> int:
        """Bytes of all components that are in VRAM."""
        return sum(loaded.bytes for loaded in self._loaded.values())

    def bytes_of(self, ref: ModelRef) -> int:
        """Bytes of one component that are in VRAM."""
        return sum(loaded.bytes for part, loaded in self._loaded.items() if part.ref == ref)

    def resident(self, ref: ModelRef, size: int) -> bool | None:
        """Whether most of a living component's weights are in VRAM; None where that is in doubt."""
        if not self._flags.uses_vram or ref in self._patches:
            return False
        if not self._flags.can_offload:
            return True
        if ref in self._doubted:
            return None
        if any(part.ref == ref for part in self._loaded) and self.bytes_of(ref) >= size * RESIDENT_SHARE:
            return True
        return None if self._flags.dynamic_vram else False

    def begin_prompt(self) -> None:
        """Another prompt runs: what the one before computed with is idle."""
        self._running.clear()

    def use(self, use: Use, size_of: SizeOf) -> None:
        """A node computes with these models: they come to VRAM, and others leave it for them."""
        self._patches |= use.patches
        used = [part for part in sorted(use.weights) if self._moves(part)]
        before = {part: self._loaded.pop(part, None) for part in used}
        self._running.update(used)
        self._doubted -= {part.ref for part in used}
        wanted = {part: int(size_of(part.ref) * part.share) for part in used}
        if self._flags.dynamic_vram:
            self._page_in(wanted)
            return
        held = sum(loaded.bytes for loaded in before.values() if loaded is not None)
        self._evict(int((sum(wanted.values()) - held) * LOAD_FACTOR) + held)
        for part, size in wanted.items():
            fits = max(0, self._capacity - self.loaded_bytes) if self._flags.can_offload else size
            self._loaded[part] = _Loaded(size, min(size, fits))

    def unload_all(self) -> None:
        """All weights left VRAM: an out-of-memory error, `/free`, or `--disable-smart-memory` after a prompt."""
        self._loaded.clear()
        self._doubted = frozenset()

    def keep_only(self, alive: ModelSet) -> None:
        """Weights whose objects are gone leave VRAM with them."""
        self._loaded = {part: loaded for part, loaded in self._loaded.items() if part.ref in alive}
        self._doubted &= alive

    def doubt(self) -> None:
        """Something ran that we do not know; anything may have left VRAM."""
        self._doubted |= {part.ref for part in self._loaded}
        self._loaded.clear()

    def observe(self, total: int, free: int, others: int | None) -> None:
        """A reading taken while nothing runs: tells what others take, and whether we believe in too much.

        `others` is what other processes take; without it, all that is not our components counts as taken by others.
        """
        self._total = total
        ours = total - free - (others or 0)
        excess = self.loaded_bytes - ours
        if ours < self.loaded_bytes * CREDIBLE:
            self.doubt()
        elif excess > 0:
            # More was pushed out than the rules told, most likely because computing took more than is known here.
            self._evict(excess + self._capacity - self.loaded_bytes)
        self.others = max(0, -excess) if others is None else others + CONTEXT

    def missed(self, *, was_hot: bool) -> None:
        """A prediction was wrong by its timing. Errors that keep to one side tell how much computing really takes."""
        self._misses += -1 if was_hot else 1
        if abs(self._misses) >= TELLING_MISSES:
            step = self._total // 16 * (1 if self._misses > 0 else -1)
            self._headroom = max(INFERENCE, min(self._total // 2, self._headroom + step))
            self._misses = 0

    @property
    def _capacity(self) -> int:
        return max(0, self._total - self.others - self._headroom)

    def _moves(self, part: Part) -> bool:
        on_cpu = self._flags.vram is VramMode.LOW and part.kind == "CLIP" and not self._flags.dynamic_vram
        return self._flags.uses_vram and not on_cpu

    def _evict(self, needed: int) -> None:
        """`free_memory`: what is offloaded most goes first, then what is idle, the smaller, the younger."""
        if not self._flags.can_offload:
            return
        newest_first = list(reversed(self._loaded.items()))
        for part, loaded in sorted(newest_first, key=lambda item: self._order(*item)):
            excess = self.loaded_bytes + needed - self._capacity
            if self._flags.smart_memory and loaded.bytes > excess:
                if excess > 0:
                    self._loaded[part] = replace(loaded, bytes=loaded.bytes - excess)
                return
            del self._loaded[part]

    def _order(self, part: Part, loaded: "_Loaded") -> tuple[int, bool, int]:
        return loaded.bytes - loaded.size, part in self._running, loaded.size

    def _page_in(self, wanted: Mapping[Part, int]) -> None:
        """Dynamic VRAM pages weights in on demand; those used longest ago may have made room."""
        for part, size in wanted.items():
            self._loaded[part] = _Loaded(size, size)
        room = self._capacity
        for part in reversed(list(self._loaded)):
            room -= self._loaded[part].bytes
            if room < 0:
                del self._loaded[part]
                self._doubted |= {part.ref}


@dataclass(frozen=True, slots=True)
class _Loaded:
    """How many of a part's bytes are in VRAM."""

    size: int
    bytes: int


def cache_keys(chains: Iterable[Chain], components: Mapping[str, ModelRef]) -> dict[CacheKey, ModelRef]:
    """The loader nodes of some chains, each with its exact inputs and those of all nodes before it."""
    keys: dict[CacheKey, ModelRef] = {}
    for chain in chains:
        for key in signatures(chain.nodes):
            if key.node_id in components:
                keys[key] = components[key.node_id]
    return keys


def signatures(nodes: Mapping[str, Any]) -> list[CacheKey]:
    """What ComfyUI tells the results of these nodes apart by: class, inputs, and the same for all nodes before.

    Nodes on a cycle, which never run, are left out.
    """
    waiting = {node_id: node for node_id, node in nodes.items() if isinstance(node, Mapping)}
    done: dict[str, str] = {}
    while ready := [node_id for node_id, node in waiting.items() if not _sources(node) & waiting.keys()]:
        for node_id in ready:
            done[node_id] = _digest(waiting.pop(node_id), done)
    return [CacheKey(node_id, digest) for node_id, digest in done.items()]


def _inputs(node: Mapping[str, Any]) -> Mapping[str, Any]:
    inputs = node.get("inputs")
    return inputs if isinstance(inputs, Mapping) else {}


def _sources(node: Mapping[str, Any]) -> set[str]:
    return {value[0] for value in _inputs(node).values() if _is_link(value)}


def _is_link(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], str)


def _digest(node: Mapping[str, Any], done: Mapping[str, str]) -> str:
    inputs = {
        name: [done.get(value[0], value[0]), *value[1:]] if _is_link(value) else value
        for name, value in _inputs(node).items()
    }
    text = repr((node.get("class_type"), sorted(inputs.items())))
    return blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest()
