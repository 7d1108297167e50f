"""`GET /comfykeep/status`: where the models are, what stays and why, and how good all of that is."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass

from aiohttp import web

from normalizer import ModelRef
from proxy.core.comfy_queue import Waiting
from proxy.core.eviction import PinReason
from proxy.core.readings import RamReading, VramReading
from proxy.core.residency import ComponentState
from proxy.downstream.status_model import (
    AccuracyStatus,
    BudgetStatus,
    ComponentStatus,
    MemoryStatus,
    PromptStatus,
    SlowPin,
    Status,
    TierAccuracy,
    TotalsStatus,
    UpstreamStatus,
)
from proxy.engine import Engine
from proxy.engine.operating import Listing
from proxy.upstream.readings import Sourced

_HEAD = 10
"""Waiting prompts that are shown."""
_FORESEEN = 1_000
"""Held prompts that are looked through for what they need."""


@dataclass(frozen=True, slots=True)
class _Prompt:
    """A prompt that runs or waits; `start` in Unix seconds, where it is expected."""

    item: Waiting
    state: str
    start: float | None = None


class StatusView:
    """The handler. `clock` gives the engine's monotonic seconds."""

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._clock = clock

    async def show(self, _request: web.Request) -> web.StreamResponse:
        """`GET /comfykeep/status`."""
        return web.json_response(text=self.status().model_dump_json())

    def status(self) -> Status:
        """As things are now."""
        engine = self._engine
        return Status(
            mode=engine.mode,
            waiting_in_journal=engine.waiting_in_journal,
            upstream=self._upstream(),
            slow_pins=tuple(
                SlowPin(models=_labels(pin.models), seconds=pin.seconds) for pin in engine.upstream.start_delays.slow
            ),
            health=engine.pulse.health,
            totals=TotalsStatus(**asdict(engine.totals)),
        )

    def _upstream(self) -> UpstreamStatus:
        upstream, (waiting, total) = self._engine.upstream, self._waiting()
        planner, memory = upstream.planner, upstream.memory
        usage, budget = planner.residency.usage(), planner.budget
        return UpstreamStatus(
            url=upstream.client.base_url,
            up=self._engine.feed.up,
            version=upstream.stats.version if upstream.stats else None,
            ram=self._memory(memory.ram, planner.ram_reserve, usage.ram_others),
            vram=self._memory(memory.vram, planner.limits.vram_reserve, usage.vram_others),
            budget=BudgetStatus(chains=budget.chains, pins=budget.pins, ram=budget.ram, vram=budget.vram),
            components=self._components(waiting),
            accuracy=self._accuracy(),
            running=self._running(),
            queue=tuple(map(_shown, waiting[:_HEAD])),
            waiting=total,
        )

    def _memory(
        self, reading: Sourced[RamReading] | Sourced[VramReading] | None, reserve: int, others: int | None
    ) -> MemoryStatus | None:
        if reading is None:
            return None
        return MemoryStatus(
            total=reading.value.total,
            free=reading.value.free,
            reserve=reserve,
            source=reading.source,
            age=max(0.0, self._clock() - reading.at),
            others=others,
        )

    def _components(self, waiting: Sequence[_Prompt]) -> tuple[ComponentStatus, ...]:
        planner = self._engine.upstream.planner
        # Of several chains with one component the most important one that is kept speaks for it.
        ranked = sorted(planner.last_plan.reasons, key=lambda reason: not reason.kept)
        why = {ref: reason for reason in reversed(ranked) for ref in reason.models}
        states = planner.residency.components([prompt.item.models for prompt in waiting])
        return tuple(self._component(state, waiting, why.get(state.ref)) for state in states)

    def _component(self, state: ComponentState, waiting: Sequence[_Prompt], why: PinReason | None) -> ComponentStatus:
        return ComponentStatus(
            label=state.ref.label,
            class_type=state.ref.class_type,
            files=tuple(state.ref.files),
            tier=state.tier,
            size=state.size.bytes,
            size_source=state.size.source,
            last_used=None if state.last_used is None else max(0.0, self._clock() - state.last_used),
            needed_in=state.needed_in,
            needed_by=None if state.needed_in is None else waiting[state.needed_in - 1].item.prompt_id,
            pinned=state.pinned,
            kept=None if why is None else why.kept,
            why="" if why is None else why.text,
        )

    def _accuracy(self) -> AccuracyStatus:
        accuracy = self._engine.upstream.planner.residency.accuracy()
        tiers = {tier: TierAccuracy(uses=score.uses, right=score.right) for tier, score in accuracy.tiers.items()}
        return AccuracyStatus(share=accuracy.share, tiers=tiers)

    def _running(self) -> tuple[PromptStatus, ...]:
        return tuple(_shown(_Prompt(item, "running")) for item in self._engine.visible.running())

    def _waiting(self) -> tuple[list[_Prompt], int]:
        """What waits, here or at ComfyUI, in the order of its turn, and how much: what is not held runs before what is.

        Of what is held there may be ten thousand; what the last of them need is nothing to plan by.
        """
        held = self._engine.held
        listing = Listing([], [], [], 0) if held is None else held.operations.listing(_FORESEEN)
        rows = [*listing.running, *listing.staged, *listing.waiting]
        running = {item.prompt_id for item in self._engine.visible.running()}
        known = {row.prompt_id for row in rows}
        not_held = [_Prompt(item, "waiting") for item in self._engine.visible.waiting() if item.prompt_id not in known]
        shown = not_held + [
            _Prompt(Waiting(row.prompt_id, None, row.models), row.state, row.start)
            for row in rows
            if row.prompt_id not in running
        ]
        return shown, len(shown) + listing.waiting_total - len(listing.waiting)


def _shown(prompt: _Prompt) -> PromptStatus:
    return PromptStatus(
        prompt_id=prompt.item.prompt_id,
        models=_labels(prompt.item.models),
        state=prompt.state,
        ours=prompt.item.ours,
        expected_start=prompt.start,
    )


def _labels(models: Iterable[ModelRef]) -> tuple[str, ...]:
    return tuple(sorted({ref.label for ref in models}))
