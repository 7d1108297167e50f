"""The changes that are made to a client's prompt, one rule each, with the reason that `comfykeep diff` shows.

There are few on purpose. No default is filled in and no file name mended: what ComfyUI would refuse shall still be
refused. Values are not cast either: ComfyUI's validation does that itself, and only to nodes that it validates, so a
cast of ours could change what a node computes. (Pins carry cast values, see `chains.py`.)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from normalizer.schema import NodeClass
from normalizer.workflow import is_link


@dataclass(frozen=True, slots=True)
class Rule:
    """A kind of change and why it is made."""

    name: str
    reason: str


STABLE_ID = Rule(
    "stable-id", "ComfyUI keeps a node's instance by its id: one id for one model keeps it across workflows and clients"
)
UNDECLARED_KEYS = Rule(
    "undeclared-keys", "the class never sees these inputs, but ComfyUI counts them when it looks for a cached output"
)
PIN = Rule("pin", "a loader chain wired to nothing does not run, but keeps what it made in ComfyUI's cache")
SHARED_LOADER = Rule(
    "shared-loader", "the shared loader makes the same models and keeps them by key, whatever ComfyUI's cache does"
)

CORE_V1_CLASSES = frozenset(
    {
        "CLIPLoader",
        "CLIPSetLastLayer",
        "CLIPVisionLoader",
        "CheckpointLoader",
        "CheckpointLoaderSimple",
        "ControlNetLoader",
        "DiffControlNetLoader",
        "DiffusersLoader",
        "DualCLIPLoader",
        "GLIGENLoader",
        "LoraLoader",
        "LoraLoaderModelOnly",
        "StyleModelLoader",
        "UNETLoader",
        "VAELoader",
        "unCLIPCheckpointLoader",
    }
)
"""Classes of ComfyUI's own `nodes.py` whose functions take exactly what they declare.

A list and not only `python_module == "nodes"`, because a custom pack that writes into ComfyUI's class table directly
shows that module too, and its nodes may read undeclared inputs (rgthree's Power Lora Loader lives by it).
"""


@dataclass(frozen=True, slots=True)
class DroppedKey:
    """An input that was taken out: its place among the node's inputs, its name and value."""

    place: int
    name: str
    value: Any


def undeclared_keys(cls: NodeClass, inputs: Mapping[str, Any]) -> tuple[DroppedKey, ...]:
    """Find the inputs that only spoil the cache key: undeclared, not linked, on a core V1 class."""
    if cls.name not in CORE_V1_CLASSES or cls.module != "nodes" or inputs.keys() <= cls.declared:
        return ()
    return tuple(
        DroppedKey(place, name, value)
        for place, (name, value) in enumerate(inputs.items())
        if name not in cls.declared and not is_link(value)
    )
