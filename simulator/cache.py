"""ComfyUI's caches of node outputs and node instances, mode by mode.

What survives from one prompt to the next decides whether models are read from disk again; nothing here is simplified.
Behaviour from ComfyUI comfy_execution/caching.py: `HierarchicalCache` (classic), `LRUCache`, `NullCache`. The
RAM-pressure cache has a module of its own.
"""

from collections.abc import Hashable, Iterable
from typing import Any, NamedTuple, Protocol

from .signature import KeySet


class CacheEntry(NamedTuple):
    """What a node returned."""

    ui: Any
    """`{"meta": …, "output": …}` of a node with ui output, else None."""
    outputs: list[Any]
    """By slot, each a list of one value per call."""


class Cache(Protocol):
    """What the executor asks of a cache."""

    async def set_prompt(self, keys: KeySet, node_ids: Iterable[str]) -> None:
        """A prompt begins: from now on `keys` say which entries its nodes own."""

    def clean_unused(self) -> None:
        """Drop what the mode drops when a prompt begins."""

    def get(self, node_id: str) -> Any:
        """The node's entry, or None; counts as a use."""

    def peek(self, node_id: str) -> Any:
        """The node's entry, or None; does not count as a use."""

    def put(self, node_id: str, entry: Any) -> None:
        """Keep the node's entry."""

    def put_back(self, node_id: str, entry: Any) -> None:
        """Keep an entry that may have been evicted while its prompt still used it."""

    async def expand(self, node_id: str, children: Iterable[str]) -> None:
        """Make room for the nodes that `node_id` expanded into, and drop what earlier expansions left."""

    def all_ids(self) -> list[str]:
        """Every node that has a key, expanded ones included."""


class Level:
    """Entries of the nodes that share a parent, and a further level per node that expanded."""

    def __init__(self) -> None:
        self.entries: dict[Hashable, Any] = {}
        self.below: dict[Hashable, Level] = {}
        self._keys: KeySet | None = None

    @property
    def keys(self) -> KeySet:
        """Keys of the prompt that used this level last."""
        if self._keys is None:
            raise RuntimeError("the cache was used before a prompt began")
        return self._keys

    async def set_prompt(self, keys: KeySet, node_ids: Iterable[str]) -> None:
        """From now on `keys` say which entries the nodes own."""
        await keys.add(node_ids)
        self._keys = keys

    def key(self, node_id: str) -> Hashable:
        """The node's key, None without one."""
        return self.keys.keys.get(node_id)

    def drop_unowned(self) -> None:
        """Drop every entry that no node of this prompt owns."""
        owned = set(self.keys.keys.values())
        self.entries = {key: entry for key, entry in self.entries.items() if key in owned}

    def drop_unowned_below(self) -> None:
        """Drop the levels of nodes that this prompt does not have."""
        owned = set(self.keys.subcache_keys.values())
        self.below = {key: level for key, level in self.below.items() if key in owned}

    def level_below(self, node_id: str) -> "Level | None":
        """The level of the nodes that `node_id` expanded into."""
        return self.below.get(self.keys.subcache_keys.get(node_id))

    async def expand(self, node_id: str, children: Iterable[str]) -> "Level":
        """As level_below, made where it is missing, with the keys of `children`."""
        level = self.below.setdefault(self.keys.subcache_keys.get(node_id), Level())
        await level.set_prompt(self.keys.fresh(), children)
        return level

    def all_ids(self) -> list[str]:
        """Every node that has a key here or below."""
        found = dict.fromkeys(self.keys.keys)
        for level in self.below.values():
            found.update(dict.fromkeys(level.all_ids()))
        return list(found)


