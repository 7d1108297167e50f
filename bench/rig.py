"""A simulated ComfyUI without its web server, and a proxy without its own: prompts in, events out, no time lost.

The tier model must be judged over thousands of prompts, in every cache mode, against somebody who knows. The simulator
knows where each file's weights are; driven directly, on a clock that does not wait, it runs hundreds of prompts in a
second. What happens between the two is what the engine does: normalize, plan pins, send, watch, learn.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

from normalizer import Chain, ModelRef, ModelSet, Schema, carry, normalize
from normalizer.chains import model_ref
from proxy.core.budget import Limits, Machine
from proxy.core.chain_book import ChainBook
from proxy.core.costs import LoadCosts
from proxy.core.evidence import (
    Ending,
    MemoryRead,
    ModelsFreed,
    NodesCached,
    PromptEnded,
    PromptSent,
    PromptStarted,
    SizesRead,
    StepClock,
    UpstreamStarted,
    consumers,
)
from proxy.core.flags import Platform, parse_flags
from proxy.core.pinning import PinPlanner
from proxy.core.residency import Residency
from proxy.core.sizes import Sizes
from proxy.core.tiers import Tier
from proxy.core.timeline import Timeline
from simulator.clock import Clock
from simulator.config import SimulatorConfig
from simulator.events import Binary
from simulator.executor import Executor
from simulator.ledger import Ledger
from simulator.machine import Directories
from simulator.machine import Machine as SimulatedMachine
from simulator.nodes import loaders, sampling

_CLASSES = {
    node.NAME: node
    for node in (
        loaders.CheckpointLoaderSimple,
        loaders.UNETLoader,
        loaders.DualCLIPLoader,
        loaders.VAELoader,
        loaders.LoraLoader,
        sampling.CLIPTextEncode,
        sampling.EmptyLatentImage,
        sampling.KSampler,
        sampling.VAEDecode,
        sampling.PreviewAny,
    )
}
_PLATFORM = Platform("cuda", "2.9.0+cu129", aimdo_installed=True)


@dataclass(frozen=True, slots=True)
class Watched:
    """One component of one prompt: where it was thought to be just before it ran, and where it was."""

    ref: ModelRef
    predicted: Tier
    actual: Tier


@dataclass
class _Recorder:
    """The simulator's events of one prompt, with their times."""

    clock: Clock
    client_id: Any = None
    last_node_id: str | None = None
    last_prompt_id: str | None = None
    seen: list[tuple[str, Mapping[str, Any], float]] = field(default_factory=list)

    def send(self, event: str | Binary, data: Any, client_id: Any = None) -> None:
        """See simulator.events.Events."""
        del client_id
        if isinstance(event, str):
            self.seen.append((event, data, self.clock.now()))

    def supports(self, client_id: Any, feature: str) -> bool:
        """See simulator.events.Events."""
        del client_id, feature
        return False


