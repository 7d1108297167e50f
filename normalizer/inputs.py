"""The inputs of a node class, in one form for every way in which `/object_info` writes them.

V1 combos are `[[…options], {…}]`, V3 combos `["COMBO", {"options": […]}]`; V3 dynamic inputs hold further inputs,
which a prompt names with dots (`resize_type.width`). Custom packs write what they like, so everything here is tolerant.
Source: ComfyUI `execution.py` (`get_input_info`), `comfy_api/latest/_io.py` (`parse_class_inputs`).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Form(StrEnum):
    """How a value gets into an input, and so what it says about the node."""

    CHOICE = "choice"
    """One of a list: names a file or a way of loading it."""
    TEXT = "text"
    """One line: a name or a path."""
    KNOB = "knob"
    """A number, a switch or prose: does not tell one model from another."""
    LINK = "link"
    """Comes from another node."""


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One declared input: its name in a prompt, its type as validation reads it, and what it takes.

    `choices` are those of a combo, in order; empty for every other input.
    """

    name: str
    type: str
    form: Form
    required: bool
    names_file: bool = False
    choices: tuple[Any, ...] = ()


MODEL_FILE = re.compile(
    r"\.(?:safetensors|sft|ckpt|pth?|bin|gguf|onnx|pkl|engine|msgpack|torchscript|h5|tflite|task|nemo)$", re.IGNORECASE
)
_REPOSITORY = re.compile(r"^[\w.-]+/[\w.-]+$")
_FILE_NAME = re.compile(
    r"(?:^|_)(?<!sampler_)(?<!scheduler_)(?:name|ckpt|checkpoint|models?|file|filename|path|dir|folder|repo|repo_id|weights"
    r"|loras?|vae|unet|clip|encoder|controlnet|onnx|gguf)(?:_?\d+)?$",
    re.IGNORECASE,
)
_TEMPLATE_LIMIT = 100  # as ComfyUI's own (`Autogrow._MaxNames`)


def read_inputs(sections: Any) -> Iterator[InputSpec]:
    """Yield the declared inputs of a class in order, those of dynamic inputs with their dotted names after them."""
    if not isinstance(sections, Mapping):
        return
    for section in ("required", "optional"):
        entries = sections.get(section)
        if isinstance(entries, Mapping):
            for name, entry in entries.items():
                yield from _read(str(name), entry, required=section == "required")


def _read(name: str, entry: Any, *, required: bool) -> Iterator[InputSpec]:
    type_, options = _type_and_options(entry)
    if options.get("forceInput") and (isinstance(type_, list) or type_ == "COMBO"):
        yield InputSpec(name, "COMBO", Form.LINK, required)
    elif isinstance(type_, list):
        yield InputSpec(name, "COMBO", Form.CHOICE, required, _names_file(name, type_), tuple(type_))
    elif type_ == "COMBO":
        choices = options.get("options")
        given = tuple(choices) if isinstance(choices, list) else ()
        yield InputSpec(name, "COMBO", Form.CHOICE, required, _names_file(name, choices), given)
    elif type_ == "COMFY_DYNAMICCOMBO_V3":
        yield InputSpec(name, type_, Form.CHOICE, required)
        yield from _read_dynamic_combo(name, options)
    elif type_ == "COMFY_AUTOGROW_V3":
        yield from _read_autogrow(name, options, required=required)
    elif type_ == "COMFY_DYNAMICSLOT_V3":
        yield InputSpec(name, type_, Form.LINK, required)
        yield from _nested(name, options.get("inputs"))
    else:
        yield _plain(name, str(type_), options, required=required)


def _plain(name: str, type_: str, options: Mapping[str, Any], *, required: bool) -> InputSpec:
    if options.get("forceInput") or type_ not in ("INT", "FLOAT", "STRING", "BOOLEAN"):
        return InputSpec(name, type_, Form.LINK, required)
    if type_ == "STRING" and not options.get("multiline") and not options.get("dynamicPrompts"):
        return InputSpec(name, type_, Form.TEXT, required, bool(_FILE_NAME.search(name)))
    return InputSpec(name, type_, Form.KNOB, required)


def _type_and_options(entry: Any) -> tuple[Any, Mapping[str, Any]]:
    if isinstance(entry, str):
        return entry, {}
    if not isinstance(entry, list) or not entry:
        return "*", {}
    options = entry[1] if len(entry) > 1 else None
    return entry[0], options if isinstance(options, Mapping) else {}


def _read_dynamic_combo(name: str, options: Mapping[str, Any]) -> Iterator[InputSpec]:
    choices = options.get("options")
    seen: set[str] = set()
    for choice in choices if isinstance(choices, list) else ():
        for spec in _nested(name, choice.get("inputs") if isinstance(choice, Mapping) else None):
            if spec.name not in seen:
                seen.add(spec.name)
                yield spec


def _read_autogrow(name: str, options: Mapping[str, Any], *, required: bool) -> Iterator[InputSpec]:
    template = options.get("template")
    if not isinstance(template, Mapping):
        return
    inner = next(iter(read_inputs(template.get("input"))), None)
    names = template.get("names")
    if not isinstance(names, list):
        count = template.get("max", 0)
        prefix = template.get("prefix", name)
        names = [f"{prefix}{i}" for i in range(count if isinstance(count, int) else 0)]
    least = template.get("min", 0) if required and inner and inner.required else 0
    for i, item in enumerate(names[:_TEMPLATE_LIMIT]):
        if inner:
            yield InputSpec(f"{name}.{item}", inner.type, inner.form, i < least, inner.names_file)


def _nested(prefix: str, sections: Any) -> Iterator[InputSpec]:
    """Yield the inputs under a dynamic one; which of them are needed depends on the choice, so none is required."""
    for spec in read_inputs(sections):
        yield InputSpec(f"{prefix}.{spec.name}", spec.type, spec.form, required=False, names_file=spec.names_file)


def _names_file(name: str, choices: Any) -> bool:
    """Tell a list of files from a list of modes: an empty one is an empty folder, the rest shows in names."""
    if not isinstance(choices, list):
        return bool(_FILE_NAME.search(name))
    texts = [choice for choice in choices[:50] if isinstance(choice, str)]
    if not choices or any(MODEL_FILE.search(text) or _REPOSITORY.match(text) for text in texts):
        return True
    return bool(_FILE_NAME.search(name))
