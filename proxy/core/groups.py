"""Models that belong together, as the operator sees it.

Which model may wait on disk is a business decision that no cache can make: a model that paying users switch to often is
worth more RAM than its use so far tells. A group names its models by glob, says how they are to be kept, and which
group gives way when not all fit.
"""

import difflib
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from normalizer.models import ModelRef, ModelSet

ON_DEMAND_SECONDS = 60.0
"""How long an on-demand model stays after its last use where its group names no `ttl`."""
_SUGGESTED = 3
"""Names at most that are suggested for a glob that matches nothing."""
_LIKE = 0.6
"""How like a name must be to be suggested, as `difflib` measures it."""


class Keep(StrEnum):
    """How the models of a group are kept."""

    ALWAYS = "always"
    TOGETHER = "together"
    ON_DEMAND = "on-demand"


@dataclass(frozen=True, slots=True)
class Group:
    """One group of models.

    `models` are globs on file names as ComfyUI lists them, with forward slashes; a glob without a slash also matches
    the last part. `ttl` is in seconds since the last use; None means for ever (or `ON_DEMAND_SECONDS`). Higher
    `priority` stays longer.

    Raises:
        ValueError: no globs, a negative or infinite `ttl`, or a `ttl` on a group that is always kept.
    """

    name: str
    models: tuple[str, ...]
    keep: Keep = Keep.TOGETHER
    priority: int = 0
    ttl: float | None = None

    def __post_init__(self) -> None:
        if not self.models:
            raise ValueError(f"group {self.name!r} names no models; give at least one glob")
        if self.ttl is not None and not 0 <= self.ttl < math.inf:
            raise ValueError(f"group {self.name!r}: ttl must be a number of seconds, 0 or more")
        if self.ttl is not None and self.keep is Keep.ALWAYS:
            raise ValueError(f'group {self.name!r}: keep = "always" and a ttl contradict each other; remove one')

    def matches(self, ref: ModelRef) -> bool:
        """Whether a component picks a file of this group."""
        return any(self.matches_name(name) for name in ref.files)

    def matches_name(self, name: str) -> bool:
        """Whether a file name, with slashes of either kind, is of this group."""
        path = name.replace("\\", "/")
        return any(_matches(glob, path) for glob in self.models)

    @property
    def idle_limit(self) -> float:
        """Seconds after which an unused model of this group is let go."""
        if self.ttl is not None:
            return self.ttl
        return ON_DEMAND_SECONDS if self.keep is Keep.ON_DEMAND else math.inf


def _matches(glob: str, path: str) -> bool:
    return fnmatchcase(path, glob) or ("/" not in glob and fnmatchcase(path.rpartition("/")[2], glob))


@dataclass(frozen=True, slots=True)
class UnmatchedGlob:
    """A glob that no file matches, most likely a typo, with the nearest names. `alone`: no other glob finds any."""

    group: str
    glob: str
    nearest: tuple[str, ...]
    alone: bool

    def __str__(self) -> str:
        hint = f"; nearest: {', '.join(self.nearest)}" if self.nearest else ""
        return f"[[group]] {self.group!r}: models has {self.glob!r}, which matches no model file{hint}"


def group_of(models: ModelSet, groups: Sequence[Group]) -> Group | None:
    """The group that speaks for these components: of those that match, the one of the highest priority."""
    matching = [group for group in groups if any(group.matches(ref) for ref in models)]
    return max(matching, key=lambda group: group.priority, default=None)


def unmatched_globs(groups: Sequence[Group], names: Iterable[str]) -> tuple[UnmatchedGlob, ...]:
    """The globs that match none of ComfyUI's model files."""
    known = sorted({name.replace("\\", "/") for name in names})
    found = []
    for group in groups:
        lost = [glob for glob in group.models if not any(_matches(glob, name) for name in known)]
        alone = len(lost) == len(group.models)
        found += [UnmatchedGlob(group.name, glob, _nearest(glob, known), alone) for glob in lost]
    return tuple(found)


def _nearest(glob: str, names: Sequence[str]) -> tuple[str, ...]:
    """The names that a mistyped glob most likely means, by the part of each that would have to match its letters.

    A whole name is hardly like a short glob: `wann*` is compared with the first four letters of each, `*wann` with the
    last, `*wann*` with every four in a row. What follows the last dot is the same in most and says nothing.
    """
    whole = not (glob.startswith("*") or glob.endswith("*"))
    literal = (_without_ending(glob) if whole else glob.strip("*")).casefold()
    if not literal:
        return ()
    parts: dict[str, list[str]] = {}
    for name in names:
        tail = name if "/" in glob else name.rpartition("/")[2]
        for part in set(_parts(tail.casefold(), glob, len(literal))):
            parts.setdefault(part, []).append(name)
    close = difflib.get_close_matches(literal, parts, n=_SUGGESTED, cutoff=_LIKE)
    return tuple(dict.fromkeys(name for part in close for name in parts[part]))[:_SUGGESTED]


def _parts(name: str, glob: str, length: int) -> Iterator[str]:
    if glob.startswith("*") and glob.endswith("*"):
        yield from (name[start : start + length] for start in range(max(1, len(name) - length + 1)))
    elif glob.endswith("*"):
        yield name[:length]
    elif glob.startswith("*"):
        yield name[-length:]
    else:
        yield _without_ending(name)


def _without_ending(name: str) -> str:
    return re.sub(r"\.[a-zA-Z]+$", "", name)
