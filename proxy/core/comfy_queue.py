"""What waits in ComfyUI's own queue, in the order in which ComfyUI will run it.

Where the queue is not held here this is all that can be foreseen: a prompt with a low number, or in front, is followed
by those that wait there already, whoever has sent them. Behind a prompt that goes to the end nobody knows what comes,
unless others have been given higher numbers than ComfyUI counts.

Source: ComfyUI server.py, `post_prompt`: a number that a client gives is taken as a float, wins over `front`, and does
not count; `front` makes the count negative.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from normalizer.models import ModelSet

Number: TypeAlias = int | float
"""An int where ComfyUI has counted, a float where somebody has given it."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A prompt that waits at ComfyUI. `number` is None where it is not known; `ours` came through here."""

    prompt_id: str
    number: Number | None
    models: ModelSet
    ours: bool = True


def in_order(waiting: Iterable[Waiting]) -> list[Waiting]:
    """As ComfyUI will run them; those without a known number last, in the order in which they are given."""
    return sorted(waiting, key=lambda item: (1, 0.0, "") if item.number is None else (0, item.number, item.prompt_id))


def behind(waiting: Iterable[Waiting], number: object, *, front: bool, counted: int) -> list[Waiting]:
    """Those that ComfyUI will run after a prompt that is submitted now, the next one first.

    Args:
        waiting: what waits there.
        number: the one that the client gives; None gives none.
        front: the client wants it run first.
        counted: ComfyUI's own next number, as far as is known.
    """
    place = _place(number, front=front, counted=counted)
    return [item for item in in_order(waiting) if item.number is not None and item.number > place]


def _place(number: object, *, front: bool, counted: int) -> float:
    if number is None:
        return -counted if front else counted
    try:
        return float(number)  # type: ignore[arg-type]  # as ComfyUI does, whatever it is
    except (TypeError, ValueError, OverflowError):
        return math.inf  # ComfyUI will refuse it
