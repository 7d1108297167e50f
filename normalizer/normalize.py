"""A client's prompt in; the same computation out, with its models under names that every client shares.

Two workflows that use the same checkpoint call its loader "4" and "12"; ComfyUI sees two nodes, keeps the instance of
neither, and drops what one made when the other comes. Here the loaders, and the nodes behind them that only turn models
into models, get ids that follow from what they load. Everything else stays as it came, and what is not understood
passes unchanged.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from normalizer.chains import Chain, Member, chains_of, find_members, model_ref, reach, record
from normalizer.identity import ORDINALS, PREFIX, with_ordinal
from normalizer.models import ModelRef, ModelSet
from normalizer.restore import WayBack
from normalizer.rules import PIN, SHARED_LOADER, STABLE_ID, UNDECLARED_KEYS, DroppedKey
from normalizer.schema import Role, Schema
from normalizer.workflow import Graph, Node, read_graph


@dataclass(frozen=True, slots=True)
class Change:
    """One change, in the client's terms: which rule, which node, what was there, what is there now, and why."""

    rule: str
    node_id: str
    before: Any
    after: Any
    reason: str


@dataclass(frozen=True)
class Normalized:
    """A rewritten prompt, the way back to the client's own, and what was learned about its models.

    `chains` are the loader chains of the nodes that run, for other prompts to carry; `models` all components that the
    prompt needs; `own` its chain nodes by stable id, as a pin would carry them; `standing` those of these ids under
    which the rewritten prompt really holds them (not where the client's ids are kept); `missing` the ids that its links
    name and no node has: whatever stood there would be taken for what the client has forgotten.
    """

    prompt: dict[str, Any]
    way_back: WayBack
    chains: tuple[Chain, ...]
    models: ModelSet
    own: Mapping[str, dict[str, Any]] = field(default_factory=dict, repr=False)
    standing: frozenset[str] = field(default=frozenset(), repr=False)
    missing: frozenset[str] = field(default=frozenset(), repr=False)

    @cached_property
    def changes(self) -> tuple[Change, ...]:
        """All that was changed: renamed nodes, then dropped keys, then exchanged loaders, then pins."""
        way_back, prompt = self.way_back, self.prompt
        return (*_renamed(way_back), *_dropped(way_back), *_exchanged(way_back, prompt), *_pinned(way_back, prompt))


def normalize(prompt: Mapping[str, Any], schema: Schema) -> Normalized:
    """Rewrite a prompt in API format; the argument is left as it is, and nodes that need no change are shared with it.

    Raises:
        MalformedPrompt: if the prompt is no object.
    """
    graph = read_graph(prompt)
    nodes = graph.nodes
    reached = reach(nodes, schema)
    rename = not any(_may_look_ids_up(name, schema) for name in {node.class_type for node in nodes.values()})
    members = find_members(nodes, schema, reached.validated, drop=rename)
    if rename:
        ids = _assign(members, (*prompt, *graph.missing), kept=_oddly_linked(graph, schema))
        sent = {node_id: new for node_id, new in ids.items() if new != node_id}
        offered = ids
    else:
        ids, sent = _assign(members, (), kept=frozenset()), {}
        offered = {node_id: new for node_id, new in ids.items() if "UNIQUE_ID" not in members[node_id].cls.hidden}
    dropped = {node_id: member.dropped for node_id, member in members.items() if member.dropped}
    own = {ids[node_id]: record(member, ids) for node_id, member in members.items() if node_id in ids}
    refs = _model_refs(nodes, schema, members, reached.executed)
    running = {node_id: member for node_id, member in members.items() if node_id in reached.executed}
    return Normalized(
        prompt=_rewritten(prompt, nodes, sent, dropped),
        way_back=WayBack(ids={new: node_id for node_id, new in sent.items()}, dropped=dropped),
        chains=chains_of(running, offered, own, refs),
        models=frozenset(refs.values()),
        own=own,
        standing=frozenset(new for node_id, new in ids.items() if rename or new == node_id),
        missing=graph.missing,
    )


def _may_look_ids_up(class_type: str, schema: Schema) -> bool:
    """Whether nodes may find others by id: a custom class that reads the prompt, or one of which nothing is known."""
    cls = schema.classes.get(class_type)
    return cls is None or cls.looks_ids_up


