"""Inputs that depend on other inputs: dynamic combos, growing lists, dynamic slots.

The schema of such a class names a template; which inputs there are follows from what a prompt gives, and they have
dotted names. Behaviour from ComfyUI comfy_api/latest/_io.py, `get_finalized_class_inputs`.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from .base import Inputs

_COMBO = "COMFY_DYNAMICCOMBO_V3"
_GROWING = "COMFY_AUTOGROW_V3"
_SLOT = "COMFY_DYNAMICSLOT_V3"
DYNAMIC = frozenset((_COMBO, _GROWING, _SLOT))

_Found = Iterable[tuple[str, str, Any]]
"""Category, name and specification of inputs."""


def finalize(schema: Inputs, given: Mapping[str, Any]) -> Inputs:
    """The inputs that there are, for what a prompt gives."""
    found: Inputs = {"required": {}, "optional": {}}
    for category, name, spec in _expand(schema, given, ""):
        found[category][name] = spec
    return {**found, "hidden": schema.get("hidden", {})}


def _expand(schema: Inputs, given: Mapping[str, Any], prefix: str) -> _Found:
    for category in ("required", "optional"):
        for name, spec in schema.get(category, {}).items():
            path = prefix + name
            kind = spec[0]
            if isinstance(kind, str) and kind in DYNAMIC:
                yield from _expand_one(category, path, spec, given)
            else:
                yield category, path, spec


def _expand_one(category: str, path: str, spec: Any, given: Mapping[str, Any]) -> _Found:
    kind, details = spec[0], spec[1]
    if kind == _GROWING:
        yield from _grown(path, details["template"])
    elif path in given and kind == _SLOT:
        yield from _expand(details["inputs"], given, f"{path}.")
        yield category, path, spec
    elif path in given:
        for option in details["options"]:
            if option["key"] == given[path]:
                yield from _expand(option["inputs"], given, f"{path}.")
                yield category, path, spec


def _grown(path: str, template: Mapping[str, Any]) -> _Found:
    names = template.get("names") or [f"{template['prefix']}{index}" for index in range(template["max"])]
    for category, inputs in template["input"].items():
        for spec in inputs.values():
            for index, name in enumerate(names):
                required = category == "required" and index < template["min"]
                yield "required" if required else "optional", f"{path}.{name}", spec
            return
