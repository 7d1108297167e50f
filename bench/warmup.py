"""`comfykeep bench warmup`: what warming saves the first client, and what it costs those who work meanwhile.

Both on the simulated ComfyUI and its clock. The first client comes right after a start: once to a proxy without a
schedule, once to one that reported ready after it had warmed the model. Then clients come at random moments with a
model that is loaded, once alone and once while three others are warmed; each prompt meets at most one that already
runs.
"""

import asyncio
import json
import logging
import random
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.client import BenchClient, connected
from bench.errors import BenchError
from bench.workflows import sdxl
from proxy.app import Running, running
from proxy.config import Config, JournalSection, ProxySection, UpstreamSection, WarmupSection
from simulator import Simulator, SimulatorConfig
from warmup import Result

MACHINE = SimulatorConfig(time_scale=10.0)
PROMPTS = 12
PAUSE = 20.0
"""Simulated seconds between a client's prompts at most."""
OTHERS = ("photoreal_xl.safetensors", "sketchbook_15.safetensors", "flux_dev_fp8.safetensors")
_FIRST = "dreamscape_xl.safetensors"
_READY_WITHIN = 60.0


@dataclass(frozen=True, slots=True)
class First:
    """The first prompt after a start: its simulated seconds, and the reads of model files that it waited for."""

    seconds: float
    model_loads: int


@dataclass(frozen=True, slots=True)
class Clients:
    """Prompts that came at random moments: simulated seconds from submission to end."""

    mean_seconds: float
    longest_seconds: float


@dataclass(frozen=True, slots=True)
class Figures:
    """All that was measured; `longest_warmup_seconds` is the longest single warm-up prompt meanwhile."""

    prompts: int
    first_cold: First
    first_warmed: First
    clients_alone: Clients
    clients_meanwhile: Clients
    warmups: int
    longest_warmup_seconds: float


@asynccontextmanager
async def _served(comfyui: Simulator, *, warms: str = "") -> AsyncIterator[Running]:
    """A proxy that is ready; `warms` is the checkpoint of its schedule."""
    with tempfile.TemporaryDirectory() as folder:
        schedule = Path(folder) / "warmup.toml"
        entry = '[[entry]]\nname = "first"\nloader = "CheckpointLoaderSimple"\non = ["upstream-start"]\n'
        schedule.write_text(entry + f'inputs = {{ ckpt_name = "{warms}" }}\n' if warms else "", encoding="utf-8")
        config = Config(
            proxy=ProxySection(listen="127.0.0.1:0"),
            upstream=UpstreamSection(url=comfyui.url),
            journal=JournalSection(path=str(Path(folder) / "journal.sqlite3")),
            warmup=WarmupSection(schedule=str(schedule), gate_readiness=True),
        )
        async with running(config) as proxy, asyncio.timeout(None) as limit:
            limit.reschedule(asyncio.get_running_loop().time() + _READY_WITHIN)
            while not (proxy.engine.upstream.schema.complete and proxy.warmup.ready()):  # noqa: ASYNC110 - as a prober
                await asyncio.sleep(0.01)
            limit.reschedule(None)
            yield proxy


async def _timed(comfyui: Simulator, client: BenchClient, seed: int) -> float:
    begun = comfyui.clock.now()
    run = await (await client.submit(sdxl(seed))).ended()
    if run.outcome != "success":
        raise BenchError(f"a prompt ended with {run.outcome}")
    return comfyui.clock.now() - begun


async def _first(machine: SimulatorConfig, *, warms: str) -> First:
    async with Simulator(machine) as comfyui, _served(comfyui, warms=warms) as proxy, connected(proxy.url) as client:
        before = len(comfyui.loads())
        seconds = await _timed(comfyui, client, seed=0)
        return First(seconds, len(comfyui.loads()) - before)


async def _clients(
    machine: SimulatorConfig, prompts: int, *, meanwhile: tuple[str, ...]
) -> tuple[Clients, list[float]]:
    """Let a client work, and have these files warmed meanwhile; the seconds of each warm-up, too."""
    pauses = random.Random(3)
    async with Simulator(machine) as comfyui, _served(comfyui, warms=_FIRST) as proxy, connected(proxy.url) as client:
        await _timed(comfyui, client, seed=0)
        warming = [asyncio.create_task(proxy.warmup.warm_file(file)) for file in meanwhile]
        seconds = []
        for seed in range(1, prompts + 1):
            await comfyui.clock.sleep(pauses.uniform(0, PAUSE))
            seconds.append(await _timed(comfyui, client, seed))
        outcomes = await asyncio.gather(*warming)
    for outcome in outcomes:
        if outcome.result is not Result.WARMED:
            raise BenchError(f"a warm-up ended with {outcome.result}: {outcome.detail}")
    return Clients(fmean(seconds), max(seconds)), [outcome.seconds * machine.time_scale for outcome in outcomes]


async def measure(machine: SimulatorConfig = MACHINE, prompts: int = PROMPTS) -> Figures:
    """Run everything; some 40 seconds with the defaults.

    Raises:
        BenchError: when a prompt or a warm-up fails.
    """
    cold, warmed = await _first(machine, warms=""), await _first(machine, warms=_FIRST)
    alone, _ = await _clients(machine, prompts, meanwhile=())
    beside, warmups = await _clients(machine, prompts, meanwhile=OTHERS)
    return Figures(prompts, cold, warmed, alone, beside, len(warmups), max(warmups))


def run(json_output: bool) -> None:
    """Measure and print.

    Raises:
        BenchError: when a prompt or a warm-up fails.
    """
    logging.disable(logging.WARNING)
    show(asyncio.run(measure()), json_output=json_output)


def show(figures: Figures, *, json_output: bool) -> None:
    """Print them, for programs or for people."""
    if json_output:
        print(json.dumps(_as_json(figures)))  # noqa: T201 - the answer of a command
        return
    console = Console(soft_wrap=True, highlight=False)
    first = Table(title="The first prompt after a start, in simulated seconds")
    for heading in ("", "seconds", "model loads it waits for"):
        first.add_column(heading, justify="left" if not heading else "right")
    for name, row in (("nothing warmed", figures.first_cold), ("its model on the schedule", figures.first_warmed)):
        first.add_row(name, f"{row.seconds:.1f}", str(row.model_loads))
    console.print(first)
    clients = Table(title=f"{figures.prompts} prompts at random moments, in simulated seconds each")
    for heading in ("", "mean", "longest"):
        clients.add_column(heading, justify="left" if not heading else "right")
    for name, side in (("alone", figures.clients_alone), ("while others are warmed", figures.clients_meanwhile)):
        clients.add_row(name, f"{side.mean_seconds:.1f}", f"{side.longest_seconds:.1f}")
    console.print(clients)
    console.print(f"{figures.warmups} warm-ups meanwhile, the longest {figures.longest_warmup_seconds:.1f} s.")


def _as_json(figures: Figures) -> dict[str, Any]:
    assumptions = {"pause_seconds": PAUSE, "time_scale": MACHINE.time_scale, "warmed": OTHERS}
    return {**asdict(figures), "assumptions": assumptions}
