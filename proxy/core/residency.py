"""Where every component is, as far as it can be known.

An order by assumed residency is an order by wishful thinking. So a model of ComfyUI's memory (`node_cache`, `vram`)
predicts the tier of each component before a prompt runs, and everything that is seen corrects it: cache hits, loaders
that ran, late first steps, memory readings. What makes the model worthless (an out-of-memory error, `/free`, a new
process, somebody else's prompt) makes it doubt or forget, and its predictions are scored by independent timing.

One `Residency` for each upstream. Events in, answers out; seconds are the caller's monotonic ones.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import assert_never

from normalizer import Chain
from normalizer.models import ModelRef, ModelSet
from proxy.core.accuracy import Accuracy
from proxy.core.budget import Machine, Usage
from proxy.core.costs import LoadCosts
from proxy.core.eviction import first_needs
from proxy.core.evidence import (
    Ending,
    MemoryRead,
    ModelsFreed,
    NodesCached,
    PromptEnded,
    PromptRecalled,
    PromptSent,
    PromptStarted,
    ResidencyEvent,
    SizesRead,
    UpstreamDied,
    UpstreamStarted,
)
from proxy.core.flags import CacheMode, UpstreamFlags
from proxy.core.flights import Flight, Flights
from proxy.core.judge import Judge
from proxy.core.node_cache import NodeCache, cache_keys
from proxy.core.paging import PagedVram
from proxy.core.ram_watch import RamWatch
from proxy.core.shared_store import SharedStore
from proxy.core.sizes import Size, Sizes
from proxy.core.tiers import Tier
from proxy.core.vram import Vram

REMEMBERED = 1024
"""Components whose last use is remembered at most."""


@dataclass(frozen=True, slots=True)
class ComponentState:
    """One component as `status` shows it. `last_used` in monotonic seconds; `needed_in` counts prompts, from 1.

    `pinned`: carried along by a prompt that is at ComfyUI, or else by the last one that ran.
    """

    ref: ModelRef
    tier: Tier
    size: Size
    last_used: float | None
    needed_in: int | None
    pinned: bool


class Residency:
    """The tiers of one upstream's components. `costs` is taught what loading costs."""

    def __init__(self, sizes: Sizes, costs: LoadCosts) -> None:
        self.sizes = sizes
        self.shared = SharedStore()
        """What shared loaders keep, whatever becomes of the node cache."""
        self.costs = costs
        self._judge = Judge(sizes, costs)
        self._flags = UpstreamFlags()
        self._machine = Machine(0, 0)
        self._ram = RamWatch()
        self._cache = NodeCache(self._flags, 0)
        self._vram: Vram | PagedVram = Vram(self._flags, 0)
        self._ignorant = True
        self._components: dict[str, ModelRef] = {}
        self._flights = Flights()
        self._last_used: dict[ModelRef, float] = {}
        self._host_ram_free: int | None = None
        self._free_later: ModelsFreed | None = None
        self._last_own: ModelSet = frozenset()
        self._last_pins: ModelSet = frozenset()
        self._tiers: dict[ModelRef, Tier] = {}
        """What was answered since the last event."""

    # Answers

    def tier(self, ref: ModelRef) -> Tier:
        """Where this component's weights are now; one decision asks this hundreds of times."""
        tier = self._tiers.get(ref)
        if tier is None:
            tier = self._tiers[ref] = self._tier_now(ref)
        return tier

    def _tier_now(self, ref: ModelRef) -> Tier:
        alive = self._cache.alive(ref)
        if not alive and ref not in self.shared.refs():
            return Tier.UNKNOWN if alive is None or self._ignorant else Tier.COLD
        return self._vram.tier(ref, self.sizes.bytes_of(ref))

    def will_hold(self, chain: Chain, behind: Collection[str] = ()) -> bool:
        """Whether ComfyUI can still hold this chain when a prompt sent now begins: else a pin would keep nothing.

        `behind` are the prompts that were sent before, and will run after it all the same.
        """
        alive = not self._reset_pending and (any(map(self._cache.holds_node, chain.nodes)) or self._ignorant)
        for prompt_id, flight in self._flights.items():
            if (flight.started and self._reset_pending) or prompt_id in behind:
                continue
            mine = any(key.node_id in chain.nodes for key in flight.own)
            carried = any(key.node_id in chain.nodes for key in flight.pins)
            if mine:
                alive = True
            elif not flight.started and not carried and self._cache.forgets_uncarried:
                alive = False
        return alive

    def usage(self) -> Usage:
        """What others take, for the budget."""
        return Usage(self._ram.others, self._vram.others)

    def pinned_bytes(self, prompt_id: str) -> int:
        """The bytes that the pins of a sent prompt add to its own components."""
        flight = self._flights.get(prompt_id)
        return 0 if flight is None else flight.pinned_bytes(self.sizes.bytes_of)

    @property
    def there_then(self) -> ModelSet:
        """The components that may be there when a prompt sent now begins."""
        return (frozenset() if self._reset_pending else self._cache.refs()) | self._flights.brought

    @property
    def lingering(self) -> ModelSet:
        """The components that stay whether they are pinned or not: newer results displace them, or they are let go."""
        cached = self._cache.refs() if self._flags.cache is CacheMode.LRU else frozenset()
        return cached | self.shared.refs()

    @property
    def coming(self) -> tuple[ModelSet, ...]:
        """The components of the prompts that wait at ComfyUI, in the order in which they were sent."""
        return self._flights.coming

    @property
    def forgets_uncarried(self) -> bool:
        """Whether ComfyUI certainly lets go of what the next prompt does not carry."""
        return self._cache.forgets_uncarried

    @property
    def lives(self) -> bool:
        """Whether ComfyUI holds anything, as far as is known."""
        return bool(self._cache.refs())

    @property
    def holds_pins(self) -> bool:
        """Whether ComfyUI holds components that its last prompt did not need itself."""
        return not self._cache.refs() <= self._last_own

    @property
    def may_be_hot(self) -> bool:
        """Whether anything may lie in VRAM."""
        return any(self.tier(ref) in {Tier.HOT, Tier.UNKNOWN} for ref in self._cache.refs())

    @property
    def running_with_pins(self) -> bool:
        """Whether a prompt that carries pins is running."""
        return self._flights.running_with_pins

    def handed_over(self, prompt_id: str) -> frozenset[str]:
        """The shared loaders of a prompt that runs which were thought to find their models under their keys."""
        flight = self._flights.get(prompt_id)
        return frozenset() if flight is None else flight.handed_over

    def accuracy(self) -> Accuracy:
        """How often the predicted tier was the one that timing showed."""
        return self._judge.scores.accuracy()

    def components(self, foresight: Sequence[ModelSet] = ()) -> tuple[ComponentState, ...]:
        """All components that were used or are held, the most recently used first."""
        pinned = self._flights.carried if self._flights else self._last_pins & self._held()
        needed = first_needs(foresight)
        states = [
            ComponentState(ref, self.tier(ref), self.sizes.size(ref), used, needed.get(ref), ref in pinned)
            for ref, used in self._last_used.items()
        ]
        return tuple(sorted(states, key=lambda state: (-(state.last_used or 0.0), state.ref)))

    # Events

    def handle(self, event: ResidencyEvent, now: float) -> None:
        """Take in one event."""
        try:
            self._take_in(event, now)
        finally:
            self._tiers.clear()

    def _take_in(self, event: ResidencyEvent, now: float) -> None:  # noqa: C901 - a table of events, one line each
        match event:
            case UpstreamStarted():
                self._begin(event)
            case UpstreamDied():
                self._lose_everything()
            case SizesRead():
                self.sizes.listed(event.sizes)
            case MemoryRead():
                self._read(event)
            case PromptSent():
                self._send(event)
            case PromptRecalled():
                self._flights.pop(event.prompt_id, None)
            case PromptStarted():
                self._start(event.prompt_id, now)
            case NodesCached():
                self._see_cached(event)
            case PromptEnded():
                self._end(event)
            case ModelsFreed():
                self._free(event)
            case _:
                assert_never(event)

    def _begin(self, event: UpstreamStarted) -> None:
        sent = self._flights  # since the one before was lost: it has got them
        self._flags = event.flags
        self._machine = event.machine
        self._ram = RamWatch()
        self._cache = NodeCache(event.flags, event.machine.host_ram)
        if event.flags.dynamic_vram:
            self._vram = PagedVram(event.flags, event.machine.vram, event.machine.host_ram)
        else:
            self._vram = Vram(event.flags, event.machine.vram)
        self._lose_everything()
        self._ignorant = not event.fresh
        self._flights = sent
        for flight in sent.values():
            if flight.started:
                for key, ref in flight.own.items():
                    self._cache.put(key, ref)

    def _lose_everything(self) -> None:
        self._cache.clear()
        self.shared.clear()
        self._vram.unload_all()
        self._flights = Flights()
        self._free_later = None
        self._ignorant = False

    def _read(self, event: MemoryRead) -> None:
        held, running = self._held(), self._flights.running
        self._host_ram_free = event.host_ram_free
        if event.ram_free is not None:
            self._ram.see_taken(self._machine.ram - event.ram_free, held, self._in_ram, running=running)
            if not held and not running and not self._ignorant:
                self._ram.base = self._ram.others or 0
        if running:
            return
        if event.host_ram_free is not None:
            self._vram.observe_ram(event.host_ram_free)
        if event.vram_total is not None and event.vram_free is not None:
            self._vram.observe(event.vram_total, event.vram_free, event.vram_others)
        if event.ram_free is not None:
            self._ram.see_idle(event.ram_free + (event.vram_free or 0), held, self.sizes)
            if self._shows_in_ram:
                self._cache.observe(self._machine.ram - event.ram_free - self._ram.base, self._in_ram)

    @property
    def _shows_in_ram(self) -> bool:
        """Whether RAM readings tell what ComfyUI holds."""
        return self._vram.shows_in_ram if isinstance(self._vram, PagedVram) else self._ram.shows_weights

    def _in_ram(self, ref: ModelRef) -> int:
        return self._vram.ram_of(ref, self.sizes.bytes_of(ref))

    def _send(self, event: PromptSent) -> None:
        self._components |= event.components
        self._flights[event.prompt_id] = Flight(
            event, cache_keys(event.own, self._components), cache_keys(event.pins, self._components)
        )

    def _start(self, prompt_id: str, now: float) -> None:
        flight = self._flights.get(prompt_id)
        if flight is None:
            self._cache.doubt()
            self._vram.doubt()
            return
        if flight.started:
            return
        flight.started = True
        self._last_own, self._last_pins = flight.needs, flight.carries
        flight.predicted = {ref: self._tier_now(ref) for ref in flight.needs}
        flight.held = frozenset(filter(self._cache.may_hold, flight.own))
        flight.known = self._cache.refs() & flight.needs
        shared = flight.sent.shared
        flight.handed_over = frozenset(node_id for node_id, key in shared.items() if self.shared.holds(key))
        self._cache.start(flight.own, flight.pins, flight.sent.prompt, self._in_ram, self._host_ram_free)
        for key, ref in flight.own.items():
            self._cache.put(key, ref)
            self._last_used.pop(ref, None)
            self._last_used[ref] = now
        while len(self._last_used) > REMEMBERED:
            del self._last_used[next(iter(self._last_used))]
        self._vram.begin_prompt()
        self._vram.keep_only(self._held())
        self._ignorant = self._ignorant and not self._cache.forgets_uncarried

    def _held(self) -> ModelSet:
        """The components that are or may be in memory, in the node cache or under keys."""
        return self._cache.refs() | self.shared.refs()

    def _see_cached(self, event: NodesCached) -> None:
        flight = self._flights.get(event.prompt_id)
        if flight is None:
            return
        flight.cached = event.nodes
        shared = flight.sent.shared.items()
        # A shared loader whose result is in the node cache does not run: what it keeps under its key is not asked for.
        self.shared.use({key: self._components[node_id] for node_id, key in shared if node_id not in event.nodes})
        for key, ref in flight.pins.items():
            if key.node_id in event.nodes:
                self._cache.put(key, ref)
            else:
                self._cache.remove(key)

    def _end(self, event: PromptEnded) -> None:
        flight = self._flights.pop(event.prompt_id, None)
        if flight is not None:
            for finding in self._judge.settle(flight, event, self._flags):
                if finding.predicted is not finding.seen:
                    self._vram.missed(finding.predicted, finding.seen)
            for key in flight.own:
                if key.node_id not in flight.cached and key.node_id not in event.node_seconds:
                    self._cache.remove(key)
            for use in event.uses:
                self._vram.use(use, self.sizes.bytes_of)
        if event.ending is Ending.OUT_OF_VRAM or not self._flags.smart_memory:
            self._vram.unload_all()
        self._cache.end_prompt()
        self._vram.keep_only(self._held())
        if self._free_later is not None and not self._flights.running:
            self._free(self._free_later)

    def _free(self, event: ModelsFreed) -> None:
        """ComfyUI frees between two prompts (`main.py`, `prompt_worker`)."""
        if self._flights.running:
            earlier = self._free_later or ModelsFreed(unload_models=False, free_memory=False)
            self._free_later = ModelsFreed(
                earlier.unload_models or event.unload_models, earlier.free_memory or event.free_memory
            )
            return
        self._free_later = None
        self._vram.unload_all()
        if event.free_memory:
            self._cache.clear()
            self._ignorant = False

    @property
    def _reset_pending(self) -> bool:
        """Whether the node cache will be emptied when the running prompt has ended."""
        return self._free_later is not None and self._free_later.free_memory
