"""Which loader results ComfyUI's output cache holds, by the rules it forgets by.

ComfyUI says what it holds only when a prompt starts (`execution_cached`), too late to choose a prompt by it. But it
forgets by rules, which hang on the mode it was started with. `NodeCache` follows them; whoever feeds it corrects it by
what is seen. It can doubt: a doubted result may be there or not.

Sources: ComfyUI `comfy_execution/caching.py`, `execution.py` (`PromptExecutor`) of 0.3.64 and 0.33.0. Bytes throughout.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto
from hashlib import blake2b
from typing import Any, TypeAlias

from normalizer import Chain
from normalizer.models import ModelRef, ModelSet
from proxy.core.flags import GB, CacheMode, UpstreamFlags

SizeOf: TypeAlias = Callable[[ModelRef], int]

RAM_MARGIN = GB
"""So near a RAM-pressure threshold nobody can tell from outside which side ComfyUI saw."""
REMEMBERED = 64
"""Prompts after which a result that is thought to be gone is no candidate for a pin any more."""


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
            self._release(own, ram_free, in_ram)

    def put(self, key: CacheKey, ref: ModelRef) -> None:
        """A loader ran, or was seen in the cache."""
        self._entries[key] = _Entry(ref, self._generation)

    def remove(self, key: CacheKey) -> None:
        """A result was seen to be missing."""
        self._entries.pop(key, None)

    def observe(self, ram_used: int, in_ram: SizeOf) -> None:
        """A reading of the RAM that components take: what cannot be in it is not there, what may not be is doubted.

        Where it is more than expected, a guess that something is gone may have been wrong.
        """
        spare = ram_used - sum(in_ram(ref) for ref in self.refs() if self.alive(ref))
        for key in self._idle():
            if spare < 0 and self._entries[key].belief is _Belief.PRESENT:
                self._believe(key, _Belief.DOUBTED)
                spare += 0 if self.alive(self._entries[key].ref) else in_ram(self._entries[key].ref)
        self._explain(spare, in_ram)

    def _explain(self, spare: int, in_ram: SizeOf) -> None:
        """What is in doubt, or guessed to be gone, goes oldest first: so the newest of it are what the RAM is taken by.

        Where they explain the reading they are there and all others are not; else what cannot fit is not there.
        """
        uncertain: dict[ModelRef, int] = {}
        for entry in sorted(self._entries.values(), key=lambda entry: -entry.generation):
            if entry.belief is not _Belief.PRESENT and self.alive(entry.ref) is not True:
                uncertain.setdefault(entry.ref, in_ram(entry.ref))
        left = max(0, spare)
        there: set[ModelRef] = set()
        for ref, size in uncertain.items():
            if size > left + RAM_MARGIN // 2:
                break
            there.add(ref)
            left -= size
        explained = left <= RAM_MARGIN // 2
        for key, entry in self._entries.items():
            if entry.ref in there:
                self._believe(key, _Belief.PRESENT if explained else _Belief.DOUBTED)
            elif entry.ref in uncertain and (explained or uncertain[entry.ref] > left + RAM_MARGIN):
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

    def may_hold(self, key: CacheKey) -> bool:
        """Whether this very result is there or in doubt."""
        entry = self._entries.get(key)
        return entry is not None and entry.belief is not _Belief.GONE

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

    def _release(self, own: Mapping[CacheKey, ModelRef], ram_free: int | None, in_ram: SizeOf) -> None:
        """`RAMPressureCache.ram_release`: the entries of the oldest prompts go until enough RAM is available.

        What is in doubt may have to be loaded or not, and may free RAM or not: between the two is doubt again.
        """
        missing = {ref: self.alive(ref) for key, ref in own.items() if not self.holds(key)}
        most = sum(map(in_ram, missing))
        least = sum(in_ram(ref) for ref, alive in missing.items() if alive is False)
        for key in self._idle():
            if ram_free is not None and ram_free - most >= self._inactive + RAM_MARGIN:
                return
            clear = ram_free is not None and ram_free - least < self._inactive - RAM_MARGIN
            entry = self._entries[key]
            self._believe(key, _Belief.GONE if clear else _Belief.DOUBTED)
            if self.alive(entry.ref) is not True:
                least -= in_ram(entry.ref)
                most -= in_ram(entry.ref) if entry.belief is _Belief.PRESENT else 0

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
