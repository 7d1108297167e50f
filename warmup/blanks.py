"""Small blank pictures, sounds and videos in place of those that people have uploaded.

What was uploaded for one run may be large, and is gone some day; a warm-up needs only something of its type.
"""

from collections.abc import Collection, Mapping
from typing import Any

from normalizer import NodeClass, Schema
from warmup.catalogue import widgets
from warmup.graph import free_id, links
from warmup.sizes import IMAGE_SIDE

_SIZE = {"width": IMAGE_SIDE, "height": IMAGE_SIDE}
_PICTURE = {"class_type": "EmptyImage", "inputs": {**_SIZE, "batch_size": 1, "color": 0}}
_MASK = {"class_type": "SolidMask", "inputs": {"value": 1.0, **_SIZE}}
_SOUND = {"class_type": "EmptyAudio", "inputs": {"duration": 1.0, "sample_rate": 44100, "channels": 2}}
"""A second: what encodes sound takes its windows from it."""
_NEEDED = {
    "IMAGE": ("EmptyImage",),
    "MASK": ("SolidMask",),
    "AUDIO": ("EmptyAudio",),
    "VIDEO": ("CreateVideo", "EmptyImage", "EmptyAudio"),
}
"""What blanks can be made of, and the classes that it takes."""


def blank_uploads(nodes: dict[str, Any], schema: Schema, fixed: Collection[str]) -> None:
    """Put a small blank in place of everything uploaded, except where the id of the node is among `fixed`."""
    for node_id, node in list(nodes.items()):
        cls = schema.classes[node["class_type"]]
        if node_id in fixed or not _loads_upload(schema, cls):
            continue
        made: dict[int, str] = {}
        for other in list(nodes.values()):
            for link in links(other["inputs"]):
                slot = int(link.slot)
                if link.source == node_id and slot < len(cls.outputs):
                    if slot not in made:
                        made[slot] = _add_blank(nodes, cls.outputs[slot], f"warmup-blank-{node_id}-{slot}")
                    other["inputs"][link.input] = [made[slot], 0]
        if not cls.output_node:
            del nodes[node_id]


def _loads_upload(schema: Schema, cls: NodeClass) -> bool:
    return (
        cls.core
        and bool(cls.outputs)
        and all(type_ in _NEEDED and all(name in schema for name in _NEEDED[type_]) for type_ in cls.outputs)
        and any(widget.upload for widget in widgets(schema, cls.name).values())
    )


def _add_blank(nodes: dict[str, Any], type_: str, wanted: str) -> str:
    """Add what makes a blank of this type; the id of the node whose first output it is."""
    if type_ == "VIDEO":
        picture, sound = _add_blank(nodes, "IMAGE", f"{wanted}-frame"), _add_blank(nodes, "AUDIO", f"{wanted}-sound")
        node: Mapping[str, Any] = {
            "class_type": "CreateVideo",
            "inputs": {"images": [picture, 0], "audio": [sound, 0], "fps": 24.0},
        }
    else:
        node = {"IMAGE": _PICTURE, "MASK": _MASK, "AUDIO": _SOUND}[type_]
    node_id = free_id(nodes, wanted)
    nodes[node_id] = {**node, "inputs": dict(node["inputs"])}
    return node_id
