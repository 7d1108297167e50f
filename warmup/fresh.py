"""How a warm-up prompt differs from the last one like it, so that ComfyUI computes it rather than remembers it.

A model that has gone from VRAM to RAM is brought back by being used. But ComfyUI keeps what nodes made, too: the same
warm-up again would be answered from that cache, with success and no effect. So every node that uses a model gets
something new that does not change what it does. A class of ComfyUI's own does not see undeclared inputs, which count
in the cache key all the same (ComfyUI `execution.py`, `get_input_data`); a custom class may see them and gets another
seed, if it takes one. What a loader depends on is never touched: the loader would load again, for nobody.
"""

from collections.abc import Collection, Mapping
from typing import Any

from normalizer import NodeClass, Role, Schema
from normalizer.kinds import Kind, kind_of
from warmup.catalogue import widgets
from warmup.graph import upstream

NONCE = "comfykeep_warmup"
"""The undeclared input; no class has one of this name."""
SEEDS = ("seed", "noise_seed")
_SEED_LIMIT = 2**32
"""Every sampler takes seeds below this; some take no larger ones."""


def varied(prompt: Mapping[str, Any], schema: Schema, fixed: Mapping[str, Collection[str]]) -> Mapping[str, str]:
    """Which input of which node is to be new each time; `fixed` names, by node id, inputs to leave alone."""
    loading = [node_id for node_id, node in prompt.items() if _role(schema, node) is not Role.NEITHER]
    behind_loaders = set(upstream(prompt, loading))
    found = {}
    for node_id, node in prompt.items():
        cls = schema.get(node["class_type"])
        if cls is None or node_id in behind_loaders:
            continue
        if cls.core and _uses_model(cls):
            found[node_id] = NONCE
        elif not cls.core and (seed := _seed(schema, cls, node, fixed.get(node_id, ()))):
            found[node_id] = seed
    return found


def fresh(prompt: Mapping[str, Any], inputs: Mapping[str, str], nonce: int) -> dict[str, Any]:
    """The prompt with these inputs set to what has not been there before."""
    made = dict(prompt)
    for node_id, name in inputs.items():
        value = nonce if name == NONCE else nonce % _SEED_LIMIT
        made[node_id] = {**prompt[node_id], "inputs": {**prompt[node_id]["inputs"], name: value}}
    return made


def _role(schema: Schema, node: Mapping[str, Any]) -> Role:
    cls = schema.get(node["class_type"])
    return cls.role if cls else Role.NEITHER


def _uses_model(cls: NodeClass) -> bool:
    taken = any(kind_of(spec.type) is Kind.MODEL for spec in cls.inputs.values())
    return taken and not any(kind_of(type_) is Kind.MODEL for type_ in cls.outputs)


def _seed(schema: Schema, cls: NodeClass, node: Mapping[str, Any], fixed: Collection[str]) -> str | None:
    known = widgets(schema, cls.name)
    for name in SEEDS:
        if name in known and known[name].type == "INT" and isinstance(node["inputs"].get(name), int):
            return None if name in fixed else name
    return None
