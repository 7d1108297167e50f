"""What tells where models are: the events that the residency model learns from.

ComfyUI never says where weights lie. It says which results came from its cache, and when each node began and made its
first step; the rest is memory readings and what was done to it. All are turned into the events below, frozen and
without time: the caller says when.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias

from normalizer import Chain
from normalizer.models import ModelRef, ModelSet
from proxy.core.budget import Machine
from proxy.core.flags import UpstreamFlags

_LINK = 2
"""A link is a list of a node id and a slot."""


class Ending(StrEnum):
    """How a prompt ended, as far as memory is concerned."""

    SUCCESS = "success"
    FAILURE = "failure"
    OUT_OF_MEMORY = "out of memory"


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
    """The ComfyUI process is gone."""


@dataclass(frozen=True, slots=True)
class SizesRead:
    """File sizes in bytes by the name ComfyUI lists each file under."""

    sizes: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class MemoryRead:
    """A reading of the memory that ComfyUI's machine has free, in bytes; None where it was not read.

    `ram_free` is what may still be taken (under a container's limit too); `host_ram_free` what ComfyUI believes.
    """

    ram_free: int | None = None
    host_ram_free: int | None = None
    vram_total: int | None = None
    vram_free: int | None = None


@dataclass(frozen=True, slots=True)
class PromptSent:
    """A prompt was sent to ComfyUI and waits there or runs at once.

    `components` are the loader nodes of its own chains by stable id; `node_count` counts all its nodes, pins included.
    """

    prompt_id: str
    own: tuple[Chain, ...]
    pins: tuple[Chain, ...]
    components: Mapping[str, ModelRef]
    node_count: int


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


@dataclass(frozen=True, slots=True)
class Use:
    """A node computed with components.

    `seconds` passed from its start to its first step, or to its end where it makes no steps; `step_seconds` is what
    each later step took, None where there were none. The difference is what moving the weights cost.
    """

    refs: ModelSet
    consumer: str
    seconds: float
    step_seconds: float | None = None


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

    def use(self, node: str, refs: ModelSet, consumer: str, node_seconds: float) -> Use:
        """How the use of components by this node went; `node_seconds` is how long it ran in all."""
        if node not in self._first:
            return Use(refs, consumer, node_seconds)
        last, steps = self._last[node]
        step = (last - self._first[node]) / (steps - 1) if steps > 1 else None
        return Use(refs, consumer, self._first[node] - self._started[node], step)


def consumers(
    prompt: Mapping[str, Any], chains: Iterable[Chain], components: Mapping[str, ModelRef]
) -> dict[str, ModelSet]:
    """The nodes of a prompt that compute with models, by id: those linked to a chain, with all that it loads.

    Args:
        prompt: the prompt as it was sent, in stable ids.
        chains: the prompt's own chains.
        components: its loader nodes.
    """
    behind: dict[str, ModelSet] = {}
    for chain in chains:
        for node_id in chain.nodes:
            reached = _reached(node_id, chain.nodes)
            loaded = frozenset(components[node] for node in reached if node in components)
            behind[node_id] = behind.get(node_id, frozenset()) | loaded
    found: dict[str, ModelSet] = {}
    for node_id, node in prompt.items():
        used = frozenset[ModelRef]().union(*(behind.get(source, frozenset()) for source in _sources(node)))
        if used and node_id not in behind:
            found[node_id] = used
    return found


def _reached(node_id: str, nodes: Mapping[str, Any]) -> frozenset[str]:
    """A node and all that lies before it within one chain, which has no cycles."""
    before = (_reached(source, nodes) for source in _sources(nodes[node_id]) if source in nodes)
    return frozenset({node_id}).union(*before)


def _sources(node: object) -> list[str]:
    """The ids that a node's inputs link to."""
    inputs = node.get("inputs") if isinstance(node, Mapping) else None
    values = inputs.values() if isinstance(inputs, Mapping) else ()
    return [
        value[0] for value in values if isinstance(value, list) and len(value) == _LINK and isinstance(value[0], str)
    ]


def _is_step(value: object) -> bool:
    return isinstance(value, int | float) and value > 0
