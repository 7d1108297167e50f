"""Which nodes of a prompt make up its loader chains, and what each chain is.

A class may be a loader by its schema and a node of it still no chain node: its file may come from another node, its
model from a switch. So membership is decided per node: a chain node's links, declared or not, all come from chain
nodes, down to loaders that have none. A node whose links or values look odd is left out, with all behind it.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from normalizer.identity import as_validated, signature, stable_key, telling_values
from normalizer.inputs import MODEL_FILE
from normalizer.models import ModelRef, ModelSet
from normalizer.rules import DroppedKey, undeclared_keys
from normalizer.schema import NodeClass, Role, Schema
from normalizer.workflow import Link, Node, is_link, links

PIN_META = {"title": "kept loaded by comfykeep"}
_NO_FILE = frozenset({"", "none", "default"})


@dataclass(frozen=True, slots=True)
class Member:
    """One chain node of a prompt: its links, its stable id (ordinal 0), its exact signature, what it would drop."""

    node: Node
    cls: NodeClass
    links: tuple[Link, ...]
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
    declared: dict[str, list[str]] = {}
    every: dict[str, list[str]] = {}
    outputs = []
    for node_id, node in nodes.items():
        cls = schema.get(node.class_type)
        if cls is not None and cls.output_node:
            outputs.append(node_id)
        all_links = list(links(node.inputs))
        every[node_id] = [link.source for link in all_links]
        if cls is None or all(link.input in cls.inputs for link in all_links):
            declared[node_id] = every[node_id]
        else:
            declared[node_id] = [link.source for link in all_links if link.input in cls.inputs]
    validated = _upstream(outputs, declared)
    same = all(len(declared[node_id]) == len(every[node_id]) for node_id in validated if node_id in every)
    return Reach(validated if same else _upstream(outputs, every), validated)


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
    candidates = dict(_candidates(nodes, schema))
    waiting: dict[str, int] = {}
    consumers: dict[str, list[str]] = {}
    for node_id, (_, found) in candidates.items():
        if all(link.source in candidates and type(link.slot) is int for link in found):
            sources = {link.source for link in found}
            waiting[node_id] = len(sources)
            for source in sources:
                consumers.setdefault(source, []).append(node_id)
    members: dict[str, Member] = {}
    ready = deque(node_id for node_id, count in waiting.items() if not count)
    while ready:
        node_id = ready.popleft()
        cls, found = candidates[node_id]
        member = _member(nodes[node_id], cls, found, members, validated=node_id in validated, drop=drop)
        if member is not None:
            members[node_id] = member
            for consumer in consumers.get(node_id, ()):
                waiting[consumer] -= 1
                if not waiting[consumer]:
                    ready.append(consumer)
    return _behind_loaders(members)


def _candidates(nodes: Mapping[str, Node], schema: Schema) -> Iterator[tuple[str, tuple[NodeClass, tuple[Link, ...]]]]:
    """Yield the nodes whose class may be part of a chain."""
    for node_id, node in nodes.items():
        cls = schema.get(node.class_type)
        if cls is not None and cls.role is not Role.NEITHER and not cls.keeps_id:
            yield node_id, (cls, tuple(links(node.inputs)))


def _member(
    node: Node, cls: NodeClass, found: tuple[Link, ...], members: Mapping[str, Member], *, validated: bool, drop: bool
) -> Member | None:
    dropped = undeclared_keys(cls, node.inputs) if drop else ()
    gone = {item.name for item in dropped} | {link.input for link in found}
    given = {name: value for name, value in node.inputs.items() if name not in gone}
    cast = {name: as_validated(cls.inputs.get(name), value) for name, value in given.items()}
    if any(is_link(value) for value in cast.values()):
        return None
    values = cast if validated else given
    upstream = [(link, members[link.source]) for link in found]
    try:
        key = stable_key(cls.name, telling_values(cls, cast), [(link, source.key) for link, source in upstream])
        given_change = [node.raw["is_changed"]] if "is_changed" in node.raw else []
        exact = signature(cls.name, values, [(link, source.signature) for link, source in upstream], given_change)
    except RecursionError:
        return None
    anchored = cls.role is Role.LOADER or any(source.anchored for _, source in upstream)
    return Member(node, cls, found, key, exact, values, dropped, anchored)


def _behind_loaders(members: dict[str, Member]) -> dict[str, Member]:
    """Keep what comes from a loader, and what feeds such a node (its settings); both ends stay in order."""
    kept: set[str] = set()
    for node_id in reversed(members):
        if members[node_id].anchored or node_id in kept:
            kept.add(node_id)
            kept.update(link.source for link in members[node_id].links)
    return {node_id: member for node_id, member in members.items() if node_id in kept}


def chains_of(members: Mapping[str, Member], ids: Mapping[str, str], executed: frozenset[str]) -> tuple[Chain, ...]:
    """Give the chains among the chain nodes that run: one for each last node, of equal ones up to numbers the first.

    `ids` maps the client's ids to stable ones; a chain with a node that has none is left out.
    """
    running = {node_id: member for node_id, member in members.items() if node_id in executed}
    inner = {link.source for member in running.values() for link in member.links}
    records: dict[str, dict[str, Any]] = {}
    tips: dict[str, str] = {}
    order = {node_id: place for place, node_id in enumerate(members)}
    for node_id, member in running.items():
        if node_id not in inner and member.anchored and member.cls.pinnable:
            other = tips.get(member.key)
            if other is None or ids.get(node_id, "~") < ids.get(other, "~"):
                tips[member.key] = node_id
    return tuple(
        chain for key, tip in tips.items() if (chain := _chain(key, tip, members, ids, records, order)) is not None
    )


def _chain(
    key: str,
    tip: str,
    members: Mapping[str, Member],
    ids: Mapping[str, str],
    records: dict[str, dict[str, Any]],
    order: Mapping[str, int],
) -> Chain | None:
    parts = {tip}
    stack = [tip]
    while stack:
        for link in members[stack.pop()].links:
            if link.source not in parts:
                parts.add(link.source)
                stack.append(link.source)
    if not parts <= ids.keys():
        return None
    ordered = sorted(parts, key=order.__getitem__)
    for node_id in ordered:
        if node_id not in records:
            records[node_id] = record(members[node_id], ids)
    refs = (model_ref(members[node_id].cls, members[node_id].values) for node_id in ordered)
    return Chain(
        key,
        members[tip].signature,
        {ids[node_id]: records[node_id] for node_id in ordered},
        frozenset(ref for ref in refs if ref is not None),
    )


def record(member: Member, ids: Mapping[str, str]) -> dict[str, Any]:
    """Make the node as a pin carries it: values as the executed node had them, links to stable ids."""
    links_of = {link.input: [ids.get(link.source, link.source), link.slot] for link in member.links}
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
            files.extend(_files_in(value))
    if not files and cls.role is not Role.LOADER:
        return None
    return ModelRef(cls.name, tuple(files) or tuple(_names(cls, inputs)))


def _names(cls: NodeClass, inputs: Mapping[str, Any]) -> Iterable[str]:
    """Fall back on everything that tells a loader's models apart, where no input looks like a file."""
    return (value for value in telling_values(cls, inputs).values() if isinstance(value, str) and not is_link(value))


def _files_in(value: Any) -> Iterable[str]:
    """Find file names in undeclared values; `{"on": false, …}` is how a switched-off LoRA is written there."""
    if isinstance(value, str):
        if MODEL_FILE.search(value):
            yield value
    elif isinstance(value, dict):
        if value.get("on") is not False:
            for item in value.values():
                yield from _files_in(item)
    elif isinstance(value, list) and not is_link(value):
        for item in value:
            yield from _files_in(item)
