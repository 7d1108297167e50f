"""Prompts made up for a model that comes without a workflow.

Into RAM: the loader and a preview of what it makes. Into VRAM: the shortest chain that uses what the loader makes,
which depends on its kind: text is encoded; a small blank picture is encoded, sampled for one step and decoded. Sampling
starts from an encoded picture rather than from an empty latent wherever there is a VAE, since the VAE alone knows how
many channels its latents have. What cannot be used alone (a diffusion model without a text encoder) goes into RAM only,
and a note says so.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from normalizer import Chain, Role, Schema
from normalizer.inputs import Form
from warmup.catalogue import Widget, widgets
from warmup.faults import BadEntry, Complaint, nearest
from warmup.graph import free_id, upstream
from warmup.sizes import IMAGE_SIDE
from warmup.smallest import previews

Output: TypeAlias = tuple[str, int]
"""A node id and an output slot."""


class _MissingClassError(Exception):
    """This ComfyUI lacks a class, or the class has other inputs than it has in ComfyUI's own sources."""


@dataclass(frozen=True)
class Brought:
    """A loader chain as nodes of a prompt, and the node at its end."""

    nodes: Mapping[str, dict[str, Any]]
    tip: str

    @classmethod
    def of(cls, chain: Chain) -> "Brought":
        """The whole of a chain."""
        return cls(chain.nodes, list(chain.nodes)[-1])

    def until(self, node_id: str) -> "Brought":
        """The part of it that ends with this node."""
        return Brought({key: self.nodes[key] for key in upstream(self.nodes, [node_id])}, node_id)

    def sockets(self, schema: Schema) -> dict[str, Output]:
        """What it makes, by type: of each type the output of the node that is nearest to the tip."""
        made: dict[str, Output] = {}
        for node_id, node in self.nodes.items():
            cls = schema.get(node["class_type"])
            made |= {type_: (node_id, slot) for slot, type_ in enumerate(cls.outputs if cls else ())}
        return made


