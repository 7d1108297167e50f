"""A workflow in its smallest form: what still brings its models to where they are used, and nothing more.

What brings a model into VRAM is one step on the smallest canvas. So steps become one, canvases the smallest their class
allows (`sizes`), what was uploaded a small blank (`blanks`), and whatever shows or saves something is exchanged for a
preview of what it was given, so that nothing lands in the output folder. Loaders and the nodes that turn models into
models stay as they are: a changed value would make another cache entry. What the entry itself sets stays as well: the
way out for a workflow that does not work when it is small.
"""

from collections.abc import Collection, Mapping
from typing import Any

from normalizer import NodeClass, Role, Schema
from normalizer.workflow import Link
from warmup.blanks import blank_uploads
from warmup.faults import BadEntry, Complaint
from warmup.graph import free_id, links, upstream
from warmup.sizes import small_inputs

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
    blank_uploads(nodes, schema, fixed.keys())
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
    used = {link.source for node in nodes.values() for link in links(node["inputs"])}
    outputs = {
        node_id
        for node_id, node in nodes.items()
        # A preview in the middle writes nothing, and what it passes on is a text whatever it was given.
        if _class(schema, node).output_node and not (node["class_type"] == PREVIEW and node_id in used)
    }
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
        same = [link for link in links(nodes[node_id]["inputs"]) if type_ in _types(nodes, schema, cls, link)]
        if len(same) != 1 or node_id in passed:
            raise _bad(
                f"node {node_id} ({cls.name}) shows or saves something and node {consumer} needs its output {slot}",
                "take it out of the copy of the workflow that is used for warming up",
            )
        passed.add(node_id)
        output = same[0].source, int(same[0].slot)
    return list(output)


def _types(nodes: Mapping[str, Any], schema: Schema, cls: NodeClass, link: Link) -> tuple[str, ...]:
    """The type that an input takes; of one that takes anything, also the type of what it is given."""
    spec = cls.inputs.get(link.input)
    if spec is None or spec.type != "*":
        return (spec.type,) if spec else ()
    made = _class(schema, nodes[link.source]).outputs
    return ("*", made[int(link.slot)]) if int(link.slot) < len(made) else ("*",)


def _splits_sigmas(schema: Schema, class_type: str) -> bool:
    """A schedule that is cut in two needs two steps, or one of the two models that share it would not run."""
    cls = schema.get(class_type)
    return cls is not None and cls.outputs.count("SIGMAS") > 1


def _shrink(node: dict[str, Any], schema: Schema, fixed: Collection[str], *, steps: int) -> None:
    if _class(schema, node).role is Role.NEITHER:
        small = small_inputs(node, schema, steps=steps)
        node["inputs"] |= {name: value for name, value in small.items() if name not in fixed}
