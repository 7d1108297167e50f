"""Which of our keys the Inspire Pack's cache holds, by the rules it forgets by.

It keeps so many keys for each tag, the least recently used going first, and says what it has only when asked for the
list of all keys. `SharedStore` follows the rules between two lists. The tag of a key is known once a list has shown it;
until then nothing of it is thought to go. Nothing that happens to ComfyUI's node cache touches it.

Source: ComfyUI-Inspire-Pack 1.21, `inspire/libs/utils.py` (`TaggedCache`), `inspire/backend_support.py`
(`ShowCachedInfo.get_data`, which `GET /inspire/cache/list` answers).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from normalizer import is_cache_key
from normalizer.models import ModelRef, ModelSet

HANDED_OVER = 0.1
"""Seconds that a shared loader takes at most where it finds its models: it looks into a table."""

_TAGS_HEADING = "---- [TagCache Settings] ----"


@dataclass(frozen=True, slots=True)
class Listing:
    """What the cache says it has: keys with their tags, of each tag the least recently used first; sizes of tags."""

    tags: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, int] = field(default_factory=dict)


def read_listing(text: str) -> Listing:
    """Read the list of all keys; lines that are nothing of the kind are passed over. Numbers as keys are left out."""
    _, _, listed = text.partition("---- [String Key Caches] ----")
    strings, _, rest = listed.partition("---- [Number Key Caches] ----")
    _, _, settings = rest.partition(_TAGS_HEADING)
    tags = dict(_pairs(strings))
    limits = {tag: int(size) for tag, size in _pairs(settings) if size.isdecimal()}
    return Listing(tags, limits)


def _pairs(text: str) -> Iterable[tuple[str, str]]:
    for line in text.splitlines():
        name, colon, value = line.rpartition(": ")
        if colon:
            yield name, value


class SharedStore:
    """The keys that are held at one upstream. Ours have their component, once a prompt has used them."""

    def __init__(self) -> None:
        self.limits: Mapping[str, int] = {}
        """How many keys each tag may have; empty until the list was read."""
        self._keys: dict[str, ModelRef | None] = {}
        """All keys, others' too, the least recently used first."""
        self._tags: dict[str, str] = {}
        """The tag of each key that the list has shown, and of ours that any list has: they mean the same for good."""
        self._known: dict[str, ModelRef] = {}

    @property
    def puzzling(self) -> bool:
        """Whether a list would tell something: it was never read, or a key has come that it has not shown."""
        return any(key not in self._tags for key in self._keys)

    def read(self, listing: Listing) -> None:
        """Take in the list of all keys: what it does not name is gone."""
        self.limits = dict(listing.limits)
        self._tags = {key: tag for key, tag in self._tags.items() if is_cache_key(key)} | dict(listing.tags)
        self._keys = {key: self._known.get(key) for key in listing.tags}

    def use(self, keys: Mapping[str, ModelRef]) -> None:
        """Loaders with these keys run: what is not there is loaded, and the longest unused of its tag may go."""
        for key, ref in keys.items():
            self._keys.pop(key, None)
            self._keys[key] = self._known[key] = ref
            tag = self._tags.get(key)
            if tag is not None and tag in self.limits:
                fellows = [other for other in self._keys if self._tags.get(other) == tag]
                for gone in fellows[: max(0, len(fellows) - self.limits[tag])]:
                    del self._keys[gone]

    def remove(self, keys: Iterable[str]) -> None:
        """These were taken out."""
        for key in keys:
            self._keys.pop(key, None)

    def clear(self) -> None:
        """A new process holds nothing."""
        self._keys.clear()

    def holds(self, key: str) -> bool:
        """Whether it is there, as far as known."""
        return key in self._keys

    def refs(self) -> ModelSet:
        """The components that are there under keys of ours."""
        return frozenset(ref for ref in self._keys.values() if ref is not None)

    def ours(self) -> dict[str, ModelRef | None]:
        """Our keys with what is kept under each, the least recently used first; None where no prompt has told yet."""
        return {key: ref for key, ref in self._keys.items() if is_cache_key(key)}

    def tag(self, key: str) -> str | None:
        """The tag of a key, once a list has shown it."""
        return self._tags.get(key)

    def room(self, tag: str) -> int | None:
        """How many keys of ours a tag has room for beside others'; None where its size is not known."""
        if tag not in self.limits:
            return None
        others = sum(self._tags.get(key) == tag and not is_cache_key(key) for key in self._keys)
        return max(0, self.limits[tag] - others)
