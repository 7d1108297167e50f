"""`GET /comfykeep/status`: where the models are, what stays and why, and how good all of that is."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict

from aiohttp import web

from normalizer import ModelRef, ModelSet
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
from proxy.engine.records import Record
from proxy.upstream.readings import Sourced

_HEAD = 10
"""Waiting prompts that are shown."""


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
        running, waiting = self._prompts()
        return Status(
            mode=engine.mode,
            waiting_in_journal=engine.waiting_in_journal,
            upstream=self._upstream(running, waiting),
            slow_pins=tuple(
                SlowPin(models=_labels(pin.models), seconds=pin.seconds) for pin in engine.upstream.start_delays.slow
            ),
            health=engine.pulse.health,
            totals=TotalsStatus(**asdict(engine.totals)),
        )

    def _upstream(self, running: Sequence[PromptStatus], waiting: Sequence[PromptStatus]) -> UpstreamStatus:
        upstream = self._engine.upstream
        planner, memory = upstream.planner, upstream.memory
        usage, budget = planner.residency.usage(), planner.budget
        return UpstreamStatus(
            url=upstream.client.base_url,
            up=self._engine.feed.up,
            version=upstream.stats.version if upstream.stats else None,
            ram=self._memory(memory.ram, planner.ram_reserve, usage.ram_others),
            vram=self._memory(memory.vram, planner.limits.vram_reserve, usage.vram_others),
            budget=BudgetStatus(chains=budget.chains, pins=budget.pins, ram=budget.ram, vram=budget.vram),
            components=self._components(),
            accuracy=self._accuracy(),
            running=tuple(running),
            queue=tuple(waiting[:_HEAD]),
            waiting=len(waiting),
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

    def _components(self) -> tuple[ComponentStatus, ...]:
        planner = self._engine.upstream.planner
        foreseen = self._foreseen()
        why = {ref: reason.text for reason in reversed(planner.last_plan.reasons) for ref in reason.models}
        states = planner.residency.components([models for _, models in foreseen])
        return tuple(self._component(state, foreseen, why.get(state.ref, "")) for state in states)

    def _component(self, state: ComponentState, foreseen: Sequence[tuple[str, ModelSet]], why: str) -> ComponentStatus:
        return ComponentStatus(
            label=state.ref.label,
            class_type=state.ref.class_type,
            files=tuple(state.ref.files),
            tier=state.tier,
            size=state.size.bytes,
            size_source=state.size.source,
            last_used=None if state.last_used is None else max(0.0, self._clock() - state.last_used),
            needed_in=state.needed_in,
            needed_by=None if state.needed_in is None else foreseen[state.needed_in - 1][0],
            pinned=state.pinned,
            why=why,
        )

    def _foreseen(self) -> Sequence[tuple[str, ModelSet]]:
        """The prompts that wait, with what they need, the next one first."""
        if self._engine.held is not None:
            return [(held.prompt_id, held.event.models) for held in self._engine.held.holding.lookahead.waiting()]
        return [(record.prompt_id, frozenset(record.components.values())) for record in self._waiting_records()]

    def _accuracy(self) -> AccuracyStatus:
        accuracy = self._engine.upstream.planner.residency.accuracy()
        tiers = {tier: TierAccuracy(uses=score.uses, right=score.right) for tier, score in accuracy.tiers.items()}
        return AccuracyStatus(share=accuracy.share, tiers=tiers)

    def _prompts(self) -> tuple[list[PromptStatus], list[PromptStatus]]:
        records = {record.prompt_id: record for record in self._engine.records.unfinished()}
        running = [
            _of_record(record, "running") for record in records.values() if record.timeline.started_at is not None
        ]
        if self._engine.held is None:
            return running, [_of_record(record, "waiting") for record in self._waiting_records()]
        shown = {prompt.prompt_id for prompt in running}
        waiting = [
            PromptStatus(prompt_id=row.prompt_id, models=_labels(row.models), state=row.state, expected_start=row.start)
            for row in self._engine.held.operations.rows()
            if row.prompt_id not in shown
        ]
        return running, waiting

    def _waiting_records(self) -> list[Record]:
        return [
            record
            for record in self._engine.records.unfinished()
            if record.timeline.started_at is None and not record.handling.hidden
        ]


def _of_record(record: Record, state: str) -> PromptStatus:
    models = _labels(record.components.values())
    return PromptStatus(prompt_id=record.prompt_id, models=models, state=state, expected_start=None)


def _labels(models: Iterable[ModelRef]) -> tuple[str, ...]:
    return tuple(sorted({ref.label for ref in models}))
