"""What to submit for an entry: one prompt for each chain where that is possible, so that clients wait for little.

Three sources, in this order of trust: the workflow file that the entry names; a chain that a client's prompt has
brought before, since it has the very values that make up its cache entry; and a prompt made up from the schema.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Protocol

from normalizer import Chain, ModelSet, NodeClass, Role, Schema, normalize
from warmup.catalogue import widgets
from warmup.entries import Depth
from warmup.faults import BadEntry, Complaint, nearest
from warmup.fresh import fresh, varied
from warmup.schedule import Planned
from warmup.smallest import refuse_unknown, smallest
from warmup.synthesized import Brought, into_ram, into_vram, loader_node
from warmup.workflow_file import override, split_path

PLAIN_LOADERS = (
    "CheckpointLoaderSimple",
    "UNETLoader",
    "VAELoader",
    "CLIPLoader",
    "ControlNetLoader",
    "CLIPVisionLoader",
    "StyleModelLoader",
    "UpscaleModelLoader",
)
"""Of the classes that list a file, the one that people mean by it."""


class Names(Protocol):
    """A group of models in `proxy.toml`."""

    def matches_name(self, name: str) -> bool:
        """Whether a model file is of this group."""
        ...


@dataclass(frozen=True)
class Surroundings:
    """What the upstream is like: its classes, the chains that prompts have brought (newest first), the groups."""

    schema: Schema
    chains: Sequence[Chain] = ()
    groups: Mapping[str, Names] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """One prompt to submit: what it warms, for people; the components that it brings in; how far it brings them.

    `varied` are the inputs, by node, that must be new each time for ComfyUI to compute the prompt at all.
    """

    label: str
    prompt: Mapping[str, Any]
    models: ModelSet
    depth: Depth
    varied: Mapping[str, str] = field(default_factory=dict)

    def fresh(self, nonce: int) -> dict[str, Any]:
        """The prompt to submit; a `nonce` must not be used twice."""
        return fresh(self.prompt, self.varied, nonce)


@dataclass(frozen=True)
class Preparation:
    """All prompts of an entry, and what could not be done as asked, each with the reason."""

    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()

    @property
    def models(self) -> ModelSet:
        """All components that are brought in."""
        return frozenset().union(*(step.models for step in self.steps))


def prepare(planned: Planned, around: Surroundings, depth: Depth | None = None) -> Preparation:
    """The prompts of an entry; `depth` overrides the entry's own `to`.

    Whether a model file exists is left to ComfyUI: a file may be newer than what is known of the upstream.

    Raises:
        BadEntry: with everything that keeps the entry from being prepared.
    """
    entry = planned.entry
    depth = depth or entry.to
    if planned.workflow is not None:
        return _from_workflow(planned, around.schema, depth)
    if entry.loader is not None:
        node = loader_node(around.schema, entry.loader, entry.inputs)
        return _from_chains([Brought({"warmup-loader": node}, "warmup-loader")], around.schema, depth)
    group = around.groups.get(entry.group or "")
    if group is None:
        raise BadEntry(unknown_group(entry.group or "", around))
    found, notes = _matching(group, around)
    if not found:
        reason = "; ".join(notes) or "no model file of this ComfyUI matches it"
        raise BadEntry(Complaint("group", f"nothing of {entry.group!r} can be warmed: {reason}", "see its globs"))
    prepared = _from_chains(found, around.schema, depth)
    return Preparation(prepared.steps, (*notes, *prepared.notes))


def unknown_group(name: str, around: Surroundings) -> Complaint:
    """What to say of an entry whose group `proxy.toml` does not have."""
    return Complaint(
        "group",
        f"there is no group {name!r}",
        nearest(name, around.groups, "add a [[group]] of that name to proxy.toml"),
    )


def prepare_file(file: str, around: Surroundings, depth: Depth) -> Preparation:
    """The prompts for a model file by its name, with or without its folder, as a person gives it.

    Raises:
        BadEntry: nobody lists such a file, or it cannot be loaded by itself.
    """
    found, notes = _matching(_File(file), around)
    if found:
        return _from_chains(found[:1], around.schema, depth)
    known = {name for cls in around.schema.classes.values() for name in _files(around.schema, cls)}
    remedy = notes[0] if notes else nearest(file, known, "`comfykeep loaders` lists the classes that load files")
    raise BadEntry(Complaint("model", f"{file!r} cannot be warmed", remedy))


def _from_workflow(planned: Planned, schema: Schema, depth: Depth) -> Preparation:
    changes = planned.entry.set
    workflow = override(planned.workflow or {}, changes)
    refuse_unknown(workflow, schema)
    fixed: dict[str, set[str]] = {}
    for node_id, name in filter(None, map(split_path, changes)):
        fixed.setdefault(node_id, set()).add(name)
    if depth is Depth.VRAM:
        prompt = smallest(workflow, schema, fixed)
        models = normalize(prompt, schema).models
        return Preparation((Step(planned.entry.what, prompt, models, depth, varied(prompt, schema, fixed)),))
    chains = normalize(workflow, schema).chains
    if not chains:
        raise BadEntry(Complaint("prompt", f"{planned.entry.prompt} loads no model that a node uses", "see its nodes"))
    return _from_chains([Brought.of(chain) for chain in chains], schema, depth)


def _from_chains(found: Sequence[Brought], schema: Schema, depth: Depth) -> Preparation:
    if depth is Depth.RAM:
        return Preparation(tuple(_step(into_ram(schema, brought), schema, depth) for brought in found))
    steps: list[Step] = []
    notes: list[str] = []
    for parts in _joined(found, schema):
        use = into_vram(schema, parts)
        steps.append(_step(use.prompt, schema, depth if use.uses_any else Depth.RAM))
        notes.extend(use.notes)
    return Preparation(tuple(steps), tuple(dict.fromkeys(notes)))


def _step(prompt: Mapping[str, Any], schema: Schema, depth: Depth) -> Step:
    models = normalize(prompt, schema).models
    label = ", ".join(ref.label for ref in sorted(models))
    return Step(label, prompt, models, depth, varied(prompt, schema, {}) if depth is Depth.VRAM else {})


def _joined(found: Sequence[Brought], schema: Schema) -> list[tuple[Brought, ...]]:
    """A lone diffusion model with the lone text encoder and VAE beside it, if there are no others to choose from."""
    needed: dict[str, list[Brought]] = {"MODEL": [], "CLIP": [], "VAE": []}
    for brought in found:
        made = brought.sockets(schema).keys() & needed.keys()
        if len(made) > 1:
            return [(other,) for other in found]
        for type_ in made:
            needed[type_].append(brought)
    if len(needed["MODEL"]) != 1 or len(needed["CLIP"]) != 1 or len(needed["VAE"]) > 1:
        return [(brought,) for brought in found]
    together = tuple(brought for parts in needed.values() for brought in parts)
    return [together, *((brought,) for brought in found if all(brought is not part for part in together))]


@dataclass(frozen=True)
class _File:
    """A file as a person names it: the whole of what ComfyUI lists, or its last part."""

    name: str

    def matches_name(self, name: str) -> bool:
        path = name.replace("\\", "/")
        wanted = self.name.replace("\\", "/")
        return wanted in (path, PurePosixPath(path).name)


def _matching(names: Names, around: Surroundings) -> tuple[list[Brought], list[str]]:
    """The chains that bring matching files: those that prompts have brought, then the plain loaders of the rest."""
    found: dict[str, Brought] = {}
    covered: set[str] = set()
    for chain in around.chains:
        whole = Brought.of(chain)
        for node_id, node in chain.nodes.items():
            files = [file for file in _picked(around.schema, node) if names.matches_name(file)]
            if files and node_id not in found:
                found[node_id] = whole.until(node_id)
                covered.update(files)
    notes: list[str] = []
    for file, classes in _listed_files(around.schema).items():
        if file not in covered and names.matches_name(file):
            try:
                node = _plain_loader(around.schema, file, classes)
            except BadEntry as bad:
                notes.append(f"{file}: {bad.complaints[0]}")
            else:
                node_id = f"warmup-loader-{len(found) + 1}"
                found[node_id] = Brought({node_id: node}, node_id)
    return list(found.values()), notes


def _picked(schema: Schema, node: Mapping[str, Any]) -> list[str]:
    """The files that a node of a chain picks."""
    cls = schema.get(node["class_type"])
    specs = cls.inputs if cls else {}
    return [
        value
        for name, value in node["inputs"].items()
        if isinstance(value, str) and name in specs and specs[name].names_file
    ]


def _listed_files(schema: Schema) -> dict[str, list[str]]:
    """Every model file that some loader or chain class lists, with the classes that do, plain loaders first."""
    rank = {name: place for place, name in enumerate(PLAIN_LOADERS)}
    classes = sorted(
        schema.classes.values(), key=lambda cls: (rank.get(cls.name, len(rank)), cls.role, not cls.core, cls.name)
    )
    listed: dict[str, list[str]] = {}
    for cls in classes:
        for file in _files(schema, cls):
            listed.setdefault(file, []).append(cls.name)
    return listed


def _files(schema: Schema, cls: NodeClass) -> list[str]:
    if cls.role is Role.NEITHER:
        return []
    return [
        option
        for widget in widgets(schema, cls.name).values()
        if widget.name in cls.inputs and cls.inputs[widget.name].names_file
        for option in widget.options or ()
        if isinstance(option, str)
    ]


def _plain_loader(schema: Schema, file: str, classes: Sequence[str]) -> dict[str, Any]:
    cls = schema.classes[classes[0]]
    given = {
        widget.name: file
        for widget in widgets(schema, cls.name).values()
        if widget.name in cls.inputs and cls.inputs[widget.name].names_file and file in (widget.options or ())
    }
    return loader_node(schema, cls.name, given)
