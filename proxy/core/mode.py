"""How far the proxy goes."""

from enum import StrEnum


class Mode(StrEnum):
    """`observe` changes nothing, `pins` rewrites prompts so that models stay loaded, `full` also holds the queue."""

    OBSERVE = "observe"
    PINS = "pins"
    FULL = "full"