def _oddly_linked(graph: Graph, schema: Schema) -> frozenset[str]:
    """Find what keeps its id, so that validation finds or misses it as it would have without us."""
    return frozenset(odd.source for odd in graph.odd if odd.input in schema.classes[odd.class_type].inputs)


def _assign(members: Mapping[str, Member], named: Iterable[str], *, kept: frozenset[str]) -> dict[str, str]:
    """Give each chain node its stable id, except those in `kept`; no id is given that stays in use.

    `named` are the ids in use: of the nodes, and those that links name though no node has them.

    Equal nodes are numbered by their exact signature, then by their place in the prompt, so that neither renaming nor
    (for nodes that differ at all) reordering the client's graph changes an id.
    """
    groups: dict[str, list[Member]] = {}
    for node_id, member in members.items():
        if node_id not in kept:
            groups.setdefault(member.key, []).append(member)
    taken = {node_id for node_id in named if node_id.startswith(PREFIX) and (node_id in kept or node_id not in members)}
    while full := [key for key, group in groups.items() if len(group) + _siblings(key, taken) > ORDINALS]:
        for key in full:
            taken.update(member.node.id for member in groups.pop(key))
    ids: dict[str, str] = {}
    for key, group in groups.items():
        free = (new for ordinal in range(ORDINALS) if (new := with_ordinal(key, ordinal)) not in taken)
        if len(group) > 1:
            group.sort(key=lambda member: (member.signature, member.node.place))
        ids.update((member.node.id, new) for member, new in zip(group, free, strict=False))
    return ids


def _siblings(key: str, taken: set[str]) -> int:
    return sum(node_id[:-2] == key[:-2] for node_id in taken)


def _rewritten(
    prompt: Mapping[str, Any],
    nodes: Mapping[str, Node],
    sent: Mapping[str, str],
    dropped: Mapping[str, tuple[DroppedKey, ...]],
) -> dict[str, Any]:
    """Make the prompt that is sent on: nodes and inputs in the client's order, ids and links changed, keys dropped."""
    result: dict[str, Any] = {}
    for node_id, raw in prompt.items():
        made = raw
        node = nodes.get(node_id)
        if node is not None:
            inputs = None
            for name, source, slot in node.links:
                if source in sent:
                    inputs = dict(node.inputs) if inputs is None else inputs
                    inputs[name] = [sent[source], slot]
            for item in dropped.get(node_id, ()):
                inputs = dict(node.inputs) if inputs is None else inputs
                del inputs[item.name]
            if inputs is not None:
                made = {**raw, "inputs": inputs}
        result[sent.get(node_id, node_id)] = made
    return result


def _model_refs(
    nodes: Mapping[str, Node], schema: Schema, members: Mapping[str, Member], executed: frozenset[str]
) -> dict[str, ModelRef]:
    """Name what the nodes that run bring in, chain nodes or not."""
    refs = {}
    for node_id, node in nodes.items():
        member = members.get(node_id)
        cls = schema.classes.get(node.class_type) if member is None else member.cls
        if cls is not None and cls.role is not Role.NEITHER and node_id in executed:
            ref = model_ref(cls, node.inputs if member is None else member.values)
            if ref is not None:
                refs[node_id] = ref
    return refs


def _renamed(way_back: WayBack) -> Iterator[Change]:
    for new, node_id in way_back.ids.items():
        yield Change(STABLE_ID.name, node_id, node_id, new, STABLE_ID.reason)


def _dropped(way_back: WayBack) -> Iterator[Change]:
    for node_id, items in way_back.dropped.items():
        before = {item.name: item.value for item in items}
        yield Change(UNDECLARED_KEYS.name, node_id, before, None, UNDECLARED_KEYS.reason)


def _exchanged(way_back: WayBack, prompt: Mapping[str, Any]) -> Iterator[Change]:
    for sent_id, item in way_back.exchanged.items():
        before = {"class_type": item.class_type, "inputs": item.inputs}
        after = {name: prompt[sent_id][name] for name in before}
        yield Change(SHARED_LOADER.name, way_back.node_id(sent_id), before, after, SHARED_LOADER.reason)


def _pinned(way_back: WayBack, prompt: Mapping[str, Any]) -> Iterator[Change]:
    for node_id in way_back.pins:
        yield Change(PIN.name, node_id, None, prompt[node_id], PIN.reason)
