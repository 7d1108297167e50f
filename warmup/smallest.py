"""A workflow in its smallest form: what still brings its models to where they are used, and nothing more.

What costs time in a workflow is steps times pixels times frames times batch; what brings a model into VRAM is one step
on the smallest canvas. So steps become one, canvases the smallest their class allows, uploaded pictures a small blank
one, and whatever shows or saves something is exchanged for a preview of what it was given, so that nothing lands in the
output folder. Loaders and the nodes that turn models into models stay as they are: a changed value would make another
cache entry. What the entry itself sets stays as well: the way out for a workflow that does not work when it is small.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from normalizer import NodeClass, Role, Schema
from warmup.catalogue import Widget, widgets
from warmup.faults import BadEntry, Complaint
from warmup.graph import free_id, links, upstream

STEPS = frozenset({"steps", "num_steps", "num_inference_steps", "inference_steps", "sampling_steps"})
SIDES = frozenset(
    {"width", "height", "target_width", "target_height", "longer_size", "shorter_size", "longer_edge", "shorter_edge"}
)
COUNTS = frozenset(
    {"batch_size", "length", "num_frames", "frames_number", "video_frames", "frames", "amount", "seconds", "duration"}
)
CANVAS_TYPES = frozenset({"LATENT", "IMAGE", "MASK", "VIDEO", "AUDIO", "NOISE", "COMFY_MATCHTYPE_V3"})
"""A class that makes one of these decides how much there is to compute. (The last is what it is given, resized.)"""
LATENT_SIDE = 16
"""Pixels: two latents of the common factor of 8. Classes for coarser latents say so in their own minimum."""
IMAGE_SIDE = 64
"""Pixels: two latents even of a VAE with a factor of 32, which a picture of 16 would leave without any."""
FLOW_TYPE = "FLOW_CONTROL"
"""The socket by which loop nodes of custom packs are told."""
PREVIEW = "PreviewAny"


def smallest(workflow: Mapping[str, Any], schema: Schema, fixed: Mapping[str, Collection[str]]) -> dict[str, Any]:
    """Make the smallest legal form of a workflow; `fixed` names, by node id, the inputs to leave alone.

    All its classes must be known (`refuse_unknown`).

    Raises:
        BadEntry: key `prompt`; a node calls a paid service or loops, or nothing would be left to run.
    """
    nodes = {node_id: {**node, "inputs": dict(node["inputs"])} for node_id, node in workflow.items()}
    _blank_uploads(nodes, schema, fixed)
    sinks = _take_out_outputs(nodes, schema)
    kept = {node_id: nodes[node_id] for node_id in upstream(nodes, {source for source, _ in sinks})}
    _refuse_dangerous(kept, schema)
    split = any(_splits_sigmas(schema, node["class_type"]) for node in kept.values())
    for node_id, node in kept.items():
        _shrink(node, schema, frozenset(fixed.get(node_id, ())), steps=2 if split else 1)
    return kept | previews(kept, schema, sinks)


def previews(nodes: Mapping[str, Any], schema: Schema, sinks: Collection[tuple[str, int]]) -> dict[str, Any]:
    """Nodes that look at these outputs, so that ComfyUI computes them, and write no file that stays.

    Raises:
        BadEntry: key `prompt`; this ComfyUI has no class that could.
    """
    made: dict[str, Any] = {}
    for number, (source, slot) in enumerate(sorted(sinks), start=1):
        cls = schema.get(nodes[source]["class_type"])
        type_ = cls.outputs[slot] if cls is not None and slot < len(cls.outputs) else "*"
        if PREVIEW in schema:
            node = {"class_type": PREVIEW, "inputs": {"source": [source, slot]}}
        elif type_ == "IMAGE" and "PreviewImage" in schema:
            node = {"class_type": "PreviewImage", "inputs": {"images": [source, slot]}}
        else:
            raise _bad(f"this ComfyUI has no {PREVIEW} to end a warm-up of {type_} with", "update ComfyUI")
        made[free_id(nodes, f"warmup-preview-{number}")] = node
    return made


def _bad(problem: str, remedy: str) -> BadEntry:
    return BadEntry(Complaint("prompt", problem, remedy))


def refuse_unknown(workflow: Mapping[str, Any], schema: Schema) -> None:
    """Check that every class of a workflow is there: ComfyUI refuses a prompt for one that is not, used or unused.

    Raises:
        BadEntry: key `prompt`; with each class that is not.
    """
    unknown = [
        Complaint(
            "prompt",
            f"node {node_id} is of class {node['class_type']!r}, which this ComfyUI does not have",
            "install its node pack or take the node out of the workflow",
        )
        for node_id, node in workflow.items()
        if node["class_type"] not in schema
    ]
    if unknown:
        raise BadEntry(*unknown)


def _refuse_dangerous(nodes: Mapping[str, Any], schema: Schema) -> None:
    instead = 'warm its models with to = "ram" or with loader entries'
    found = []
    for node_id, node in nodes.items():
        cls = _class(schema, node)
        if cls.api_node:
            found.append(Complaint("prompt", f"node {node_id} ({cls.name}) calls a paid service", instead))
        if FLOW_TYPE in cls.outputs or any(spec.type == FLOW_TYPE for spec in cls.inputs.values()):
            found.append(Complaint("prompt", f"node {node_id} ({cls.name}) is part of a loop", instead))
    if found:
        raise BadEntry(*found)


def _class(schema: Schema, node: Mapping[str, Any]) -> NodeClass:
    return schema.classes[node["class_type"]]


def _take_out_outputs(nodes: dict[str, Any], schema: Schema) -> set[tuple[str, int]]:
    """Remove what shows or saves, and give what it was given: the outputs to look at instead."""
    outputs = {node_id for node_id, node in nodes.items() if _class(schema, node).output_node}
    for node_id, node in nodes.items():
        for link in links(node["inputs"]) if node_id not in outputs else ():
            if link.source in outputs:
                node["inputs"][link.input] = _before(nodes, schema, outputs, node_id, (link.source, int(link.slot)))
    sinks = {
        (link.source, int(link.slot))
        for node_id in outputs
        for link in links(nodes[node_id]["inputs"])
        if link.source not in outputs
    }
    for node_id in outputs:
        del nodes[node_id]
    if not sinks:
        raise _bad(
            "nothing in it is shown or saved, so ComfyUI would run nothing", "end it with a preview or save node"
        )
    return sinks


def _before(
    nodes: Mapping[str, Any], schema: Schema, outputs: Collection[str], consumer: str, output: tuple[str, int]
) -> list[Any]:
    """What stands for an output of a node that also shows or saves: the one thing of that type that it was given."""
    passed: set[str] = set()
    while output[0] in outputs:
        node_id, slot = output
        cls = _class(schema, nodes[node_id])
        type_ = cls.outputs[slot] if slot < len(cls.outputs) else None
        same = [link for link in links(nodes[node_id]["inputs"]) if _input_type(cls, link.input) in (type_, "*")]
        if len(same) != 1 or node_id in passed:
            raise _bad(
                f"node {node_id} ({cls.name}) shows or saves something and node {consumer} needs its output {slot}",
                "take it out of the copy of the workflow that is used for warming up",
            )
        passed.add(node_id)
        output = same[0].source, int(same[0].slot)
    return list(output)


def _input_type(cls: NodeClass, name: str) -> str | None:
    spec = cls.inputs.get(name)
    return spec.type if spec else None


def _blank_uploads(nodes: dict[str, Any], schema: Schema, fixed: Mapping[str, Collection[str]]) -> None:
    """Put a small blank picture and mask in place of each uploaded one, unless the entry names the file."""
    for node_id, node in list(nodes.items()):
        cls = _class(schema, node)
        if node_id in fixed or not _loads_picture(schema, cls):
            continue
        made: dict[int, str] = {}
        for other in nodes.values():
            for link in links(other["inputs"]):
                if link.source == node_id and int(link.slot) < len(cls.outputs):
                    blank = made.setdefault(int(link.slot), free_id(nodes, f"warmup-blank-{node_id}-{link.slot}"))
                    other["inputs"][link.input] = [blank, 0]
        nodes.update({blank: _blank(cls.outputs[slot]) for slot, blank in made.items()})
        if not cls.output_node:
            del nodes[node_id]


def _loads_picture(schema: Schema, cls: NodeClass) -> bool:
    return (
        cls.core
        and bool(cls.outputs)
        and set(cls.outputs) <= {"IMAGE", "MASK"}
        and "EmptyImage" in schema
        and "SolidMask" in schema
        and any(widget.upload for widget in widgets(schema, cls.name).values())
    )


def _blank(type_: str) -> dict[str, Any]:
    size = {"width": IMAGE_SIDE, "height": IMAGE_SIDE}
    if type_ == "MASK":
        return {"class_type": "SolidMask", "inputs": {"value": 1.0, **size}}
    return {"class_type": "EmptyImage", "inputs": {**size, "batch_size": 1, "color": 0}}


def _splits_sigmas(schema: Schema, class_type: str) -> bool:
    """A schedule that is cut in two needs two steps, or one of the two models that share it would not run."""
    cls = schema.get(class_type)
    return cls is not None and cls.outputs.count("SIGMAS") > 1


def _shrink(node: dict[str, Any], schema: Schema, fixed: Collection[str], *, steps: int) -> None:
    cls = _class(schema, node)
    if cls.role is not Role.NEITHER:
        return
    for name, small in _small_values(cls, widgets(schema, cls.name), steps):
        if name in node["inputs"] and name not in fixed:
            node["inputs"][name] = _smaller(node["inputs"][name], small)


def _small_values(cls: NodeClass, known: Mapping[str, Widget], steps: int) -> Iterator[tuple[str, int | float]]:
    canvas = CANVAS_TYPES.intersection(cls.outputs)
    side = LATENT_SIDE if "LATENT" in canvas else IMAGE_SIDE
    for name, widget in known.items():
        last = name.rpartition(".")[2]
        if widget.type == "INT" and last in STEPS:
            yield name, widget.at_least(steps)
        elif widget.type == "INT" and last == "start_at_step":
            yield name, widget.at_least(0)
        elif widget.type == "INT" and last == "step" and "SIGMAS" in cls.outputs:
            yield name, widget.at_least(1)
        elif canvas and widget.type == "INT" and last in SIDES:
            floor = side if widget.least else IMAGE_SIDE
            yield name, widget.at_least(floor)
        elif canvas and widget.type in ("INT", "FLOAT") and last in COUNTS:
            yield name, widget.at_least(widget.least or 1)
        elif canvas and widget.type == "FLOAT" and last == "megapixels":
            yield name, widget.at_least(0.01)


def _smaller(value: Any, small: float) -> Any:
    """The small value, also in place of a link to a number; a value that is smaller already stays."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return small
    return min(value, small)
