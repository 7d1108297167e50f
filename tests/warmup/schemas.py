"""An extract of a real `/object_info` (ComfyUI 0.33.0, with made-up model files) and some custom classes beside it."""

import functools
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from normalizer import Schema

Prompt = dict[str, dict[str, Any]]


def custom(inputs: Mapping[str, Any], output: list[str], *, output_node: bool = False) -> dict[str, Any]:
    return {
        "input": {"required": inputs},
        "output": output,
        "output_node": output_node,
        "python_module": "custom_nodes.pack",
    }


CUSTOM = {
    "ShowText": custom({"text": ["STRING", {"forceInput": True}]}, ["STRING"], output_node=True),
    "ShowAnything": custom({"value": ["*"]}, ["STRING"], output_node=True),
    "VHS_LoadVideo": custom({"video": [["a.mp4"]], "frame_load_cap": ["INT", {"min": 0}]}, ["IMAGE", "AUDIO"]),
    "SaveAndGo": custom({"images": ["IMAGE"], "folder": ["STRING", {}]}, ["IMAGE"], output_node=True),
    "SaveVideo+": custom({"images": ["IMAGE"]}, ["FILENAMES"], output_node=True),
    "UseNames": custom({"names": ["FILENAMES"]}, ["STRING"]),
    "LoopOpen": custom({"total": ["INT", {"min": 1}], "value": ["*"]}, ["FLOW_CONTROL", "*"]),
    "LoopClose": custom({"flow": ["FLOW_CONTROL"], "value": ["*"]}, ["*"]),
    "TurboLoader": custom({"model_name": [["a.gguf"]], "steps": ["INT", {"min": 1}]}, ["MODEL"]),
    "HalfLoader": custom({"model_name": [["a.gguf", "b.gguf"]], "mode": [["fast", "slow"]]}, ["MODEL"]),
}


@functools.cache
def info() -> dict[str, Any]:
    read = json.loads(Path(__file__).with_name("object_info.json").read_text())
    return {**read, **CUSTOM}


@functools.cache
def schema(without: frozenset[str] = frozenset()) -> Schema:
    return Schema.from_object_info({name: entry for name, entry in info().items() if name not in without})


def lacking(*names: str) -> Schema:
    return schema(frozenset(names))


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def classes(prompt: Mapping[str, Any]) -> list[str]:
    return sorted(entry["class_type"] for entry in prompt.values())


def refusals(prompt: Mapping[str, Any], of: Schema) -> list[str]:
    """What ComfyUI's `validate_prompt` would refuse, as far as `/object_info` tells."""
    found = []
    for node_id, entry in prompt.items():
        described = of.entry(entry["class_type"])
        if not described:
            found.append(f"{node_id}: no class {entry['class_type']}")
            continue
        sections = described["input"]
        found += [f"{node_id}.{name}: missing" for name in sections["required"] if name not in entry["inputs"]]
        declared = {**sections["required"], **sections.get("optional", {})}
        for name, value in entry["inputs"].items():
            if name in declared:
                found += [f"{node_id}.{name}: {problem}" for problem in _value(prompt, of, declared[name], value)]
    if not any(of.entry(entry["class_type"]).get("output_node") for entry in prompt.values()):
        found.append("prompt has no outputs")
    return found


def _value(prompt: Mapping[str, Any], of: Schema, spec: list[Any], value: Any) -> Collection[str]:
    type_, options = spec[0], spec[1] if len(spec) > 1 else {}
    if isinstance(value, list):
        if value[0] not in prompt:
            return ["links to nothing"]
        made = of.entry(prompt[value[0]]["class_type"])["output"][value[1]]
        fits = made in ("*", type_) or type_ == "*" or str(type_).startswith("COMFY_")
        return [] if fits else [f"{made} is no {type_}"]
    choices = type_ if isinstance(type_, list) else options.get("options") if type_ == "COMBO" else None
    if choices is not None:
        return [] if value in choices else [f"{value!r} not in list"]
    if type_ in ("INT", "FLOAT"):
        low, high = options.get("min", value), options.get("max", value)
        return [] if low <= value <= high else [f"{value} not within {low} to {high}"]
    return [] if type_ in ("STRING", "BOOLEAN") or str(type_).startswith("COMFY_") else ["is no link"]
