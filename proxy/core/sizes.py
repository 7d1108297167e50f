"""How large each component is, and how we know.

Budgets are only as good as the sizes behind them. ComfyUI lists the size of every model file; what a loader fetches
from elsewhere shows only as a step in the memory readings; what neither tells is assumed to be large, because a pin
that was thought small gets ComfyUI killed. Bytes throughout.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from normalizer.models import ModelRef

ASSUMED = 4 * 1024**3
"""A component that picks files nobody has the size of: about a large text encoder."""


class SizeSource(StrEnum):
    """Where a size comes from."""

    CONFIGURED = "configured"
    FILE = "file size"
    MEASURED = "measured step"
    ASSUMED = "assumed"


@dataclass(frozen=True, slots=True)
class Size:
    """A size in bytes and its source."""

    bytes: int
    source: SizeSource


@dataclass(slots=True)
class Sizes:
    """The sizes of all components. `configured` maps file names to bytes and wins over everything."""

    configured: Mapping[str, int] = field(default_factory=dict)
    _files: dict[str, int] = field(default_factory=dict)
    _measured: dict[ModelRef, int] = field(default_factory=dict)
    _known: dict[ModelRef, Size] = field(default_factory=dict)

    def listed(self, files: Mapping[str, int]) -> None:
        """Take over what ComfyUI lists: bytes by file name, slashes of either kind."""
        self._files = {_name(name): size for name, size in files.items()}
        self._known.clear()

    def measured(self, ref: ModelRef, size: int) -> None:
        """A memory step was seen when this component alone was loaded."""
        self._measured[ref] = size
        self._known.clear()

    def size(self, ref: ModelRef) -> Size:
        """The best known size. A class that picks no files weighs nothing by itself."""
        size = self._known.get(ref)
        if size is None:
            size = self._known[ref] = self._size(ref)
        return size

    def _size(self, ref: ModelRef) -> Size:
        names = {_name(name) for name in ref.files}
        fixed = {_name(name): size for name, size in self.configured.items() if _name(name) in names}
        # Of the names a loader picks some are no files (a weight type, "default"): those found speak for all.
        found = {name: self._files[name] for name in names if name in self._files}
        if fixed or found:
            return Size(sum({**found, **fixed}.values()), SizeSource.CONFIGURED if fixed else SizeSource.FILE)
        if ref in self._measured:
            return Size(self._measured[ref], SizeSource.MEASURED)
        return Size(ASSUMED if names else 0, SizeSource.ASSUMED)

    def bytes_of(self, ref: ModelRef) -> int:
        """The size alone."""
        return self.size(ref).bytes


def _name(name: str) -> str:
    return name.replace("\\", "/")
