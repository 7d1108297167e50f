"""`comfykeep demo`: a mixed workload on a simulated ComfyUI, direct, with the best flags, and through the proxy.

Each side gets the same prompts in the same order, all submitted at once by one client, on a ComfyUI that has just
started. Loads are counted in the simulator's ledger of disk reads, and seconds on its clock; the proxy is not asked.
That clock is moved by simulated work alone, so the figures are the same on every machine however busy it is. What it
leaves out is the proxy's own work: that is done while the GPU is busy with an earlier prompt, for all were submitted at
once, and is told below the table, in real time. A workload with one model runs beside it: there is nothing to keep, so
its ratio is 1.
"""

import asyncio
import json
import logging
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench.client import connected
from bench.errors import BenchError
from bench.fronting import fronting
from bench.workflows import flux, sd15_with_lora, sdxl
from simulator import Simulator, SimulatorConfig

PROMPTS = 24
LOW_THRESHOLDS = (6.0, 6.0)
"""GB of RAM that `--cache-ram` leaves free: about a tenth of the machine, as ComfyUI's own first threshold."""

_SIDES = ("direct", "best_flags", "comfykeep")
"""What JSON tells; the table beside it, on stderr, has the rest."""

MACHINE = SimulatorConfig(time_scale=math.inf)


@dataclass(frozen=True, slots=True)
class Row:
    """One side: reads of model files from disk, simulated seconds from the first submission to the last end."""

    model_loads: int
    seconds: float
    prompts_per_minute: float
    cpu_per_prompt: float
    """Real seconds of the CPU for client, simulator and proxy together."""


def mixed_workload() -> list[dict[str, Any]]:
    """Three workflows over different models, in random order as from several users."""
    rng = random.Random(7)
    workflows = (sdxl, flux, sd15_with_lora)
    return [rng.choice(workflows)(seed) for seed in range(PROMPTS)]


def one_model_workload() -> list[dict[str, Any]]:
    """One workflow over and over."""
    return [sdxl(seed) for seed in range(PROMPTS // 2)]


async def run_row(
    machine: SimulatorConfig, prompts: Sequence[Any], step: Callable[[], None], *, through_proxy: bool
) -> Row:
    """Start a ComfyUI, run the prompts, stop it.

    Raises:
        BenchError: when a prompt does not succeed.
    """
    async with Simulator(machine) as comfyui:
        if not through_proxy:
            return await _run(comfyui, comfyui.url, prompts, step)
        async with fronting(comfyui.url) as proxy:
            return await _run(comfyui, proxy.url, prompts, step)


async def _run(comfyui: Simulator, url: str, prompts: Sequence[Any], step: Callable[[], None]) -> Row:
    async with connected(url) as client:
        started, worked = comfyui.clock.now(), time.process_time()
        runs = [await client.submit(prompt) for prompt in prompts]
        for run in runs:
            await run.ended()
            if run.outcome != "success":
                raise BenchError(f"a prompt ended with {run.outcome}")
            step()
        seconds, cpu = comfyui.clock.now() - started, time.process_time() - worked
    return Row(len(comfyui.loads()), seconds, 60 * len(prompts) / seconds, cpu / len(prompts))


async def measure(console: Console) -> dict[str, Row]:
    """All rows by name."""
    mixed, single = mixed_workload(), one_model_workload()
    flags = replace(MACHINE, cache_ram=LOW_THRESHOLDS)
    plan: list[tuple[str, SimulatorConfig, list[dict[str, Any]], bool]] = [
        ("direct", MACHINE, mixed, False),
        ("best_flags", flags, mixed, False),
        ("comfykeep", MACHINE, mixed, True),
        ("one_model_direct", MACHINE, single, False),
        ("one_model_comfykeep", MACHINE, single, True),
    ]
    rows: dict[str, Row] = {}
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("", total=sum(len(prompts) for _, _, prompts, _ in plan))
        for name, machine, prompts, through_proxy in plan:
            progress.update(task, description=name.replace("_", " "))
            rows[name] = await run_row(machine, prompts, lambda: progress.advance(task), through_proxy=through_proxy)
    return rows


def run(*, json_output: bool) -> None:
    """Measure and print.

    Raises:
        BenchError: when a prompt does not succeed.
    """
    logging.disable(logging.WARNING)
    console = Console(stderr=json_output)
    rows = asyncio.run(measure(console))
    ratio = rows["direct"].seconds / rows["comfykeep"].seconds
    _show(console, rows, ratio)
    if json_output:
        sides = {name: {"model_loads": rows[name].model_loads, "seconds": rows[name].seconds} for name in _SIDES}
        print(json.dumps({**sides, "ratio": ratio}))  # noqa: T201 - the answer of a command


def _show(console: Console, rows: dict[str, Row], ratio: float) -> None:
    table = Table(title=f"{PROMPTS} prompts over three workflows, cold start each time")
    for heading in ("", "model loads", "seconds", "prompts per minute", "times faster"):
        table.add_column(heading, justify="left" if not heading else "right")
    labels = {
        "direct": "ComfyUI, default flags",
        "best_flags": f"ComfyUI, --cache-ram {LOW_THRESHOLDS[0]:g} {LOW_THRESHOLDS[1]:g}",
        "comfykeep": "ComfyUI, default flags, behind comfykeep",
        "one_model_direct": f"one model only ({PROMPTS // 2} prompts), direct",
        "one_model_comfykeep": "one model only, behind comfykeep",
    }
    for name, row in rows.items():
        base = rows["one_model_direct" if name.startswith("one_model") else "direct"]
        if name == "one_model_direct":
            table.add_section()
        cells = (f"{row.seconds:.1f}", f"{row.prompts_per_minute:.1f}", f"{base.seconds / row.seconds:.2f}")
        table.add_row(labels[name], str(row.model_loads), *cells)
    console.print(table)
    console.print("Simulated: " + ", ".join(f"{name} {value}" for name, value in _assumptions().items()) + ".")
    console.print(
        "Not in these seconds: comfykeep's own work, done while the GPU is busy. It took "
        f"{_own_work(rows):.0f} ms of the CPU for each prompt of the one model, in real time.",
        soft_wrap=True,
    )
    console.print(
        f"Behind comfykeep the same prompts took 1/{ratio:.2f} of the time. When flags alone are enough, and what only "
        "the proxy adds, stands in the README.",
        soft_wrap=True,
    )


def _own_work(rows: dict[str, Row]) -> float:
    """Real milliseconds of the CPU for each prompt, for the proxy alone: all else is the same on both sides."""
    return 1000 * (rows["one_model_comfykeep"].cpu_per_prompt - rows["one_model_direct"].cpu_per_prompt)


def _assumptions() -> dict[str, str]:
    files = {name: size for folder in MACHINE.models.values() for name, size in folder.items()}
    used = ("dreamscape_xl", "flux_dev_fp8", "t5xxl_fp8", "sketchbook_15")
    sizes = {f"{name}.safetensors": f"{files[f'{name}.safetensors'] / 1024**3:.1f} GB" for name in used}
    return {
        "disk": f"{MACHINE.disk_gbps:g} GB/s",
        "PCIe": f"{MACHINE.pcie_gbps:g} GB/s",
        "RAM": f"{MACHINE.ram_gb:g} GB",
        "VRAM": f"{MACHINE.vram_gb:g} GB",
        "one sampling step of a megapixel": f"{MACHINE.step_seconds:g} s",
        **sizes,
    }
