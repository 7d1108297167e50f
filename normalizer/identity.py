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
from contextlib import suppress
from hashlib import blake2b
from typing import Any

from normalizer.inputs import Form
from normalizer.schema import NodeClass
from normalizer.workflow import Link

PREFIX = "9173"
HASH_DIGITS = 18
ORDINALS = 100
SENT_ID = re.compile(rf"(?<!\d){PREFIX}\d{{20}}(?!\d)", re.ASCII)
_IN_TEXT = re.compile(rf"{PREFIX}\d{{20}}", re.ASCII)
_IN_BYTES = re.compile(rf"{PREFIX}\d{{20}}".encode())


def mentions_sent_id(raw: bytes | str) -> bool:
    """Tell, without parsing, whether a frame may hold a stable id; if not, it can be passed on as the same bytes."""
    if isinstance(raw, str):
        return PREFIX in raw and _IN_TEXT.search(raw) is not None
    return PREFIX.encode() in raw and _IN_BYTES.search(raw) is not None


def with_ordinal(key: str, ordinal: int) -> str:
    """Give the id of the `ordinal`-th (from 0, below `ORDINALS`) of equal nodes in one prompt."""
    return f"{key[:-2]}{ordinal:02d}"


def stable_key(class_type: str, telling: Mapping[str, Any], upstream: Iterable[tuple[Link, str]]) -> str:
    """Make the id, with ordinal 0, of a node from its telling inputs and the keys of the nodes it is linked to."""
    digest = _digest(f"{_quote(class_type)}|{_text(telling)}|{_ends(upstream)}").digest()
    return f"{PREFIX}{int.from_bytes(digest, 'big') % 10**HASH_DIGITS:0{HASH_DIGITS}d}00"


def signature(key: str, rest: Mapping[str, Any], upstream: Iterable[tuple[Link, str]], changed: list[Any]) -> str:
    """Make a name for what ComfyUI keys a node's outputs by: class, inputs, all that upstream, `is_changed` if given.

    The key stands for the class and the inputs that went into it, `rest` are the others. Equal signatures have equal
    keys in ComfyUI. (The reverse does not hold: to ComfyUI 1, 1.0 and true are the same.)
    """
    return _digest(f"{key}|{_text(rest)}|{_ends(upstream)}|{_encode(changed) if changed else ''}").hexdigest()


_quote = json.encoder.encode_basestring_ascii
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode
_PLAIN = frozenset({int, float, bool})


def _text(values: Mapping[str, Any]) -> str:
    """Write values down unambiguously, in one order."""
    return ",".join([f"{_quote(name)}:{_literal(value)}" for name, value in sorted(values.items())])


def _literal(value: Any) -> str:
    """Write one value down; by hand where that is enough, since it is done for every input of every chain node."""
    kind = type(value)
    if kind is str:
        return _quote(value)
    return repr(value) if kind in _PLAIN else _encode(value)


def _ends(upstream: Iterable[tuple[Link, str]]) -> str:
    return ",".join(sorted([f"{_quote(link.input)}:{key}.{link.slot}" for link, key in upstream]))


def _digest(text: str) -> blake2b:
    return blake2b(text.encode("ascii"), digest_size=16)


def telling_values(cls: NodeClass, values: Mapping[str, Any]) -> dict[str, Any]:
    """Pick the inputs that tell one model from another: choices, names, and the texts in what is not declared."""
    telling = {}
    inputs = cls.inputs
    for name, value in values.items():
        spec = inputs.get(name)
        form = Form.LINK if spec is None else spec.form
        if form is Form.CHOICE or form is Form.TEXT:
            telling[name] = value
        elif form is Form.LINK:
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


def as_validated(cls: NodeClass, values: dict[str, Any]) -> dict[str, Any]:
    """Give a node's values as ComfyUI's validation leaves them in the prompt; unchanged where a cast would fail.

    Source: ComfyUI `execution.py` (`validate_inputs`): of the declared inputs, `{"__value__": x}` becomes x, and an
    INT, FLOAT, STRING or BOOLEAN goes through Python's own constructor. Lists are links to it, and left alone.
    """
    changed = {}
    casts = cls.casts
    for name, value in values.items():
        given = value
        if type(value) is dict and "__value__" in value and name in cls.inputs:
            given = value["__value__"]
        cast = casts.get(name)
        if cast is not None and type(given) is not cast and type(value) is not list:
            with suppress(TypeError, ValueError, OverflowError):
                given = cast(given)
        if given is not value:
            changed[name] = given
    return {**values, **changed} if changed else values
