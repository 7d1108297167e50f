"""Loader chains of other prompts, carried along so that ComfyUI does not drop what they made.

ComfyUI marks the outputs of every node that a prompt holds, wired or not (`execution.py`, `set_prompt`), and drops or
releases the others. A pin must not be able to fail or change the prompt that carries it: validation looks at the class
of every node, so a class that is gone is left out; an output node would run; two nodes of one id cannot be; and a link
that leads nowhere must not find a pin.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from normalizer.chains import Chain
from normalizer.normalize import Normalized
from normalizer.schema import Schema
from normalizer.workflow import is_link

METADATA_SCANNERS = frozenset(
    {
        "MetaHubSaveNode",  # ImageMetaHub-ComfyUI-Save: lists the LoRAs of every node in the prompt
        "SaveImageWithMetaData",  # ComfyUI-SaveImageWithMetaData and its forks: hash the file of every loader
        "SaveImageWithMetadata",  # the same name in several packs, which read models off the prompt
        "SaveImgAdv",  # ultools-comfyui: takes the first checkpoint and every LoRA in the prompt
    }
)
"""Classes that read PROMPT to write down "the" checkpoint or all LoRAs: with pins they would name models of others."""


def carry(normalized: Normalized, chains: Sequence[Chain], schema: Schema) -> Normalized:
    """Append chains, those to keep most first; what cannot be carried without risk is left out.

    Nodes that the prompt holds already (its own, or of an earlier chain) are shared. Where it holds a node of the same
    id with other numbers, that node and what would hang on it are left out: the prompt's own variant keeps the files.
    """
    if any(_scans(node) for node in normalized.prompt.values()):
        return normalized
    prompt = dict(normalized.prompt)
    held = {node_id: record for node_id, record in normalized.own.items() if node_id in normalized.standing}
    held |= {pin: prompt[pin] for pin in normalized.way_back.pins}
    pins: list[str] = []
    for chain in chains:
        for node_id, record in _sound(chain, normalized, held, prompt, schema).items():
            prompt[node_id] = held[node_id] = record
            pins.append(node_id)
    if not pins:
        return normalized
    way_back = replace(normalized.way_back, pins=(*normalized.way_back.pins, *pins))
    return replace(normalized, prompt=prompt, way_back=way_back)


def _scans(node: Any) -> bool:
    class_type = node.get("class_type") if isinstance(node, Mapping) else None
    return isinstance(class_type, str) and class_type in METADATA_SCANNERS


def _sound(
    chain: Chain,
    normalized: Normalized,
    held: Mapping[str, dict[str, Any]],
    prompt: Mapping[str, Any],
    schema: Schema,
) -> dict[str, dict[str, Any]]:
    """Pick the nodes of a chain that are to be added, upstream first."""
    if all(normalized.own.get(node_id) == record for node_id, record in chain.nodes.items()):
        return {}
    added: dict[str, dict[str, Any]] = {}
    usable: set[str] = set()
    for node_id, record in chain.nodes.items():
        cls = schema.get(record["class_type"])
        links = {value[0] for value in record["inputs"].values() if is_link(value)}
        if cls is None or not cls.pinnable or not links <= usable or node_id in normalized.missing:
            continue
        if node_id not in prompt:
            added[node_id] = record
        elif held.get(node_id) != record:
            continue
        usable.add(node_id)
    return added
