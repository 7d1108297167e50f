"""What tells where models are: the events that the residency model learns from.

ComfyUI never says where weights lie. It says which results came from its cache, and when each node began and made its
first step; the rest is memory readings and what was done to it. All are turned into the events below, frozen and
without time: the caller says when.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias

from normalizer import Chain
from normalizer.models import ModelRef, ModelSet
from proxy.core.budget import Machine
from proxy.core.flags import UpstreamFlags

_LINK = 2
"""A link is a list of a node id and a slot."""
_SHARES = {"MODEL": 0.74, "CLIP": 0.24, "VAE": 0.02}
"""How the bytes of a checkpoint divide among its models: as in SDXL, near enough for the others."""


class Ending(StrEnum):
    """How a prompt ended, as far as memory is concerned."""

    SUCCESS = "success"
    FAILURE = "failure"
    OUT_OF_VRAM = "out of VRAM"
    OUT_OF_RAM = "out of RAM"


@dataclass(frozen=True, slots=True)
class UpstreamStarted:
    """A ComfyUI answers whose memory we have not followed.

    `fresh`: it is a new process and holds nothing. Otherwise it may hold anything.
    """

    flags: UpstreamFlags
    machine: Machine
    fresh: bool


@dataclass(frozen=True, slots=True)
class UpstreamDied:
    """ComfyUI is gone, as far as can be told before it answers again."""


@dataclass(frozen=True, slots=True)
class SizesRead:
    """File sizes in bytes by the name ComfyUI lists each file under."""

    sizes: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class MemoryRead:
    """A reading of the memory that ComfyUI's machine has free, in bytes; None where it was not read.

    `ram_free` is what may still be taken (under a container's limit too); `host_ram_free` what ComfyUI believes;
    `vram_others` what processes other than ComfyUI take of the GPU.
    """

    ram_free: int | None = None
    host_ram_free: int | None = None
    vram_total: int | None = None
    vram_free: int | None = None
    vram_others: int | None = None


@dataclass(frozen=True, slots=True)
class PromptSent:
    """A prompt was sent to ComfyUI and waits there or runs at once.

    `components` are the loader nodes of its own chains by stable id; `prompt` is all of it as it was sent, with its
    pins. `shared` are those of its own loaders that were sent as shared ones, with their keys.
    """

    prompt_id: str
    own: tuple[Chain, ...]
    pins: tuple[Chain, ...]
    components: Mapping[str, ModelRef]
    prompt: Mapping[str, Any]
    shared: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PromptRecalled:
    """A sent prompt was taken out of ComfyUI's queue before it ran."""

    prompt_id: str


@dataclass(frozen=True, slots=True)
class PromptStarted:
    """A prompt began to run. One that was never sent by us counts as somebody else's: anything may be gone after it."""

    prompt_id: str


@dataclass(frozen=True, slots=True)
class NodesCached:
    """The nodes, by stable id, whose results ComfyUI found in its cache when the prompt began."""

    prompt_id: str
    nodes: frozenset[str]


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """One model out of a component: a checkpoint brings three, which ComfyUI moves one by one.

    `kind` is the type of the loader's output; `share` the part of the component's bytes, 0 for what only patches others
    (a LoRA) and never lies in VRAM by itself.
    """

    ref: ModelRef
    kind: str
    share: float


@dataclass(frozen=True, slots=True)
class Use:
    """A node computed with models.

    `seconds` passed from its start to its first step, or to its end where it makes no steps; `step_seconds` is what
    each later step took, None where there were none. The difference is what moving the weights cost.
    """

    parts: frozenset[Part]
    consumer: str
    seconds: float
    step_seconds: float | None = None

    @property
    def weights(self) -> frozenset[Part]:
        """The parts whose weights had to be where the node computes."""
        return frozenset(part for part in self.parts if part.share)

    @property
    def patches(self) -> ModelSet:
        """The components that only patch those."""
        return frozenset(part.ref for part in self.parts if not part.share)


@dataclass(frozen=True, slots=True)
class PromptEnded:
    """A prompt ended.

    `node_seconds` are the nodes that ran, by stable id, with their seconds. `uses` are in the order they ran.
    `disk_bytes` is what ComfyUI read from disk meanwhile, None where nobody counts it.
    """

    prompt_id: str
    ending: Ending
    node_seconds: Mapping[str, float]
    uses: tuple[Use, ...] = ()
    disk_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class ModelsFreed:
    """`POST /free` reached ComfyUI."""

    unload_models: bool
    free_memory: bool


ResidencyEvent: TypeAlias = (
    UpstreamStarted
    | UpstreamDied
    | SizesRead
    | MemoryRead
    | PromptSent
    | PromptRecalled
    | PromptStarted
    | NodesCached
    | PromptEnded
    | ModelsFreed
)


@dataclass(slots=True)
class StepClock:
    """Times each node of one prompt from its start to its first step, and the steps after that.

    Fed with ComfyUI's `executing` and `progress` events; `progress` comes after each finished step.
    """

    _started: dict[str, float] = field(default_factory=dict)
    _first: dict[str, float] = field(default_factory=dict)
    _last: dict[str, tuple[float, int]] = field(default_factory=dict)

    def handle(self, kind: str, data: Mapping[str, Any], now: float) -> None:
        """Take in one event; others than the two are ignored."""
        node = data.get("node")
        if not isinstance(node, str):
            return
        if kind == "executing":
            self._started.setdefault(node, now)
        elif kind == "progress" and node in self._started and _is_step(data.get("value")):
            self._first.setdefault(node, now)
            self._last[node] = (now, self._last.get(node, (now, 0))[1] + 1)

    def use(self, node: str, parts: frozenset[Part], consumer: str, node_seconds: float) -> Use:
        """How the use of models by this node went; `node_seconds` is how long it ran in all."""
        if node not in self._first:
            return Use(parts, consumer, node_seconds)
        last, steps = self._last[node]
        step = (last - self._first[node]) / (steps - 1) if steps > 1 else None
        return Use(parts, consumer, self._first[node] - self._started[node], step)


def consumers(
    prompt: Mapping[str, Any],
    chains: Iterable[Chain],
    components: Mapping[str, ModelRef],
    outputs: Mapping[str, Sequence[str]],
) -> dict[str, frozenset[Part]]:
    """The nodes of a prompt that compute with models, by id, with what they compute with.

    Args:
        prompt: the prompt as it was sent, in stable ids.
        chains: the prompt's own chains.
        components: its loader nodes.
        outputs: the types of each chain class's outputs.
    """
    nodes = {node_id: node for chain in chains for node_id, node in chain.nodes.items()}
    found: dict[str, frozenset[Part]] = {}
    for node_id, node in prompt.items():
        if node_id in nodes:
            continue
        reached = (_parts(source, slot, nodes, components, outputs) for source, slot in _links(node))
        parts = frozenset[Part]().union(*reached)
        if parts:
            found[node_id] = parts
    return found


def _parts(
    node_id: str,
    slot: int,
    nodes: Mapping[str, Any],
    components: Mapping[str, ModelRef],
    outputs: Mapping[str, Sequence[str]],
) -> Iterator[Part]:
    """What comes out of one output of a chain: the model of its loader, and what patches it on the way."""
    node = nodes.get(node_id)
    types = outputs.get(node["class_type"], ()) if node else ()
    if node is None or not 0 <= slot < len(types):
        return
    kind = types[slot]
    before = [link for link in _links(node) if link[0] in nodes]
    if node_id in components:
        yield Part(components[node_id], kind, 0.0 if before else _share(kind, types))
    for source, source_slot in before:
        source_types = outputs.get(nodes[source]["class_type"], ())
        if source_slot < len(source_types) and source_types[source_slot] == kind:
            yield from _parts(source, source_slot, nodes, components, outputs)


def _share(kind: str, types: Sequence[str]) -> float:
    """The part of a file's bytes that one of several models takes."""
    weights = [_SHARES.get(each, 0.0) for each in types]
    return _SHARES.get(kind, 0.0) / sum(weights) if any(weights) else 1.0


def _links(node: object) -> list[tuple[str, int]]:
    """What a node's inputs link to."""
    inputs = node.get("inputs") if isinstance(node, Mapping) else None
    values = inputs.values() if isinstance(inputs, Mapping) else ()
    return [
        (value[0], value[1])
        for value in values
        if isinstance(value, list) and len(value) == _LINK and isinstance(value[0], str) and isinstance(value[1], int)
    ]


def _is_step(value: object) -> bool:
    return isinstance(value, int | float) and value > 0