def loader_node(schema: Schema, class_type: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """A loader as the page would submit it: with the inputs given, and the defaults of all others.

    Those of optional inputs too: a client's prompt carries them, and a loader without them is another cache entry.

    Raises:
        BadEntry: the class is unknown or loads nothing by itself, an input is unknown, or one is missing.
    """
    cls = schema.get(class_type)
    if cls is None:
        remedy = nearest(class_type, schema.classes, "install its node pack or correct the name")
        raise BadEntry(Complaint("loader", f"this ComfyUI has no class {class_type!r}", remedy))
    needed = [spec for spec in cls.inputs.values() if spec.required and spec.form is Form.LINK]
    if cls.role is not Role.LOADER or needed:
        why = f"it needs {needed[0].type} from another node" if needed else cls.reason
        remedy = "give a prompt instead; a class that is a loader all the same goes into [normalizer] loaders.include"
        raise BadEntry(Complaint("loader", f"{class_type} loads no model by itself: {why}", remedy))
    known = widgets(schema, class_type)
    complaints = [
        Complaint(
            f"inputs.{name}", f"{class_type} has no such input", nearest(name, known, f"it has {', '.join(known)}")
        )
        for name in given
        if name not in known
    ]
    filled: dict[str, Any] = {}
    for name, widget in known.items():
        file = name in cls.inputs and cls.inputs[name].names_file
        if name in given:
            filled[name] = given[name]
        elif "." in name:
            continue
        elif (default := _default(widget)) is not None and not file:
            filled[name] = default
        elif widget.required:
            complaints.append(Complaint(f"inputs.{name}", f"{class_type} needs it", _choices(widget)))
    if complaints:
        raise BadEntry(*complaints)
    return {"class_type": class_type, "inputs": filled}


def _default(widget: Widget) -> Any:
    """What the page fills in unasked. A choice without a default counts only if it is called so or is the only one."""
    if widget.default is not None:
        return widget.default
    options = widget.options or ()
    if "default" in options:
        return "default"
    return options[0] if len(options) == 1 else None


def _choices(widget: Widget, most: int = 8) -> str:
    if not widget.options:
        return "give it a value"
    more = ", …" if len(widget.options) > most else ""
    return f"give one of {', '.join(repr(option) for option in widget.options[:most])}{more}"


def into_ram(schema: Schema, brought: Brought) -> dict[str, Any]:
    """The prompt that loads a chain and does nothing with it."""
    return dict(brought.nodes) | previews(brought.nodes, schema, [(brought.tip, 0)])


@dataclass(frozen=True)
class Use:
    """A prompt that uses what chains make as far as it can: whether it uses any of it, and why not the rest."""

    prompt: dict[str, Any]
    uses_any: bool
    notes: tuple[str, ...]


def into_vram(schema: Schema, parts: Iterable[Brought]) -> Use:
    """The shortest prompt that uses what these chains make."""
    draft = _Draft(schema)
    sockets: dict[str, Output] = {}
    tips: list[Output] = []
    for part in parts:
        draft.nodes |= part.nodes
        sockets |= part.sockets(schema)
        tips.append((part.tip, 0))
    sinks, notes = _use(draft, sockets)
    return Use(draft.nodes | previews(draft.nodes, schema, sinks or tips), bool(sinks), tuple(notes))


class _Draft:
    """A prompt that grows by nodes of core classes, with their defaults filled in."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.nodes: dict[str, Any] = {}

    def add(self, class_type: str, **given: Any) -> Output:
        """Add a node; outputs given as inputs become links. Raises `_MissingClassError`."""
        cls = self.schema.get(class_type)
        if cls is None:
            raise _MissingClassError(f"this ComfyUI has no {class_type}")
        inputs = {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}
        for name, widget in widgets(self.schema, class_type).items():
            if name not in inputs and widget.required:
                inputs[name] = widget.default if widget.default is not None else next(iter(widget.options or ()), None)
        missing = [name for name, spec in cls.inputs.items() if spec.required and inputs.get(name) is None]
        unknown = [name for name in given if name not in cls.inputs]
        if missing or unknown:
            raise _MissingClassError(
                f"{class_type} of this ComfyUI takes other inputs ({', '.join(missing + unknown)})"
            )
        node_id = free_id(self.nodes, f"warmup-{class_type}")
        self.nodes[node_id] = {"class_type": class_type, "inputs": inputs}
        return node_id, 0

    def blank(self) -> Output:
        """A small picture."""
        return self.add("EmptyImage", width=IMAGE_SIDE, height=IMAGE_SIDE, batch_size=1)


def _use(draft: _Draft, sockets: Mapping[str, Output]) -> tuple[list[Output], list[str]]:
    """Use every kind of model that is there; what is seen of it at the end, and what could not be used."""
    sinks: list[Output] = []
    notes: list[str] = []
    uses = {
        frozenset({"MODEL", "CLIP", "VAE"}): _sample_and_decode,
        frozenset({"MODEL", "CLIP"}): _sample,
        frozenset({"CLIP"}): _encode_text,
        frozenset({"VAE"}): _encode_and_decode,
        frozenset({"CLIP_VISION"}): _look,
        frozenset({"UPSCALE_MODEL"}): _upscale,
    }
    used: set[str] = set()
    for types, use in uses.items():
        if types <= sockets.keys() and not types & used:
            before = dict(draft.nodes)
            try:
                sinks.append(use(draft, sockets))
            except _MissingClassError as error:
                draft.nodes = before
                notes.append(f"{', '.join(sorted(types))} cannot be used: {error}")
            else:
                used |= types
    if "MODEL" in sockets and "CLIP" not in sockets:
        notes.append("a diffusion model needs a text encoder to be sampled with: it goes into RAM only")
    elif not used and not notes:
        notes.append(f"nothing here knows how to use {', '.join(sockets)}: it goes into RAM only")
    return sinks, notes


def _conditioned(draft: _Draft, sockets: Mapping[str, Output], latent: Output) -> Output:
    text = _encode_text(draft, sockets)
    small = {"steps": 1, "cfg": 1.0, "latent_image": latent}
    return draft.add("KSampler", model=sockets["MODEL"], positive=text, negative=text, **small)


def _sample_and_decode(draft: _Draft, sockets: Mapping[str, Output]) -> Output:
    latent = draft.add("VAEEncode", pixels=draft.blank(), vae=sockets["VAE"])
    return draft.add("VAEDecode", samples=_conditioned(draft, sockets, latent), vae=sockets["VAE"])


def _sample(draft: _Draft, sockets: Mapping[str, Output]) -> Output:
    latent = draft.add("EmptyLatentImage", width=IMAGE_SIDE, height=IMAGE_SIDE, batch_size=1)
    return _conditioned(draft, sockets, latent)


def _encode_text(draft: _Draft, sockets: Mapping[str, Output]) -> Output:
    return draft.add("CLIPTextEncode", text="", clip=sockets["CLIP"])


def _encode_and_decode(draft: _Draft, sockets: Mapping[str, Output]) -> Output:
    latent = draft.add("VAEEncode", pixels=draft.blank(), vae=sockets["VAE"])
    return draft.add("VAEDecode", samples=latent, vae=sockets["VAE"])


def _look(draft: _Draft, sockets: Mapping[str, Output]) -> Output:
    return draft.add("CLIPVisionEncode", clip_vision=sockets["CLIP_VISION"], image=draft.blank())


def _upscale(draft: _Draft, sockets: Mapping[str, Output]) -> Output:
    return draft.add("ImageUpscaleWithModel", upscale_model=sockets["UPSCALE_MODEL"], image=draft.blank())
