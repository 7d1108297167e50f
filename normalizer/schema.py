"""Which node classes load models, and which only pass models on, told from `/object_info` alone.

Nobody keeps a list of the loaders of every custom pack, but the schema says what a class takes and makes. A class that
makes weights out of nothing but choices and names is a loader. A class that takes weights and gives the same kind of
weights back, with nothing else that must be wired to it, is a chain node (LoRA, model sampling, compile). The rest is
neither. A type that is not known by name holds weights if some class makes it from a file.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from normalizer.inputs import Form, InputSpec, read_inputs
from normalizer.kinds import MEDIA_TYPES, MODEL_NAME, MODEL_TYPES, Kind, kind_of

Cast = type[int] | type[float] | type[str] | type[bool]

CASTS: Mapping[str, Cast] = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}
"""What ComfyUI's validation puts a value of such a type through (`execution.py`, `validate_inputs`)."""

READS_GRAPH = frozenset({"PROMPT", "DYNPROMPT"})
"""Hidden inputs through which a node sees the ids of all others."""

_LOADS = re.compile(r"(?<!un)(?<!up)load(?!ed)", re.IGNORECASE)
_SECRET = re.compile(r"(?:^|_)(?:api_?key|(?:access_?)?token|secret|password|passwd|credentials?)$", re.IGNORECASE)


class Role(StrEnum):
    """What a class does for models."""

    LOADER = "loader"
    CHAIN = "chain node"
    NEITHER = "neither"


@dataclass(frozen=True, slots=True)
class NodeClass:
    """One node class, as far as it matters for finding, naming and pinning loader chains.

    `core`: ComfyUI itself ships it. `hidden`: the kinds of its hidden inputs (`UNIQUE_ID`, `PROMPT`, …). `inputs`: the
    declared ones by name, in order, with those of dynamic inputs. `declared`: every name that its function is handed.
    `casts`: what validation casts inputs to, by name. `looks_ids_up`: its nodes may find others by id, so no id in the
    same prompt may change. `keeps_id`: its nodes know their own id and something that it points into, so it may not
    change. `pinnable`: a node of it does nothing when it is wired to nothing.
    """

    name: str
    role: Role
    reason: str
    module: str
    core: bool
    output_node: bool
    intermediate_output: bool
    api_node: bool
    hidden: frozenset[str]
    outputs: tuple[str, ...]
    inputs: Mapping[str, InputSpec]
    declared: frozenset[str]
    casts: Mapping[str, Cast]
    looks_ids_up: bool
    keeps_id: bool
    pinnable: bool


