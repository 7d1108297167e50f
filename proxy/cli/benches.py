"""Commands that measure. Their code is loaded only when one of them is called: serving must not pay for it."""

from pathlib import Path
from typing import Annotated

import typer

from bench.errors import BenchError
from proxy.cli.options import JsonOption

__all__ = ["BenchError", "app", "demo"]

app = typer.Typer(name="bench", help="Claims, measured: each prints its figures and ratios.", no_args_is_help=True)


@app.command()
def live(
    workflows: Annotated[list[Path], typer.Argument(help="API-format workflow files, run in turn")],
    upstream: Annotated[str, typer.Option(help="the ComfyUI to measure")] = "http://127.0.0.1:8188",
    rounds: Annotated[int, typer.Option(min=2, help="how often each workflow runs on each side")] = 3,
    yes: Annotated[bool, typer.Option("--yes", help="free a busy server's memory without asking")] = False,
    json_output: JsonOption = False,
) -> None:
    """Run workflows in turn on a ComfyUI, direct and through the proxy, cold both times."""
    from bench import live as bench  # noqa: PLC0415 - see above

    bench.run(upstream, workflows, rounds, json_output=json_output, assume_yes=yes)


@app.command()
def normalize(json_output: JsonOption = False) -> None:
    """Time the rewriting of prompts and the restoring of frames."""
    from bench import normalize as bench  # noqa: PLC0415 - see above

    bench.run(json_output)


@app.command()
def residency(json_output: JsonOption = False) -> None:
    """Judge what is believed about VRAM and RAM, and what is kept, against an omniscient observer."""
    from bench import residency as bench  # noqa: PLC0415 - see above

    bench.run(json_output)


@app.command()
def schedule(
    trace: Annotated[str | None, typer.Option(help="only this one of the built-in traces")] = None,
    trace_file: Annotated[
        Path | None, typer.Option(help="a trace of your own; docs/benchmarks.md has the format")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Compare the order of the queue with other ways to order it, in virtual time."""
    from bench import schedule as bench  # noqa: PLC0415 - see above

    bench.run(json_output=json_output, name=trace, file=trace_file)


@app.command()
def decisions(json_output: JsonOption = False) -> None:
    """Time the scheduler's decisions while ten thousand prompts wait."""
    from bench import decisions as bench  # noqa: PLC0415 - see above

    bench.run(json_output)


@app.command()
def journal(
    folder: Annotated[Path | None, typer.Option(help="where to write; on the disk that counts")] = None,
    json_output: JsonOption = False,
) -> None:
    """Time how fast prompts are written down, by sync mode."""
    from bench import journal as bench  # noqa: PLC0415 - see above

    bench.run(json_output, folder)


@app.command()
def overhead(json_output: JsonOption = False) -> None:
    """Time requests, prompts, events and files, direct, behind nginx and behind comfykeep."""
    from bench import overhead as bench  # noqa: PLC0415 - see above

    bench.run(json_output)


@app.command()
def warmup(json_output: JsonOption = False) -> None:
    """Measure what warming saves the first client, and what it costs those who work meanwhile."""
    from bench import warmup as bench  # noqa: PLC0415 - see above

    bench.run(json_output)


@app.command()
def chaos(
    kills: Annotated[int, typer.Option(min=1, help="how often each side is killed")] = 20,
    seed: Annotated[int, typer.Option(help="what is killed when, and what clients do")] = 1,
    forget: Annotated[
        bool, typer.Option("--forget", help="lose the journal with every proxy: shows that losses are seen")
    ] = False,
    folder: Annotated[Path | None, typer.Option(help="keep logs, journal and saved files there; must be empty")] = None,
    json_output: JsonOption = False,
) -> None:
    """Kill the proxy and a simulated ComfyUI at random moments, and account for every prompt; 1 if one was lost."""
    from bench import chaos as bench  # noqa: PLC0415 - see above

    report = bench.run(kills, seed, forget=forget, folder=folder, json_output=json_output)
    raise typer.Exit(0 if report.sound else 1)


def demo(*, json_output: bool) -> None:
    """Run the demonstration."""
    from bench import demo as bench  # noqa: PLC0415 - see above

    bench.run(json_output=json_output)
