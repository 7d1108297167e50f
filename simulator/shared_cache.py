"""The Inspire Pack's cache: whatever its nodes keep by key, each key under a tag.

Of a tag that is full the least recently used goes. The cache belongs to the process, so neither ComfyUI's node cache
nor its flags touch it. Source: ComfyUI-Inspire-Pack 1.21, `inspire/libs/utils.py` (`TaggedCache`).
"""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

_SETTINGS = {"ckpt": 5, "latent": 100, "image": 100}
_USUAL_SIZE = 20


class SharedCache:
    """What is kept by key, for as long as the process lives."""

    def __init__(self) -> None:
        self._tags: dict[str, OrderedDict[str, Any]] = {}
        self._puts: dict[str, int] = {}

    def __contains__(self, key: str) -> bool:
        return any(key in kept for kept in self._tags.values())

    def get(self, key: str) -> Any:
        """What is kept under the key; it counts as used now."""
        kept = next(kept for kept in self._tags.values() if key in kept)
        kept.move_to_end(key)
        return kept[key]

    def put(self, key: str, tag: str, value: Any) -> None:
        """Keep something; the least recently used of its tag may have to go."""
        self.remove(key)
        kept = self._tags.setdefault(tag, OrderedDict())
        while len(kept) >= _size(tag):
            kept.popitem(last=False)
        kept[key] = value
        self._puts[key] = self._puts.get(key, -1) + 1

    def remove(self, key: str) -> None:
        """Keep it no longer, if it is there."""
        for kept in self._tags.values():
            kept.pop(key, None)

    def clear(self) -> None:
        """Keep nothing."""
        self._tags.clear()

    def puts(self, key: str) -> int:
        """How often a key was put again, for IS_CHANGED."""
        return self._puts.get(key, 0)

    def listing(self) -> str:
        """All keys with their tags, and how many each tag may have, as `GET /inspire/cache/list` writes it."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield "---- [String Key Caches] ----"
        for tag, kept in self._tags.items():
            yield from (f"{key}: {tag}" for key in kept)
        yield from ("", "---- [Number Key Caches] ----", "", "---- [TagCache Settings] ----")
        tags = dict.fromkeys((*_SETTINGS, *self._tags))
        yield from (f"{tag}: {_size(tag)}" for tag in tags)


def _size(tag: str) -> int:
    return _SETTINGS.get(tag, _USUAL_SIZE)
