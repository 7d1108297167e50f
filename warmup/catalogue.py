"""What a node class lets its numbers and choices be, as `/object_info` writes it.

The normalizer's schema says what classes do; to make a prompt small, or to make one up, one must also know the least
legal value of an input, its default and its choices. V1 and V3 forms and the nested inputs of dynamic combos are read,
the latter under their dotted names (`resize_type.width`). Custom packs write what they like: what is not understood is
left out. Source: ComfyUI `execution.py` (`validate_inputs`: `min` and `max` are enforced, `step` is not).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from normalizer import Schema

_NUMBERS = frozenset({"INT", "FLOAT"})


@dataclass(frozen=True, slots=True)
class Widget:
    """One input that takes a value rather than a link.

    `type` is INT, FLOAT, STRING, BOOLEAN or COMBO; `least` and `step` are of numbers only; `options` is None where the
    choices are not told; `upload` says that the value is a media file which people upload.
    """

    name: str
    type: str
    required: bool
    default: Any = None
    least: float | None = None
    step: float | None = None
    options: tuple[Any, ...] | None = None
    upload: bool = False

    def at_least(self, floor: float) -> int | float:
        """The smallest legal value that is not under `floor`, on the grid of `step` that starts at `least`."""
        least = self.least if self.least is not None else floor
        value = least
        if value < floor:
            step = self.step or 1
            value = least + step * -(-(floor - least) // step)
        return round(value) if self.type == "INT" else float(value)


def widgets(schema: Schema, class_type: str) -> dict[str, Widget]:
    """The inputs of a class that take values, in order; empty for an unknown class."""
    return {widget.name: widget for widget in _read(schema.entry(class_type).get("input"), "", required=True)}


def _read(sections: Any, prefix: str, *, required: bool) -> Iterator[Widget]:
    if not isinstance(sections, Mapping):
        return
    for section in ("required", "optional"):
        entries = sections.get(section)
        for name, entry in entries.items() if isinstance(entries, Mapping) else ():
            if isinstance(entry, list) and entry:
                yield from _one(f"{prefix}{name}", entry, required=required and section == "required")


def _one(name: str, entry: list[Any], *, required: bool) -> Iterator[Widget]:
    type_ = entry[0]
    extra = entry[1] if len(entry) > 1 and isinstance(entry[1], Mapping) else {}
    if extra.get("forceInput"):
        return
    default = extra.get("default")
    if isinstance(type_, list) or type_ == "COMBO":
        given = type_ if isinstance(type_, list) else extra.get("options")
        options = tuple(given) if isinstance(given, list) else None
        upload = any(value is True for key, value in extra.items() if str(key).endswith("_upload"))
        yield Widget(name, "COMBO", required, default, options=options, upload=upload)
    elif type_ == "COMFY_DYNAMICCOMBO_V3":
        yield from _dynamic(name, extra, required=required)
    elif type_ in _NUMBERS:
        yield Widget(name, type_, required, default, least=_number(extra.get("min")), step=_number(extra.get("step")))
    elif type_ in ("STRING", "BOOLEAN"):
        yield Widget(name, type_, required, default)


def _dynamic(name: str, extra: Mapping[str, Any], *, required: bool) -> Iterator[Widget]:
    """A choice that brings further inputs with it; which of them are needed depends on it, so none is required."""
    given = extra.get("options")
    choices = [choice for choice in given if isinstance(choice, Mapping)] if isinstance(given, list) else []
    yield Widget(name, "COMBO", required, options=tuple(choice.get("key") for choice in choices))
    for choice in choices:
        yield from _read(choice.get("inputs"), f"{name}.", required=False)


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
