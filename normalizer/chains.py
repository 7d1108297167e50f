"""Which nodes of a prompt make up its loader chains, and what each chain is.

A class may be a loader by its schema and a node of it still no chain node: its file may come from another node, its
model from a switch. So membership is decided per node: a chain node's links, declared or not, all come from chain
nodes, down to loaders that have none. A node whose links or values look odd is left out, with all behind it.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from normalizer.identity import as_validated, signature, stable_key, telling_values
from normalizer.inputs import MODEL_FILE
from normalizer.models import ModelRef, ModelSet
from normalizer.rules import DroppedKey, undeclared_keys
from normalizer.schema import NodeClass, Role, Schema
from normalizer.workflow import Node, is_link

PIN_META = {"title": "kept loaded by comfykeep"}
_NO_FILE = frozenset({"", "none", "default"})
_NOTHING = object()
_NESTING = 4  # levels of an undeclared value that are searched for file names; known packs use two


class Member(NamedTuple):
    """One chain node of a prompt.

    `key` is its stable id (ordinal 0), `values` its inputs without links as ComfyUI keys them, `dropped` what is taken
    out of them; `anchored` says that it is a loader or comes from one.
    """

    node: Node
    cls: NodeClass
    key: str
    signature: str
    values: dict[str, Any]
    dropped: tuple[DroppedKey, ...]
    anchored: bool


@dataclass(frozen=True)
class Chain:
    """A loader with the nodes behind it, ready to be carried along by any prompt.

    `key` is the stable id of its tip, the same for variants that differ only in numbers; `signature` is exact; `nodes`
    are its nodes by stable id, upstream first, as JSON for a prompt; `models` the files that it holds.
    """

    key: str
    signature: str
    nodes: Mapping[str, dict[str, Any]]
    models: ModelSet


@dataclass(frozen=True, slots=True)
class Reach:
    """What an upstream walk from the output nodes finds: `executed` over all links, `validated` over declared ones."""

    executed: frozenset[str]
    validated: frozenset[str]


def reach(nodes: Mapping[str, Node], schema: Schema) -> Reach:
    """Find the nodes that run, and among them those whose values ComfyUI's validation casts."""
    outputs = []
    hidden = False
    declared: dict[str, list[str]] = {}
    for node_id, node in nodes.items():
        cls = schema.classes.get(node.class_type)
        if cls is None:
            declared[node_id] = [link.source for link in node.links]
            continue
        if cls.output_node:
            outputs.append(node_id)
        declared[node_id] = [link.source for link in node.links if link.input in cls.inputs]
        hidden = hidden or len(declared[node_id]) < len(node.links)
    validated = _upstream(outputs, declared)
    if not hidden:
        return Reach(validated, validated)
    every = {node_id: [link.source for link in node.links] for node_id, node in nodes.items()}
    return Reach(_upstream(outputs, every), validated)


def _upstream(outputs: Iterable[str], sources: Mapping[str, list[str]]) -> frozenset[str]:
    seen = set(outputs)
    stack = list(seen)
    while stack:
        for source in sources.get(stack.pop(), ()):
            if source not in seen:
                seen.add(source)
                stack.append(source)
    return frozenset(seen)


def find_members(
    nodes: Mapping[str, Node], schema: Schema, validated: frozenset[str], *, drop: bool
) -> dict[str, Member]:
    """Find the chain nodes, each after those it is linked to; with `drop`, without their undeclared keys."""
    candidates = {
        node_id: cls
        for node_id, node in nodes.items()
        if (cls := schema.classes.get(node.class_type)) is not None
        and cls.role is not Role.NEITHER
        and not cls.keeps_id
    }
    waiting: dict[str, int] = {}
    consumers: dict[str, list[str]] = {}
    for node_id in candidates:
        found = nodes[node_id].links
        if all(link.source in candidates and type(link.slot) is int for link in found):
            sources = {link.source for link in found}
            waiting[node_id] = len(sources)
            for source in sources:
                consumers.setdefault(source, []).append(node_id)
    members: dict[str, Member] = {}
    ready = deque(node_id for node_id, count in waiting.items() if not count)
    while ready:
        node_id = ready.popleft()
        member = _member(nodes[node_id], candidates[node_id], members, validated=node_id in validated, drop=drop)
        if member is not None:
            members[node_id] = member
            for consumer in consumers.get(node_id, ()):
                waiting[consumer] -= 1
                if not waiting[consumer]:
                    ready.append(consumer)
    return _behind_loaders(members)


