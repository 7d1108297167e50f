"""Loaders exchanged for the Inspire Pack's shared ones, which keep their models by key in a cache of their own.

A shared loader makes what its sibling in the core makes, in the same slots, with its cache key as one more. Which class
is whose sibling is read from the schema: equal outputs but for the key, an input for each of the original's with the
same choices, and nothing else that must be given. What the schema says about combinations stands in its description
(`[Recipes dual]`, a line for each type); a shared loader that reads one file or several refuses all others when it
runs, so there only what the recipes name is exchanged. Where anything cannot be mapped one to one, the original stays.

Source: ComfyUI-Inspire-Pack `inspire/backend_support.py`, 1.21.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

from normalizer.inputs import Form, InputSpec
from normalizer.normalize import Normalized
from normalizer.restore import Exchanged
from normalizer.schema import NodeClass, Role, Schema
from normalizer.workflow import is_link

REMOVER = "RemoveBackendData //Inspire"
"""Takes one key out of the cache when it runs; an output node."""

_PACK = "//Inspire"
_AUTO = "Auto"
"""The mode that loads what the cache does not have and takes the rest from it."""
_ABSENT = "None"
"""What a shared loader for one file or several takes in place of one that is not given."""
_OWN_INPUTS = frozenset({"key_opt", "mode"})
_COUNTS = {"single": 1, "dual": 2, "triple": 3, "quadruple": 4}
_RECIPES = re.compile(r"^\[Recipes (\w+)\]\s*$|^([\w.-]+):", re.MULTILINE)
_KEY = re.compile(r"comfykeep-[0-9a-f]{20}")


@dataclass(frozen=True, slots=True)
class Sibling:
    """How a node of one core loader is written as one of its shared sibling.

    `names` gives the sibling's input for each of the original's, `choices` what is exchanged in each of the original's,
    `fixed` what the sibling is given besides. `files` are the original's inputs that name files; the same file in two
    of them is refused by the sibling alone. `slots` are those that the original has: to another, as 3 or -1, the
    sibling's key might come.
    """

    original: str
    shared: str
    names: Mapping[str, str]
    choices: Mapping[str, frozenset[str]]
    fixed: Mapping[str, str]
    required: frozenset[str]
    files: tuple[str, ...]
    slots: frozenset[int]

    def inputs(self, given: Mapping[str, Any]) -> dict[str, Any] | None:
        """Give the inputs of the shared loader; None where these do not mean the same to it."""
        if not self.required <= given.keys() <= self.names.keys():
            return None
        if not all(type(value) is str and value in self.choices[name] for name, value in given.items()):
            return None
        named = [given[name] for name in self.files]
        if len(set(named)) < len(named):
            return None
        mapped = {self.names[name]: value for name, value in given.items()}
        return {**mapped, **self.fixed, "key_opt": cache_key(self.original, given), "mode": _AUTO}


@dataclass(frozen=True, slots=True)
class SharedLoaders:
    """The core loaders that have a shared sibling at one upstream, by class."""

    siblings: Mapping[str, Sibling] = field(default_factory=dict)

    @classmethod
    def of(cls, schema: Schema) -> "SharedLoaders":
        """Find them in the schema; a loader with several siblings is left alone."""
        shared = [item for item in schema.classes.values() if _is_shared(item)]
        siblings = {}
        for original in schema.classes.values():
            if original.core and original.role is Role.LOADER:
                matches = (_match(original, item, _recipes(schema, item)) for item in shared)
                found = [sibling for sibling in matches if sibling is not None]
                if len(found) == 1:
                    siblings[original.name] = found[0]
        return cls(siblings)

    def __bool__(self) -> bool:
        return bool(self.siblings)


def exchange(normalized: Normalized, loaders: SharedLoaders) -> Normalized:
    """Write every chain node that has a shared sibling as that, pins too; what has kept its own id stays as it is.

    A prompt in which a class may look nodes up keeps all its ids, and so its loaders: it may look for their classes.
    """
    prompt = dict(normalized.prompt)
    way_back = normalized.way_back
    exchanged = dict(way_back.exchanged)
    slots = _linked_slots(prompt)
    for sent_id in (*way_back.ids, *way_back.pins):
        node = prompt[sent_id]
        sibling = loaders.siblings.get(node["class_type"])
        if sibling is None or "is_changed" in node or not slots.get(sent_id, set()) <= sibling.slots:
            continue
        inputs = sibling.inputs(node["inputs"])
        if inputs is not None:
            prompt[sent_id] = {**node, "class_type": sibling.shared, "inputs": inputs}
            if sent_id in way_back.ids:
                names = {new: old for old, new in sibling.names.items() if new != old}
                exchanged[sent_id] = Exchanged(sibling.original, node["inputs"], names)
    return replace(normalized, prompt=prompt, way_back=replace(way_back, exchanged=exchanged))


def cache_key(class_type: str, inputs: Mapping[str, Any]) -> str:
    """Name what a loader loads, by all that decides it: the same in every prompt and process."""
    text = json.dumps([class_type, sorted(inputs.items())])
    return f"comfykeep-{blake2b(text.encode(), digest_size=10).hexdigest()}"


def is_cache_key(key: str) -> bool:
    """Tell whether a key in the cache is one of ours."""
    return _KEY.fullmatch(key) is not None


def cache_keys(prompt: Mapping[str, Any]) -> dict[str, str]:
    """Find the nodes of a sent prompt that were exchanged, with their keys."""
    keys = {}
    for node_id, node in prompt.items():
        inputs = node.get("inputs") if isinstance(node, Mapping) else None
        key = inputs.get("key_opt") if isinstance(inputs, Mapping) else None
        if isinstance(key, str) and is_cache_key(key):
            keys[node_id] = key
    return keys


def _linked_slots(prompt: Mapping[str, Any]) -> dict[str, set[int | float]]:
    """Find which output slots of each node others are linked to."""
    slots: dict[str, set[int | float]] = {}
    for node in prompt.values():
        inputs = node.get("inputs") if isinstance(node, Mapping) else None
        for value in inputs.values() if isinstance(inputs, Mapping) else ():
            if is_link(value):
                slots.setdefault(value[0], set()).add(value[1])
    return slots


def _is_shared(cls: NodeClass) -> bool:
    mode = cls.inputs.get("mode")
    return (
        cls.name.endswith(_PACK)
        and cls.pinnable
        and cls.outputs[-1:] == ("STRING",)
        and "key_opt" in cls.inputs
        and cls.inputs["key_opt"].type == "STRING"
        and mode is not None
        and _AUTO in mode.choices
    )


def _recipes(schema: Schema, cls: NodeClass) -> dict[int, frozenset[str]]:
    """Read which types a shared loader takes with so many files, from its description."""
    recipes: dict[int, set[str]] = {}
    count = 0
    for heading, name in _RECIPES.findall(str(schema.entry(cls.name).get("description") or "")):
        if heading:
            count = _COUNTS.get(heading, 0)
        elif count:
            recipes.setdefault(count, set()).add(name)
    return {count: frozenset(names) for count, names in recipes.items()}


def _match(original: NodeClass, shared: NodeClass, recipes: Mapping[int, frozenset[str]]) -> Sibling | None:
    """Say how nodes of one class are written as nodes of the other; None if they cannot be."""
    if (*original.outputs, "STRING") != shared.outputs or original.hidden or shared.hidden:
        return None
    if any(spec.form is not Form.CHOICE for spec in original.inputs.values()):
        return None
    offered = {name: spec for name, spec in shared.inputs.items() if name not in _OWN_INPUTS}
    names = {name: name for name, spec in original.inputs.items() if name in offered and _alike(spec, offered[name])}
    rest = [spec for name, spec in original.inputs.items() if name not in names]
    slots = [spec for name, spec in offered.items() if name not in names and rest and _lists(spec, rest[0])]
    if len(rest) > len(slots) or not all(_lists(slots[0], spec) for spec in rest):
        return None
    names |= {spec.name: slot.name for spec, slot in zip(rest, slots, strict=False)}
    choices = {name: _texts(spec) & _texts(shared.inputs[names[name]]) for name, spec in original.inputs.items()}
    fixed = {slot.name: _ABSENT for slot in slots[len(rest) :] if _ABSENT in slot.choices}
    if len(slots) > 1:
        types = recipes.get(len(rest), frozenset())
        kind = next((spec.name for spec in offered.values() if types and types <= _texts(spec)), None)
        if kind in choices:
            choices[kind] &= types
        elif kind is not None and len(types) == 1:
            fixed[kind] = min(types)
        else:
            return None
    given = {*names.values(), *fixed, *_OWN_INPUTS}
    if any(spec.required and name not in given for name, spec in shared.inputs.items()):
        return None
    required = frozenset(name for name, spec in original.inputs.items() if spec.required)
    files = tuple(spec.name for spec in rest)
    own_slots = frozenset(range(len(original.outputs)))
    return Sibling(original.name, shared.name, names, choices, fixed, required, files, own_slots)


def _alike(mine: InputSpec, other: InputSpec) -> bool:
    """Whether two inputs of one name take choices, with the same one standing for an optional one not given."""
    return other.form is Form.CHOICE and (mine.required or mine.choices[:1] == other.choices[:1])


def _lists(slot: InputSpec, spec: InputSpec) -> bool:
    """Whether a slot takes the files of an input, and perhaps none."""
    choices = slot.choices[1:] if slot.choices[:1] == (_ABSENT,) else slot.choices
    return slot.form is Form.CHOICE and choices == spec.choices


def _texts(spec: InputSpec) -> frozenset[str]:
    return frozenset(choice for choice in spec.choices if isinstance(choice, str))
