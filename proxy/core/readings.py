"""What memory readings say, whoever took them. Bytes throughout."""

from dataclasses import dataclass


class ReadingFailed(Exception):  # noqa: N818 - it says what happened to the reading, as its callers do
    """A source could not be read; the next one is asked instead."""


@dataclass(frozen=True, slots=True)
class RamReading:
    """`total` and `free` are what ComfyUI may use, limits of its container included; `host_free` what it believes."""

    total: int
    free: int
    host_free: int


@dataclass(frozen=True, slots=True)
class VramReading:
    """One GPU. `others` is what processes other than ComfyUI take, None where that cannot be told."""

    total: int
    free: int
    others: int | None = None
