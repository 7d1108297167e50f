"""`comfykeep bench residency`: how good the choice of what stays in memory is, and how true the tiers are.

Three figures, none of them by the word of what they judge: loads beyond the least possible on traces of prompts, for
our eviction, for LRU and for GreedyDual; the share of components whose tier was predicted right, by the simulator's own
account; and whether ComfyUI is killed for want of RAM when pins are planned, and when they are not.
"""

import asyncio
import json
import random
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench.caching import TRACES, greedy_dual_loads, lru_loads, optimal_loads, our_loads
from bench.tiers import Setting, Tally, measure, ram_for_three, settings
from proxy.core.tiers import Tier

SEED = 1
PROMPTS = 500
MODELS = 8
ROOMS = (3, 5)
VISIBLE = (0, 4, 16)
"""Prompts of the queue that can be seen ahead."""
TIER_PROMPTS = 200


@dataclass(frozen=True, slots=True)
class Loads:
    """Loads on one trace, with room for some of the models at once. `ours` by the number of visible prompts."""

    trace: str
    room: int
    optimum: int
    lru: int
    greedy_dual: int
    ours: dict[int, int]


def eviction() -> Iterable[Loads]:
    """Every trace with every room."""
    for name, make in TRACES.items():
        trace = make(random.Random(SEED), MODELS, PROMPTS)
        for room in ROOMS:
            yield Loads(
                name,
                room,
                optimal_loads(trace, room),
                lru_loads(trace, room),
                greedy_dual_loads(trace, room),
                {visible: our_loads(trace, room, visible) for visible in VISIBLE},
            )


def tiers(chosen: Iterable[Setting], prompts: int, step: Callable[[], None]) -> list[tuple[Setting, Tally]]:
    """Measure some settings; `step` is called after each."""
    found = []
    for setting in chosen:
        found.append((setting, asyncio.run(measure(setting, prompts, SEED))))
        step()
    return found


def run(json_output: bool) -> None:
    """Measure and print."""
    console = Console(stderr=json_output)
    chosen, kills = list(settings()), list(ram_for_three())
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("residency", total=len(chosen) + len(kills) + 1)
        loads = list(eviction())
        progress.advance(task)
        tallies = tiers(chosen, TIER_PROMPTS, lambda: progress.advance(task))
        killed = tiers(kills, PROMPTS, lambda: progress.advance(task))
    if json_output:
        print(json.dumps(_as_json(loads, tallies, killed)))  # noqa: T201 - the answer of a command
        return
    console.print(_eviction_table(loads))
    console.print(_tier_table(tallies))
    console.print(_tier_summary(tallies))
    for setting, tally in killed:
        end = "no kill" if tally.killed_after is None else f"killed after {tally.killed_after} prompts"
        console.print(f"{setting.name}, {PROMPTS} prompts: {end}")


def _as_json(
    loads: Iterable[Loads], tallies: Iterable[tuple[Setting, Tally]], killed: Iterable[tuple[Setting, Tally]]
) -> dict[str, Any]:
    return {
        "eviction": [
            {**asdict(each), "extra_over_optimum": {name: count - each.optimum for name, count in _rules(each).items()}}
            for each in loads
        ],
        "tiers": [
            {
                "cache": setting.name,
                "vram": setting.vram,
                "ram_gb": setting.config.ram_gb,
                "vram_gb": setting.config.vram_gb,
                "accuracy": tally.share(),
                "unknown": tally.unknown,
                "by_predicted_tier": {
                    tier.value: {"uses": tally.predicted(tier), "right": tally.right(tier)} for tier in Tier
                },
                "accuracy_by_timing": tally.judged_share,
                "killed_after": tally.killed_after,
            }
            for setting, tally in tallies
        ],
        "ram_for_three_of_eight": {setting.name: {"killed_after": tally.killed_after} for setting, tally in killed},
    }


def _rules(each: Loads) -> dict[str, int]:
    ours = {f"ours, {visible} visible": count for visible, count in each.ours.items()}
    return {"LRU": each.lru, "GreedyDual": each.greedy_dual, **ours}


def _eviction_table(loads: Iterable[Loads]) -> Table:
    rows = list(loads)
    table = Table(title=f"Loads beyond the optimum: {PROMPTS} prompts over {MODELS} equally large models")
    for heading in ("trace", "room", "optimum", *_rules(rows[0])):
        table.add_column(heading, justify="left" if heading == "trace" else "right")
    for each in rows:
        extra = (f"+{count - each.optimum}" for count in _rules(each).values())
        table.add_row(each.trace, str(each.room), str(each.optimum), *extra)
    return table


_TOLD = (Tier.HOT, Tier.WARM, Tier.COLD)


def _tier_table(tallies: Iterable[tuple[Setting, Tally]]) -> Table:
    table = Table(title=f"Components whose tier was predicted right, {TIER_PROMPTS} prompts each")
    left = ("cache", "VRAM", "GB of RAM / VRAM")
    for heading in (*left, "all", "hot", "warm", "cold", "unknown", "by timing alone", "killed after"):
        table.add_column(heading, justify="left" if heading in left else "right")
    for setting, tally in tallies:
        shares = (tally.share(), *map(tally.share, _TOLD), tally.unknown, tally.judged_share)
        end = "-" if tally.killed_after is None else f"{tally.killed_after} prompts"
        table.add_row(setting.name, setting.vram, setting.size, *map(_percent, shares), end)
    return table


def _tier_summary(tallies: Iterable[tuple[Setting, Tally]]) -> Table:
    """All settings with one way to manage VRAM together."""
    table = Table(title="The same by VRAM mode: right among those predicted to be there, and how many these were")
    for heading in ("VRAM", "all", "hot", "warm", "cold", "unknown"):
        table.add_column(heading, justify="left" if heading == "VRAM" else "right")
    together: dict[str, Tally] = {}
    for setting, tally in tallies:
        together.setdefault(setting.vram, Tally()).uses.update(tally.uses)
    for vram, tally in together.items():
        cells = (f"{_percent(tally.share(tier))} of {tally.predicted(tier)}" for tier in _TOLD)
        table.add_row(vram, f"{_percent(tally.share())} of {tally.predicted()}", *cells, _percent(tally.unknown))
    return table


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