class ClassicCache:
    """Everything that the new prompt does not contain goes at once. Node instances are kept this way in every mode."""

    def __init__(self) -> None:
        self._top = Level()

    async def set_prompt(self, keys: KeySet, node_ids: Iterable[str]) -> None:
        """See Cache."""
        await self._top.set_prompt(keys, node_ids)

    def clean_unused(self) -> None:
        """See Cache."""
        self._top.drop_unowned()
        self._top.drop_unowned_below()

    def _level(self, node_id: str) -> Level | None:
        prompt = self._top.keys.prompt
        parents: list[str] = []
        parent = prompt.parent_id(node_id)
        while parent is not None:
            parents.append(parent)
            parent = prompt.parent_id(parent)
        level: Level | None = self._top
        for parent in reversed(parents):
            level = None if level is None else level.level_below(parent)
        return level

    def _known_level(self, node_id: str) -> Level:
        level = self._level(node_id)
        if level is None:
            raise RuntimeError(f"the parent of node {node_id} did not expand")
        return level

    def get(self, node_id: str) -> Any:
        """See Cache."""
        return self.peek(node_id)

    def peek(self, node_id: str) -> Any:
        """See Cache."""
        level = self._level(node_id)
        return None if level is None else level.entries.get(level.key(node_id))

    def put(self, node_id: str, entry: Any) -> None:
        """See Cache."""
        level = self._known_level(node_id)
        level.entries[level.key(node_id)] = entry

    def put_back(self, node_id: str, entry: Any) -> None:
        """See Cache."""
        self.put(node_id, entry)

    async def expand(self, node_id: str, children: Iterable[str]) -> None:
        """See Cache."""
        level = await self._known_level(node_id).expand(node_id, children)
        level.drop_unowned()
        level.drop_unowned_below()

    def all_ids(self) -> list[str]:
        """See Cache."""
        return self._top.all_ids()


class NullCache:
    """Keeps nothing (`--cache-none`)."""

    async def set_prompt(self, keys: KeySet, node_ids: Iterable[str]) -> None:
        """See Cache."""

    def clean_unused(self) -> None:
        """See Cache."""

    def get(self, node_id: str) -> Any:
        """See Cache."""

    def peek(self, node_id: str) -> Any:
        """See Cache."""

    def put(self, node_id: str, entry: Any) -> None:
        """See Cache."""

    def put_back(self, node_id: str, entry: Any) -> None:
        """See Cache."""

    async def expand(self, node_id: str, children: Iterable[str]) -> None:
        """See Cache."""

    def all_ids(self) -> list[str]:
        """See Cache."""
        return []


class LRUCache:
    """Keeps the newest results, of expanded nodes too, counting prompts (`--cache-lru`).

    Args:
        size: results kept; those of the running prompt are never dropped for it.
    """

    def __init__(self, size: int) -> None:
        self.level = Level()
        self.generation = 0
        self.used: dict[Hashable, int] = {}
        """The generation (prompt) in which a key was used last."""
        self._size = size
        self._oldest = 0

    async def set_prompt(self, keys: KeySet, node_ids: Iterable[str]) -> None:
        """See Cache."""
        ids = list(node_ids)
        await self.level.set_prompt(keys, ids)
        self.generation += 1
        for node_id in ids:
            self._touch(node_id)

    def clean_unused(self) -> None:
        """See Cache."""
        while len(self.level.entries) > self._size and self._oldest < self.generation:
            self._oldest += 1
            for key in [key for key in self.level.entries if self.used[key] < self._oldest]:
                self.drop(key)
        self.level.drop_unowned_below()

    def drop(self, key: Hashable) -> None:
        """Forget one entry."""
        del self.level.entries[key]
        self.used.pop(key, None)

    def _touch(self, node_id: str) -> None:
        key = self.level.key(node_id)
        if key is not None:
            self.used[key] = self.generation

    def get(self, node_id: str) -> Any:
        """See Cache."""
        self._touch(node_id)
        return self.peek(node_id)

    def peek(self, node_id: str) -> Any:
        """See Cache."""
        return self.level.entries.get(self.level.key(node_id))

    def put(self, node_id: str, entry: Any) -> None:
        """See Cache."""
        self._touch(node_id)
        self.level.entries[self.level.key(node_id)] = entry

    def put_back(self, node_id: str, entry: Any) -> None:
        """See Cache."""
        self.put(node_id, entry)

    async def expand(self, node_id: str, children: Iterable[str]) -> None:
        """See Cache. The nodes live in this very cache; the level below only marks them as alive."""
        ids = list(children)
        await self.level.expand(node_id, ids)
        await self.level.keys.add(ids)
        self._touch(node_id)
        for child in ids:
            self._touch(child)
        self.clean_unused()

    def all_ids(self) -> list[str]:
        """See Cache."""
        return self.level.all_ids()
