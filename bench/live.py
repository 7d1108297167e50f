"""`comfykeep bench live`: the user's own workflows in turn on the user's own ComfyUI, direct and through the proxy.

A loader counts as loaded when ComfyUI did not report it in `execution_cached`; the proxy's own word is not asked.
Both sides start cold: ComfyUI is told to free its models and its node cache before each. Seeds differ from prompt to
prompt, so that nothing but loaders can come out of the cache.
"""

import asyncio
import copy
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench.client import BenchClient, connected
from bench.errors import BenchError
from bench.fronting import fronting
from normalizer import Role, Schema

SEED_INPUTS = ("seed", "noise_seed")


@dataclass(frozen=True, slots=True)
class Workflow:
    """One API-format workflow and the ids of its loaders."""

    name: str
    graph: Mapping[str, Any]
    loaders: frozenset[str]


@dataclass(frozen=True, slots=True)
class Side:
    """What one side did: loads and seconds in the first round, and the mean of each later one."""

    loads: int
    seconds: float
    first_round_loads: int
    first_round_seconds: float
    later_round_loads: float
    later_round_seconds: float


@dataclass(frozen=True, slots=True)
class _Turn:
    loads: int
    seconds: float


def read_workflow(path: Path, schema: Schema) -> Workflow:
    """Read one workflow file.

    Raises:
        BenchError: when it is no API-format workflow or holds no loader.
    """
    try:
        graph = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BenchError(f"{path}: cannot be read as JSON: {error}") from error
    if isinstance(graph, dict) and "nodes" in graph:
        raise BenchError(f'{path}: this is the page\'s own format; export it with "Workflow > Export (API)"')
    if not isinstance(graph, dict) or not all(
        isinstance(node, dict) and "class_type" in node for node in graph.values()
    ):
        raise BenchError(f'{path}: not an API-format workflow ({{"1": {{"class_type": …, "inputs": …}}}})')
    loaders = frozenset(node_id for node_id, node in graph.items() if _is_loader(schema, node["class_type"]))
    if not loaders:
        raise BenchError(f"{path}: no node in it loads a model, so there is nothing to keep")
    return Workflow(path.name, graph, loaders)


def _is_loader(schema: Schema, class_type: str) -> bool:
    node_class = schema.get(class_type)
    return node_class is not None and node_class.role is Role.LOADER


def with_new_seed(graph: Mapping[str, Any], rng: random.Random) -> dict[str, Any]:
    """A copy whose seeds are new, so that samplers run again."""
    fresh = copy.deepcopy(dict(graph))
    for node in fresh.values():
        for name in SEED_INPUTS:
            if isinstance(node["inputs"].get(name), int):
                node["inputs"][name] = rng.randrange(2**48)
    return fresh


async def _run_side(url: str, upstream: str, workflows: Sequence[Workflow], rounds: int, step: Any) -> Side:
    rng = random.Random(0)
    turns: list[list[_Turn]] = []
    async with connected(upstream) as direct:
        await direct.free()
    async with connected(url) as client:
        for _ in range(rounds):
            turn = []
            for workflow in workflows:
                run = await (await client.submit(with_new_seed(workflow.graph, rng))).ended()
                if run.outcome != "success":
                    raise BenchError(f"{workflow.name} ended with {run.outcome} at {url}; run it by hand first")
                turn.append(_Turn(len(workflow.loaders - run.cached), run.seconds))
                step()
            turns.append(turn)
    later = turns[1:]
    return Side(
        loads=sum(turn.loads for turn_of in turns for turn in turn_of),
        seconds=sum(turn.seconds for turn_of in turns for turn in turn_of),
        first_round_loads=sum(turn.loads for turn in turns[0]),
        first_round_seconds=sum(turn.seconds for turn in turns[0]),
        later_round_loads=fmean(sum(turn.loads for turn in turn_of) for turn_of in later),
        later_round_seconds=fmean(sum(turn.seconds for turn in turn_of) for turn_of in later),
    )


async def _ask_to_free(client: BenchClient, console: Console, *, assume_yes: bool) -> None:
    console.print(
        f"Both sides start cold: this tells {client.url} to unload its models and drop its node cache, twice."
    )
    remaining = (await client.get("/prompt"))["exec_info"]["queue_remaining"]
    if remaining and not assume_yes:
        question = f"{client.url} is busy ({remaining} prompts). Free its memory all the same?"
        if not await asyncio.to_thread(typer.confirm, question, err=True):
            raise BenchError("nothing was freed and nothing was run")


async def _measure(
    upstream: str, paths: Sequence[Path], rounds: int, console: Console, *, assume_yes: bool
) -> dict[str, Side]:
    async with connected(upstream) as client:
        schema = Schema.from_object_info(await client.get("/object_info"))
        workflows = [read_workflow(path, schema) for path in paths]
        await _ask_to_free(client, console, assume_yes=assume_yes)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("direct", total=2 * rounds * len(workflows))
        direct = await _run_side(upstream, upstream, workflows, rounds, lambda: progress.advance(task))
        progress.update(task, description="comfykeep")
        async with fronting(upstream) as app:
            kept = await _run_side(app.url, upstream, workflows, rounds, lambda: progress.advance(task))
    return {"direct": direct, "comfykeep": kept}


def run(upstream: str, paths: Sequence[Path], rounds: int, *, json_output: bool, assume_yes: bool) -> None:
    """Measure and print; `rounds` counts how often each workflow runs on each side, at least 2.

    Raises:
        BenchError: when a workflow cannot be used, is refused or fails.
    """
    console = Console(stderr=json_output)
    sides = asyncio.run(_measure(upstream, paths, rounds, console, assume_yes=assume_yes))
    ratio = sides["direct"].seconds / sides["comfykeep"].seconds
    if json_output:
        result = {name: asdict(side) for name, side in sides.items()} | {"ratio": ratio, "rounds": rounds}
        print(json.dumps(result))  # noqa: T201 - the answer of a command
        return
    table = Table(title=f"{len(paths)} workflows in turn, {rounds} rounds, cold start on both sides")
    for heading in ("", "loads", "seconds", "first round", "later rounds (mean)"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, side in sides.items():
        table.add_row(
            name,
            str(side.loads),
            f"{side.seconds:.2f}",
            f"{side.first_round_loads} loads, {side.first_round_seconds:.2f} s",
            f"{side.later_round_loads:.1f} loads, {side.later_round_seconds:.2f} s",
        )
    console.print(table)
    console.print(f"Ratio of the seconds, direct to comfykeep: {ratio:.2f}")
