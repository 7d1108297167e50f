"""A stage for the service: a clock that a test moves, an engine that does what a test says, a drawer for the state."""

import asyncio
import contextlib
import heapq
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from normalizer import ModelRef, ModelSet, normalize
from tests.warmup.schemas import schema
from warmup.plan import Tier
from warmup.ports import WarmResult
from warmup.prompts import Surroundings
from warmup.report import Row
from warmup.service import WarmupService
from warmup.state import Result

T0 = 1_711_800_000.0
"""2024-03-30 12:00 UTC."""


async def settle() -> None:
    """Let everything run that can run without time passing."""
    for _ in range(20):
        await asyncio.sleep(0)


class FakeClock:
    def __init__(self) -> None:
        self.time = T0
        self._waiters: list[tuple[float, int, asyncio.Event]] = []
        self._count = 0

    def now(self) -> float:
        return self.time

    async def wait(self, event: asyncio.Event, seconds: float) -> None:
        passed = asyncio.Event()
        self._count += 1
        heapq.heappush(self._waiters, (self.time + seconds, self._count, passed))
        tasks = [asyncio.ensure_future(event.wait()), asyncio.ensure_future(passed.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    async def advance(self, seconds: float) -> None:
        """Move on to each moment that somebody waits for, one after the other."""
        end = self.time + seconds
        await settle()
        while self._waiters and self._waiters[0][0] <= end:
            self.time, _, passed = heapq.heappop(self._waiters)
            passed.set()
            await settle()
        self.time = end

    async def jump(self, seconds: float) -> None:
        """Sleep like a machine that was closed: time has passed and nobody was awake."""
        self.time += seconds
        await self.advance(5)


class Drawer:
    def __init__(self) -> None:
        self.text: str | None = None

    def load(self) -> str | None:
        return self.text

    def save(self, text: str) -> None:
        self.text = text


@dataclass
class Ran:
    name: str
    prompt: Mapping[str, Any]
    priority: int
    time_limit: float
    files: tuple[str, ...]


@dataclass
class Engine:
    """Loads what it is given, unless told how a prompt shall end; with `hold` prompts do not end by themselves."""

    around: Surroundings | None = field(default_factory=lambda: Surroundings(schema()))
    idle: float | None = 0.0
    tiers: dict[ModelRef, Tier] = field(default_factory=dict)
    endings: dict[str, WarmResult] = field(default_factory=dict)
    ran: list[Ran] = field(default_factory=list)
    kept: list[tuple[ModelSet, float]] = field(default_factory=list)
    running: dict[str, asyncio.Future[WarmResult]] = field(default_factory=dict)
    progress: Callable[[float], None] | None = None
    hold: bool = False
    taken_back: int = 0

    def surroundings(self) -> Surroundings | None:
        return self.around

    def tier(self, ref: ModelRef) -> Tier:
        return self.tiers.get(ref, Tier.COLD)

    def idle_for(self) -> float | None:
        return self.idle

    def keep(self, models: ModelSet, seconds: float) -> None:
        self.kept.append((models, seconds))

    async def run(
        self,
        prompt: Mapping[str, Any],
        *,
        name: str,
        priority: int,
        time_limit: float,
        progress: Callable[[float], None],
    ) -> WarmResult:
        models = normalize(prompt, schema()).models
        files = tuple(ref.label for ref in sorted(models))
        self.ran.append(Ran(name, prompt, priority, time_limit, files))
        self.progress = progress
        result = self.endings.get(name, WarmResult(Result.WARMED, 1.5))
        if self.hold:
            self.running[name] = asyncio.get_running_loop().create_future()
            try:
                result = await self.running[name]
            except asyncio.CancelledError:
                self.taken_back += 1
                raise
        if result.result is Result.WARMED:
            self.tiers |= dict.fromkeys(models, Tier.HOT)
        return result

    @property
    def names(self) -> list[str]:
        return [ran.name for ran in self.ran]

    def empty(self) -> ModelSet:
        """Everything leaves VRAM and RAM."""
        gone = frozenset(self.tiers)
        self.tiers.clear()
        return gone


def entry(name: str, file: str = "ae.safetensors", **keys: Any) -> str:
    lines = [f'name = "{name}"', 'loader = "VAELoader"', f'inputs.vae_name = "{file}"']
    return "\n".join(["[[entry]]", *lines, *(f"{key} = {json.dumps(value)}" for key, value in keys.items())]) + "\n"


class Stage:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "warmup.toml"
        self.clock = FakeClock()
        self.engine = Engine()
        self.drawer = Drawer()
        self.writes = 0

    def write(self, text: str) -> None:
        self.path.write_text(text)
        self.writes += 1
        os.utime(self.path, (T0 + self.writes, T0 + self.writes))

    @asynccontextmanager
    async def playing(self, text: str | None = None, **options: Any) -> AsyncIterator[WarmupService]:
        if text is not None:
            self.write(text)
        service = WarmupService(self.path, self.engine, self.clock, self.drawer, **options)
        task = asyncio.create_task(service.run())
        await settle()
        try:
            yield service
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def row(service: WarmupService, name: str) -> Row:
    [found] = [row for row in service.report().rows if row.name == name]
    return found
