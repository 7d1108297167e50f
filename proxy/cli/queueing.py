"""`comfykeep queue` and `comfykeep explain`: the held queue of a running proxy, for its operator."""

import json
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.console import Console
from rich.table import Table

from proxy.cli.options import ConfigOption, JsonOption, PromptArgument, ProxyOption, table_console
from proxy.cli.remote import address, call
from proxy.config import load

app = typer.Typer(
    name="queue",
    help="Show the held queue, or act on it: pause, resume, front, cancel (mode full).",
    invoke_without_command=True,
)

_ID = 36
"""Characters of a UUID."""
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


@app.callback()
def show(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=0, help="waiting prompts to list")] = 30,
    proxy: ProxyOption = None,
    config: ConfigOption = None,
    json_output: JsonOption = False,
) -> None:
    """List what runs, is staged and waits, in the order in which it is expected to run."""
    if context.invoked_subcommand is not None:
        return
    answer = call(address(proxy, load(config)), f"/comfykeep/queue?limit={limit}")
    if json_output:
        print(json.dumps(answer, indent=2))  # noqa: T201 - the answer of a command
        return
    console = Console(soft_wrap=True, highlight=False)
    for line in _remarks(answer):
        console.print(line, markup=False)
    table_console().print(_table(answer, time.time()))
    more = answer["waiting_total"] - len(answer["waiting"])
    if more:
        console.print(f"{more} more wait; --limit shows more.")


@app.command()
def pause(proxy: ProxyOption = None, config: ConfigOption = None) -> None:
    """Send nothing more to ComfyUI: what runs finishes, submissions are still taken. Holds across restarts."""
    call(address(proxy, load(config)), "/comfykeep/queue/pause", "POST", {})
    Console().print("paused; `comfykeep queue resume` ends that")


@app.command()
def resume(proxy: ProxyOption = None, config: ConfigOption = None) -> None:
    """End a pause."""
    answer = call(address(proxy, load(config)), "/comfykeep/queue/resume", "POST", {})
    others = ", ".join(answer["paused_by"])
    Console().print(f"still paused by {others}" if others else "resumed")


@app.command()
def front(prompt_id: PromptArgument, proxy: ProxyOption = None, config: ConfigOption = None) -> None:
    """Run a waiting prompt next of its priority, with what must come before it."""
    call(address(proxy, load(config)), "/comfykeep/queue/front", "POST", {"prompt_id": prompt_id})
    Console().print(f"{prompt_id} is first of its priority", highlight=False)


@app.command()
def cancel(prompt_id: PromptArgument, proxy: ProxyOption = None, config: ConfigOption = None) -> None:
    """Take a prompt out of the queue; one that runs is interrupted."""
    call(address(proxy, load(config)), "/comfykeep/queue/cancel", "POST", {"prompt_id": prompt_id})
    Console().print(f"{prompt_id} is cancelled", highlight=False)


def explain(
    prompt_id: PromptArgument, proxy: ProxyOption = None, config: ConfigOption = None, json_output: JsonOption = False
) -> None:
    """Say why a prompt waits, or when and why it was chosen, overtaken, called back, ended (mode full)."""
    answer = call(address(proxy, load(config)), f"/comfykeep/prompts/{quote(prompt_id, safe='')}/story")
    if json_output:
        print(json.dumps(answer, indent=2))  # noqa: T201 - the answer of a command
        return
    console = Console(soft_wrap=True, highlight=False)
    for passage in answer["story"]:
        moment = datetime.fromtimestamp(passage["at"]).astimezone()
        console.print(f"{moment:%Y-%m-%d %H:%M:%S}  {passage['code']:<14} {passage['text']}", markup=False)


def _remarks(answer: Mapping[str, Any]) -> Iterator[str]:
    if answer["paused_by"]:
        yield f"Paused by {', '.join(answer['paused_by'])}: starts are as if that ended now."
    if not answer["upstream_up"]:
        yield "ComfyUI does not answer: starts are as if it did."
    if answer["foreign"]:
        yield f"{answer['foreign']} prompts at ComfyUI did not come through here; they are waited for."


def _table(answer: Mapping[str, Any], now: float) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("prompt", no_wrap=True, overflow="ignore", min_width=_ID)  # what other commands are given
    for heading in ("state", "priority", "client", "models", "waited", "start in"):
        table.add_column(heading, overflow="fold")
    for row in (*answer["running"], *answer["staged"], *answer["waiting"]):
        wait = row["expected_start"] - now
        table.add_row(
            row["prompt_id"],
            row["state"],
            str(row["priority"]),
            row["client"],
            ", ".join(row["models"]),
            spell(now - row["submitted"]),
            "runs" if row in answer["running"] else spell(wait),
        )
    return table


def spell(seconds: float) -> str:
    """A stretch of time, short."""
    left = max(0, round(seconds))
    if left < _MINUTE:
        return f"{left} s"
    if left < _HOUR:
        return f"{left // _MINUTE} min {left % _MINUTE} s"
    if left < _DAY:
        return f"{left // _HOUR} h {left % _HOUR // _MINUTE} min"
    return f"{left // _DAY} d {left % _DAY // _HOUR} h"