def _member(node: Node, cls: NodeClass, members: Mapping[str, Member], *, validated: bool, drop: bool) -> Member | None:
    dropped = undeclared_keys(cls, node.inputs) if drop else ()
    given = node.inputs
    if node.links or dropped:
        gone = {link.input for link in node.links}.union(item.name for item in dropped)
        given = {name: value for name, value in given.items() if name not in gone}
    cast = as_validated(cls, given)
    if cast is not given and any(is_link(value) for value in cast.values()):
        return None
    values = cast if validated else given
    upstream = [(link, members[link.source]) for link in node.links]
    changed = [node.raw["is_changed"]] if "is_changed" in node.raw else []
    try:
        telling = telling_values(cls, cast)
        key = stable_key(cls.name, telling, [(link, source.key) for link, source in upstream])
        rest = {name: value for name, value in values.items() if telling.get(name, _NOTHING) is not value}
        exact = signature(key, rest, [(link, source.signature) for link, source in upstream], changed)
    except RecursionError:
        return None
    anchored = cls.role is Role.LOADER or any(source.anchored for _, source in upstream)
    return Member(node, cls, key, exact, values, dropped, anchored)


def _behind_loaders(members: dict[str, Member]) -> dict[str, Member]:
    """Keep what comes from a loader, and what feeds such a node (its settings); both ends stay in order."""
    kept: set[str] = set()
    for node_id in reversed(members):
        if members[node_id].anchored or node_id in kept:
            kept.add(node_id)
            kept.update(link.source for link in members[node_id].node.links)
    return {node_id: member for node_id, member in members.items() if node_id in kept}


def chains_of(
    members: Mapping[str, Member],
    ids: Mapping[str, str],
    records: Mapping[str, dict[str, Any]],
    refs: Mapping[str, ModelRef],
) -> tuple[Chain, ...]:
    """Give the chains among chain nodes that run: one for each last node, of equal ones up to numbers the first.

    `ids` maps the client's ids to stable ones, `records` these to nodes; a chain with a node that has no stable id is
    left out. `refs` are the components that nodes bring in, by the client's ids.
    """
    inner = {link.source for member in members.values() for link in member.node.links}
    order = {node_id: place for place, node_id in enumerate(members)}
    tips: dict[str, str] = {}
    for node_id, member in members.items():
        if node_id not in inner and member.anchored and member.cls.pinnable:
            other = tips.get(member.key)
            if other is None or ids.get(node_id, "~") < ids.get(other, "~"):
                tips[member.key] = node_id
    chains = []
    for key, tip in tips.items():
        parts = sorted(_with_upstream(tip, members), key=order.__getitem__)
        if all(node_id in ids for node_id in parts):
            nodes = {ids[node_id]: records[ids[node_id]] for node_id in parts}
            models = frozenset(refs[node_id] for node_id in parts if node_id in refs)
            chains.append(Chain(key, members[tip].signature, nodes, models))
    return tuple(chains)


def _with_upstream(tip: str, members: Mapping[str, Member]) -> set[str]:
    parts = {tip}
    stack = [tip]
    while stack:
        for link in members[stack.pop()].node.links:
            if link.source not in parts:
                parts.add(link.source)
                stack.append(link.source)
    return parts


def record(member: Member, ids: Mapping[str, str]) -> dict[str, Any]:
    """Make the node as a pin carries it: values as the executed node had them, links to stable ids."""
    links_of = {link.input: [ids.get(link.source, link.source), link.slot] for link in member.node.links}
    inputs = {
        name: links_of[name] if name in links_of else member.values[name]
        for name in member.node.inputs
        if name in links_of or name in member.values
    }
    made: dict[str, Any] = {"class_type": member.cls.name, "inputs": inputs, "_meta": PIN_META}
    if "is_changed" in member.node.raw:
        made["is_changed"] = member.node.raw["is_changed"]
    return made


def model_ref(cls: NodeClass, inputs: Mapping[str, Any]) -> ModelRef | None:
    """Name the component that a node brings in, or None if it brings in none (model sampling, compile)."""
    files: list[str] = []
    for name, spec in cls.inputs.items():
        value = inputs.get(name)
        if isinstance(value, str) and (spec.names_file or MODEL_FILE.search(value)) and value.lower() not in _NO_FILE:
            files.append(value)
    for name, value in inputs.items():
        if name not in cls.inputs:
            files.extend(_files_in(value, _NESTING))
    if not files and cls.role is not Role.LOADER:
        return None
    return ModelRef(cls.name, tuple(files) or tuple(_names(cls, inputs)))


def _names(cls: NodeClass, inputs: Mapping[str, Any]) -> Iterable[str]:
    """Fall back on everything that tells a loader's models apart, where no input looks like a file."""
    return (value for value in telling_values(cls, inputs).values() if isinstance(value, str) and not is_link(value))


def _files_in(value: Any, levels: int) -> Iterator[str]:
    """Find file names in undeclared values; `{"on": false, …}` is how a switched-off LoRA is written there."""
    if isinstance(value, str):
        if MODEL_FILE.search(value):
            yield value
    elif levels and isinstance(value, dict):
        if value.get("on") is not False:
            for item in value.values():
                yield from _files_in(item, levels - 1)
    elif levels and isinstance(value, list) and not is_link(value):
        for item in value:
            yield from _files_in(item, levels - 1)