@dataclass(frozen=True)
class Schema:
    """All node classes that the upstream has. Immutable: `extended` makes a larger one."""

    classes: Mapping[str, NodeClass] = field(repr=False)
    include: frozenset[str] = frozenset()
    exclude: frozenset[str] = frozenset()
    _info: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_object_info(
        cls, info: Mapping[str, Any], *, include: Iterable[str] = (), exclude: Iterable[str] = ()
    ) -> "Schema":
        """Read the answer of `GET /object_info`. Classes named in `include` are loaders, those in `exclude` neither."""
        included, excluded = frozenset(include), frozenset(exclude)
        drafts = [_draft(name, entry) for name, entry in info.items() if isinstance(entry, Mapping)]
        judged = frozenset(_types_from_files(drafts))
        classes = {}
        for draft in drafts:
            role, reason = _judge(draft, judged, included, excluded)
            classes[draft.name] = replace(draft, role=role, reason=reason)
        return cls(classes, included, excluded, dict(info))

    def extended(self, info: Mapping[str, Any]) -> "Schema":
        """Add or replace classes, as `GET /object_info/{class}` names them; other classes may change roles by it."""
        if not info:
            return self
        return Schema.from_object_info({**self._info, **info}, include=self.include, exclude=self.exclude)

    def without(self, class_types: Iterable[str]) -> "Schema":
        """Take classes out; others may change roles by it."""
        gone = frozenset(class_types)
        left = {name: entry for name, entry in self._info.items() if name not in gone}
        return Schema.from_object_info(left, include=self.include, exclude=self.exclude)

    def get(self, class_type: Any) -> NodeClass | None:
        """Give the class of that name, or None; anything may be asked for."""
        return self.classes.get(class_type) if isinstance(class_type, str) else None

    def entry(self, class_type: str) -> Mapping[str, Any]:
        """Give what `/object_info` says of a class, for what is not read here (ranges, defaults); empty if unknown."""
        entry = self._info.get(class_type)
        return entry if isinstance(entry, Mapping) else {}

    def __contains__(self, class_type: object) -> bool:
        return isinstance(class_type, str) and class_type in self.classes


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table of roles, for people."""

    class_type: str
    role: Role
    reason: str
    module: str


def describe(schema: Schema) -> list[Row]:
    """List every class with its role and why, loaders first, then chain nodes, then the rest, by name."""
    order = {Role.LOADER: 0, Role.CHAIN: 1, Role.NEITHER: 2}
    rows = [Row(item.name, item.role, item.reason + _caveat(item), item.module) for item in schema.classes.values()]
    return sorted(rows, key=lambda row: (order[row.role], row.class_type))


def _caveat(item: NodeClass) -> str:
    if item.looks_ids_up:
        return "; may look other nodes up, so no id in its prompts is changed"
    if item.keeps_id and item.role is not Role.NEITHER:
        return "; knows its place in the workflow, so its id is not changed"
    return ""


def _draft(name: str, entry: Mapping[str, Any]) -> NodeClass:
    """Read one class; its role is not known before all classes are read."""
    sections = entry.get("input")
    inputs = {spec.name: spec for spec in read_inputs(sections)}
    entries = sections.get("hidden") if isinstance(sections, Mapping) else None
    entries = entries if isinstance(entries, Mapping) else {}
    hidden = frozenset(_hidden_kinds(entries.values()))
    outputs = entry.get("output")
    module = str(entry.get("python_module", ""))
    core = module == "nodes" or module.startswith(("comfy_extras.", "comfy_api_nodes."))
    shows = bool(entry.get("output_node")), bool(entry.get("has_intermediate_output"))
    api_node = bool(entry.get("api_node")) or module.startswith("comfy_api_nodes.")
    return NodeClass(
        name=name,
        role=Role.NEITHER,
        reason="",
        module=module,
        core=core,
        output_node=shows[0],
        intermediate_output=shows[1],
        api_node=api_node,
        hidden=hidden,
        outputs=tuple(item if isinstance(item, str) else "COMBO" for item in outputs or ()),
        inputs=inputs,
        declared=frozenset(inputs) | frozenset(entries),
        casts={spec.name: CASTS[spec.type] for spec in inputs.values() if spec.type in CASTS},
        looks_ids_up=not core and bool(hidden & READS_GRAPH),
        keeps_id="UNIQUE_ID" in hidden and bool(hidden & (READS_GRAPH | {"EXTRA_PNGINFO"})),
        pinnable=not (any(shows) or api_node),
    )


def _hidden_kinds(values: Iterable[Any]) -> Iterator[str]:
    """V1 writes `"PROMPT"`, V3 `["PROMPT"]`."""
    for value in values:
        kind = value[0] if isinstance(value, list) and value else value
        if isinstance(kind, str):
            yield kind


def _types_from_files(drafts: Iterable[NodeClass]) -> Iterator[str]:
    """Yield the types, unknown by name, that some class makes from a file and from nothing made for one prompt."""
    for draft in drafts:
        if not draft.pinnable or _data_links(draft, frozenset()) or any(_is_media(type_) for type_ in draft.outputs):
            continue
        picks, files = _picks(draft)
        for type_ in draft.outputs:
            if kind_of(type_) is Kind.OTHER and (files or (picks and _told_by_name(draft, type_))):
                yield type_


def _told_by_name(draft: NodeClass, type_: str) -> bool:
    """Whether names say that weights are loaded, so that any choice will do for a file: `SAM_MODEL` from `size`."""
    return bool(MODEL_NAME.search(type_) or _LOADS.search(draft.name))


def _picks(draft: NodeClass) -> tuple[list[InputSpec], list[InputSpec]]:
    """Give the inputs that take a choice or a name, and those among them that name files."""
    picks = [spec for spec in draft.inputs.values() if spec.form in (Form.CHOICE, Form.TEXT)]
    return picks, [spec for spec in picks if spec.names_file]


def _is_media(type_: str) -> bool:
    return type_ in MEDIA_TYPES or type_.startswith("FILE_3D")


def _data_links(draft: NodeClass, judged: frozenset[str], *, required: bool = False) -> list[InputSpec]:
    """Collect the inputs that take data from other nodes; with `required`, only those that must be wired."""
    return [
        spec
        for spec in draft.inputs.values()
        if spec.form is Form.LINK
        and kind_of(spec.type, judged) in (Kind.DATA, Kind.VALUE)
        and (spec.required or not required)
    ]


def _judge(
    draft: NodeClass, judged: frozenset[str], include: frozenset[str], exclude: frozenset[str]
) -> tuple[Role, str]:
    """Say what the class does for models, and why."""
    if never := _never(draft, exclude):
        return Role.NEITHER, never
    if draft.name in include:
        return Role.LOADER, "named by the configuration"
    made = {type_: kind_of(type_, judged) for type_ in draft.outputs}
    if not any(kind in (Kind.MODEL, Kind.OTHER) for kind in made.values()):
        return Role.NEITHER, "makes no models"
    if needed := _data_links(draft, judged, required=True):
        return Role.NEITHER, f"needs {needed[0].type} ({needed[0].name})"
    if Kind.MODEL in made.values():
        return _judge_maker(draft, judged, [type_ for type_, kind in made.items() if kind is Kind.MODEL])
    return _judge_unknown(draft, judged, list(made))


def _never(draft: NodeClass, exclude: frozenset[str]) -> str:
    """Say why a class can be no part of a chain whatever it makes; empty if it can."""
    if draft.name in exclude:
        return "excluded by the configuration"
    if draft.api_node:
        return "calls a remote service"
    if draft.output_node or draft.intermediate_output:
        return "shows or saves something: it would run wherever it stands"
    secrets = [spec.name for spec in draft.inputs.values() if spec.type == "STRING" and _SECRET.search(spec.name)]
    if secrets:
        return f"takes a secret ({secrets[0]}), which would travel in the prompts of others, and into their files"
    return ""


def _judge_maker(draft: NodeClass, judged: frozenset[str], models: list[str]) -> tuple[Role, str]:
    """Judge a class that makes weights and needs nothing made for one prompt."""
    taken = [
        spec for spec in draft.inputs.values() if spec.form is Form.LINK and kind_of(spec.type, judged) is Kind.MODEL
    ]
    made = ", ".join(models)
    picks, files = _picks(draft)
    turned = [spec for spec in taken if spec.type in models]
    if any(spec.required for spec in turned) or (turned and not files):
        return Role.CHAIN, f"turns {', '.join(dict.fromkeys(spec.type for spec in turned))} into {made}"
    told = any(type_ in MODEL_TYPES or _told_by_name(draft, type_) for type_ in models)
    if files or (picks and told and not any(spec.required for spec in taken)):
        return Role.LOADER, f"makes {made} from {', '.join(spec.name for spec in files or picks)}"
    if taken:
        return Role.CHAIN, f"makes {made} from {', '.join(spec.type for spec in taken)}"
    return Role.CHAIN, f"makes {made} from whatever it is given"


def _judge_unknown(draft: NodeClass, judged: frozenset[str], made: list[str]) -> tuple[Role, str]:
    """Judge a class whose only outputs besides data are of types that no class makes from a file."""
    if any(_is_media(type_) for type_ in made):
        return Role.NEITHER, "makes no models"
    links = [kind_of(spec.type, judged) for spec in draft.inputs.values() if spec.form is Form.LINK]
    unknown = [type_ for type_ in made if kind_of(type_, judged) is Kind.OTHER]
    if any(kind is not Kind.OTHER for kind in links):
        return Role.NEITHER, f"makes {', '.join(unknown)}, which holds no weights"
    return Role.CHAIN, f"sets {', '.join(unknown)}, for loaders and chain nodes to take"
