"""Submissions that are known to kill ComfyUI, found before they reach it.

ComfyUI answers 200 to some prompts that then end its worker thread for good while its HTTP lives on, or the process:
what its validation does not look at, its worker trusts. One such prompt stops everybody's queue, so it is refused with
a 400 that says what to change. What ComfyUI refuses by itself, or answers with a harmless 500, is not looked for.
All of this was tried against 0.33.0 and 0.3.64; where only one of them dies, that one is named.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from normalizer.chains import reach
from normalizer.schema import Schema
from normalizer.workflow import Node, is_link, read_graph

MAX_DEPTH = 480
"""Levels of nesting in a submission up to which the worker can copy and hash it (it died at 490)."""

MAX_ROW = 960
"""Nodes linked in a row up to which the worker can walk them (it died at 980)."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that would kill ComfyUI: at which node (None for the submission as a whole), what, and what to do."""

    node_id: str | None
    what: str
    remedy: str


def fatal_faults(body: Mapping[str, Any], schema: Schema | None = None) -> list[Fault]:
    """Find what in the body of a `POST /prompt` is known to kill ComfyUI; links are judged only with a schema."""
    faults = [*_envelope(body), *_depth(body)]
    prompt = body.get("prompt")
    if isinstance(prompt, Mapping) and all(
        isinstance(node, Mapping) and "class_type" in node for node in prompt.values()
    ):
        faults += _inputs(prompt)
        if not faults:
            nodes = read_graph(prompt).nodes
            faults += _row(nodes)
            if schema is not None:
                faults += _unseen_links(nodes, schema)
    return faults


def _envelope(body: Mapping[str, Any]) -> Iterator[Fault]:
    """The parts around the prompt: 0.3.64 trusts `extra_data` to be an object, both hash the client id."""
    extra_data = body.get("extra_data", {})
    if not isinstance(extra_data, Mapping):
        yield Fault(None, "extra_data is not an object", "send an object, or leave extra_data out")
        extra_data = {}
    for place, holder in (("client_id", body), ("extra_data.client_id", extra_data)):
        if isinstance(holder.get("client_id"), (list, dict)):
            yield Fault(None, f"{place} is not a string", "send the id of your WebSocket as a string, or leave it out")


def _depth(body: Mapping[str, Any]) -> Iterator[Fault]:
    """What is nested too deep: the worker copies the whole submission recursively."""
    level: list[Any] = [body]
    for _ in range(MAX_DEPTH + 1):
        level = [
            part
            for item in level
            for part in (item.values() if isinstance(item, dict) else item)
            if isinstance(part, (dict, list))
        ]
        if not level:
            return
    yield Fault(None, f"the submission is nested deeper than {MAX_DEPTH} levels", "flatten the values you send")


def _inputs(prompt: Mapping[str, Any]) -> Iterator[Fault]:
    """Nodes without inputs: validation never looks at a node that is wired to nothing, the worker does."""
    for node_id, node in prompt.items():
        if "inputs" not in node:
            yield Fault(node_id, "the node has no inputs", 'give it "inputs": {}, even if it is wired to nothing')
        elif not isinstance(node["inputs"], Mapping):
            yield Fault(node_id, "the node's inputs are not an object", "send an object of input names and values")


def _row(nodes: Mapping[str, Node]) -> Iterator[Fault]:
    """Too many nodes in a row: the worker follows links recursively (but a cycle only once round)."""
    if len(nodes) <= MAX_ROW:
        return
    sources = {node_id: {link.source for link in node.links} & nodes.keys() for node_id, node in nodes.items()}
    consumers: dict[str, list[str]] = {}
    for node_id, found in sources.items():
        for source in found:
            consumers.setdefault(source, []).append(node_id)
    waiting = {node_id: len(found) for node_id, found in sources.items()}
    row = [node_id for node_id, count in waiting.items() if not count]
    for _ in range(MAX_ROW):
        reached: list[str] = []
        for consumer in (consumer for node_id in row for consumer in consumers.get(node_id, ())):
            waiting[consumer] -= 1
            if not waiting[consumer]:
                reached.append(consumer)
        row = reached
    if row:
        yield Fault(row[0], f"more than {MAX_ROW} nodes are linked in a row", "split the workflow")


def _unseen_links(nodes: Mapping[str, Node], schema: Schema) -> Iterator[Fault]:
    """Links that validation does not look at but the worker follows.

    Validation walks declared inputs only. A link in an undeclared one, or in any input of a node that is reached only
    through such a link, or one that appears when `{"__value__": [id, slot]}` is unwrapped, goes unchecked: to a missing
    node, it kills; to a slot that its class does not have, it kills 0.33 if the node is cached.
    """
    if any(node.class_type not in schema for node in nodes.values()):
        return  # ComfyUI refuses the whole prompt
    reached = reach(nodes, schema)
    for node_id in reached.executed:
        node = nodes.get(node_id)
        if node is None:
            continue
        cls = schema.classes[node.class_type]
        for name, value in node.inputs.items():
            hidden = value
            if node_id in reached.validated and name in cls.inputs:
                hidden = value.get("__value__") if isinstance(value, dict) else None
            if is_link(hidden) and (what := _broken(hidden, nodes, schema)):
                yield Fault(node_id, f'its input "{name}" is linked to {what}', "link it to a node that is there")


def _broken(link: list[Any], nodes: Mapping[str, Node], schema: Schema) -> str:
    source, slot = link
    if source not in nodes:
        return f'node "{source}", which is not in the prompt'
    outputs = len(schema.classes[nodes[source].class_type].outputs)
    if not isinstance(slot, int) or not -outputs <= slot < outputs:
        return f'output {slot} of node "{source}", which has {outputs}'
    return ""
