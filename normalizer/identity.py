"""Names for chain nodes that are the same in every prompt, client and version, and what ComfyUI keys them by.

ComfyUI keeps a node's *instance* by `(node id, class)` and its *outputs* by class and inputs
(`comfy_execution/caching.py`). A stable id must therefore tell models apart, yet not tell a LoRA at 0.8 from the same
LoRA at 0.9: the instance that holds the file would be lost. So the id is made of the class, the files, choices and
names, and the ids upstream, without numbers; the signature is made of everything.

An id has 24 digits: a constant prefix by which one search finds any of them in a frame, 18 digits of hash, and two of
an ordinal for equal nodes in one prompt. Decimal, because custom nodes call `int(unique_id)`; the recipe may never
change, or every cached model is loaded once more.
"""

import json
import re
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any

from normalizer.inputs import Form, InputSpec
from normalizer.schema import NodeClass
from normalizer.workflow import Link

PREFIX = "9173"
HASH_DIGITS = 18
ORDINALS = 100
SENT_ID = re.compile(rf"(?<!\d){PREFIX}\d{{20}}(?!\d)")
_SENT_ID_BYTES = re.compile(rf"{PREFIX}\d{{20}}".encode())
_SENT_ID_TEXT = re.compile(rf"{PREFIX}\d{{20}}")


def mentions_sent_id(raw: bytes | str) -> bool:
    """Tell, without parsing, whether a frame may hold a stable id; if not, it can be passed on as the same bytes."""
    if isinstance(raw, str):
        return PREFIX in raw and _SENT_ID_TEXT.search(raw) is not None
    return PREFIX.encode() in raw and _SENT_ID_BYTES.search(raw) is not None


def with_ordinal(key: str, ordinal: int) -> str:
    """Give the id of the `ordinal`-th (from 0, below `ORDINALS`) of equal nodes in one prompt."""
    return f"{key[:-2]}{ordinal:02d}"


def stable_key(class_type: str, values: Mapping[str, Any], upstream: Iterable[tuple[Link, str]]) -> str:
    """Make the id, with ordinal 0, of a node from its telling inputs and the keys of the nodes it is linked to."""
    links = sorted([link.input, key, link.slot] for link, key in upstream)
    number = int.from_bytes(_digest([class_type, values, links]), "big") % 10**HASH_DIGITS
    return f"{PREFIX}{number:0{HASH_DIGITS}d}00"


def signature(
    class_type: str, values: Mapping[str, Any], upstream: Iterable[tuple[Link, str]], changed: list[Any]
) -> str:
    """Make a name for what ComfyUI keys a node's outputs by: class, inputs, all that upstream, `is_changed` if given.

    Equal signatures have equal keys in ComfyUI. (The reverse does not hold: to ComfyUI 1, 1.0 and true are the same.)
    """
    links = sorted([link.input, key, link.slot] for link, key in upstream)
    return _digest([class_type, values, links, changed]).hex()


def _digest(payload: list[Any]) -> bytes:
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"))
    return blake2b(text.encode("ascii"), digest_size=16).digest()


def telling_values(cls: NodeClass, values: Mapping[str, Any]) -> dict[str, Any]:
    """Pick the inputs that tell one model from another: choices, names, and the texts in what is not declared."""
    telling = {}
    for name, value in values.items():
        spec = cls.inputs.get(name)
        if spec is not None and spec.form in (Form.CHOICE, Form.TEXT):
            telling[name] = value
        elif spec is None or spec.form is Form.LINK:
            texts = _texts(value)
            if texts is not None:
                telling[name] = texts
    return telling


def _texts(value: Any) -> Any:
    """Reduce a value to the texts in it, in their places; None if there are none."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        found = {key: texts for key, item in value.items() if (texts := _texts(item)) is not None}
        return found or None
    if isinstance(value, list):
        items = [_texts(item) for item in value]
        return items if any(item is not None for item in items) else None
    return None


def as_validated(spec: InputSpec | None, value: Any) -> Any:
    """Give a value as ComfyUI's validation leaves it in the prompt; unchanged where the cast would fail.

    Source: ComfyUI `execution.py` (`validate_inputs`): `{"__value__": x}` becomes x, and a declared INT, FLOAT, STRING
    or BOOLEAN goes through Python's own constructor. Lists are links to it, and left alone.
    """
    if spec is None or isinstance(value, list):
        return value
    if isinstance(value, dict) and "__value__" in value:
        value = value["__value__"]
    cast = _CASTS.get(spec.type)
    if cast is None:
        return value
    try:
        return cast(value)
    except (TypeError, ValueError, OverflowError):
        return value


_CASTS: Mapping[str, Any] = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}