class Rig:
    """One simulated ComfyUI and all that the proxy knows about it.

    Args:
        config: what is simulated; its time scale is not used.
        limits: what the pin planner may take; None pins every chain seen so far, without any bound.
    """

    def __init__(self, config: SimulatorConfig, limits: Limits | None) -> None:
        self.ledger = Ledger()
        self.clock = Clock(inf)
        self._machine = SimulatedMachine(config, self.clock, self.ledger, Directories(Path()))
        self._events = _Recorder(self.clock)
        self._executor = Executor(self._machine, _CLASSES, self._events)
        # As over HTTP: tuples become lists, and the schema knows JSON only.
        info = json.loads(json.dumps({name: node.info(self._machine) for name, node in _CLASSES.items()}))
        self._schema = Schema.from_object_info(info)
        self._limited = limits is not None
        self.residency = Residency(Sizes(), LoadCosts())
        self.planner = PinPlanner(self.residency, limits or Limits(), ())
        self._book = ChainBook()
        self._count = 0
        memory = self._machine.memory
        flags = parse_flags(config.argv(0), config.version, _PLATFORM)
        machine = Machine(memory.ram_total, memory.ram_total, memory.vram_total)
        self.planner.handle(UpstreamStarted(flags, machine, fresh=True), 0.0)
        files = {name: size for folder in config.models.values() for name, size in folder.items()}
        self.planner.handle(SizesRead(files), 0.0)
        self._read_memory()

    def components(self, prompt: Mapping[str, Any]) -> ModelSet:
        """The components that a client's prompt needs."""
        return normalize(prompt, self._schema).models

    async def run(self, prompt: Mapping[str, Any], foresight: Sequence[ModelSet] = ()) -> list[Watched]:
        """Run one prompt with its pins; tells where its components were before.

        Raises:
            simulator.memory.Killed: ComfyUI was killed for want of RAM.
            RuntimeError: the prompt failed.
        """
        self._count += 1
        prompt_id = f"prompt-{self._count}"
        normalized = normalize(prompt, self._schema)
        if self._limited and self.planner.must_free(normalized.chains):
            self._free()
        pins = self._pins(normalized.chains, foresight)
        sent = carry(normalized, pins, self._schema)
        components = {
            node_id: ref for node_id, record in sent.own.items() if (ref := self._component(record)) is not None
        }
        now = self.clock.now()
        self.planner.handle(PromptSent(prompt_id, normalized.chains, pins, components, sent.prompt), now)
        watched = [
            Watched(ref, self.residency.tier(ref), actual)
            for ref in sorted(normalized.models)
            if (actual := self._actual(ref)) is not None
        ]
        self._events.seen.clear()
        reads = len(self.ledger.reads)
        await self._executor.execute(dict(sent.prompt), prompt_id, {"client_id": "rig"}, _outputs(sent.prompt))
        if not self._executor.success:
            raise RuntimeError(f"the simulated prompt failed: {self._executor.messages[-1]}")
        disk_bytes = sum(read.bytes for read in self.ledger.reads[reads:] if not read.from_page_cache)
        self._tell(prompt_id, sent.prompt, normalized.chains, components, disk_bytes)
        self._book.used(normalized.chains, self.clock.now())
        self._read_memory()
        return watched

    def _free(self) -> None:
        """`POST /free` with both flags, as the simulated worker does it between two prompts."""
        self._machine.memory.unload_all()
        self._executor.reset()
        self.planner.handle(ModelsFreed(unload_models=True, free_memory=True), self.clock.now())
        self._read_memory()

    def _component(self, record: Mapping[str, Any]) -> ModelRef | None:
        node_class = self._schema.get(record["class_type"])
        return None if node_class is None else model_ref(node_class, record["inputs"])

    def _pins(self, own: Sequence[Chain], foresight: Sequence[ModelSet]) -> tuple[Chain, ...]:
        candidates = self._book.candidates()
        if self._limited:
            return self.planner.plan(candidates, own, foresight, self.clock.now()).chosen
        return tuple(candidate.chain for candidate in candidates)

    def _read_memory(self) -> None:
        memory = self._machine.memory
        reading = MemoryRead(memory.ram_free, memory.ram_free, memory.vram_total, memory.vram_free)
        self.planner.handle(reading, self.clock.now())

    def _actual(self, ref: ModelRef) -> Tier | None:
        """Where most of a component's weights are by the simulator's account; it has none of LoRAs.

        What is neither in VRAM nor copied to RAM (dynamic VRAM) is in RAM if the page cache has its file.
        """
        if ref.class_type == loaders.LoraLoader.NAME:
            return None
        found = {
            file: where
            for file, where in self._machine.memory.residency().items()
            if file.rpartition("/")[2] in ref.files
        }
        total = sum(where.bytes for where in found.values())
        if found and 2 * sum(where.on_gpu for where in found.values()) >= total:
            return Tier.HOT
        at_hand = sum(
            max(where.in_ram, where.on_gpu, self._machine.in_page_cache(file)) for file, where in found.items()
        )
        return Tier.WARM if found and 2 * at_hand >= total else Tier.COLD

    def _tell(
        self,
        prompt_id: str,
        prompt: Mapping[str, Any],
        own: Sequence[Chain],
        components: Mapping[str, ModelRef],
        disk_bytes: int,
    ) -> None:
        """Turn the recorded events into evidence, as the engine does."""
        timeline, steps = Timeline(), StepClock()
        for kind, data, at in (*self._events.seen, ("executing", {"node": None}, self.clock.now())):
            timeline.handle(kind, data, at)
            steps.handle(kind, data, at)
            if kind == "execution_start":
                self.planner.handle(PromptStarted(prompt_id), at)
            elif kind == "execution_cached":
                self.planner.handle(NodesCached(prompt_id, timeline.cached), at)
        behind = consumers(prompt, own, components, {name: node.RETURN_TYPES for name, node in _CLASSES.items()})
        uses = tuple(
            steps.use(node_id, behind[node_id], prompt[node_id]["class_type"], seconds)
            for node_id, seconds in timeline.node_seconds.items()
            if node_id in behind
        )
        ended = PromptEnded(prompt_id, Ending.SUCCESS, timeline.node_seconds, uses, disk_bytes)
        self.planner.handle(ended, self.clock.now())


def _outputs(prompt: Mapping[str, Any]) -> list[str]:
    return [node_id for node_id, node in prompt.items() if _CLASSES[node["class_type"]].OUTPUT_NODE]
