"""`comfykeep warm`: models are loaded now, with a progress bar; and how the schedule stands."""

import json
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from normalizer import Schema
from proxy.cli import remote
from proxy.cli.options import ConfigOption, JsonOption, ProxyOption, table_console
from proxy.config import Config, load
from proxy.core.advice import Advice
from warmup import Depth, Result, Surroundings, check
from warmup import load as load_schedule

_ROUTE = "/comfykeep/warmup"
_LOOK = 0.3
"""Seconds between looks at how far it is."""


def warm(
    name: Annotated[
        str | None, typer.Argument(help="an entry of the schedule; when nothing is named, the schedule is shown")
    ] = None,
    model: Annotated[str | None, typer.Option(help="a model file instead, on the schedule or not")] = None,
    to: Annotated[
        Depth | None, typer.Option(help="how far: read from disk (ram), or used once, so that it is on the GPU (vram)")
    ] = None,
    show_list: Annotated[
        bool, typer.Option("--list", help="show the schedule: next times, last results, seconds they took")
    ] = False,
    proxy: ProxyOption = None,
    config: ConfigOption = None,
    json_output: JsonOption = False,
) -> None:
    """Load models now, behind clients' prompts, and wait for it; status 1 when that fails."""
    if name is not None and model is not None:
        raise typer.BadParameter("give the name of an entry or --model, not both")
    url = remote.address(proxy, load(config))
    if show_list or (name is None and model is None):
        _show(remote.call(url, _ROUTE), json_output=json_output)
        return
    body = {key: value for key, value in (("name", name), ("model", model), ("to", to)) if value is not None}
    outcome = _wait(url, name or model or "", body)
    if json_output:
        print(json.dumps(outcome, indent=2))  # noqa: T201 - the answer of a command
    else:
        Console(soft_wrap=True, highlight=False).print(f"{name or model}: {_told(outcome)}", markup=False)
    raise typer.Exit(0 if outcome["result"] in {Result.WARMED, Result.SKIPPED} else 1)


def _wait(url: str, what: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
    asked = _in_background(url, body)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(escape(what), total=1.0)
        while not wait_for([asked], timeout=_LOOK).done:
            row = _row(url, what)
            words = filter(None, (what, row.get("status"), row.get("reason")))
            progress.update(task, completed=row.get("progress") or 0.0, description=escape(": ".join(words)))
    outcome: Mapping[str, Any] = asked.result()
    return outcome


def _in_background(url: str, body: Mapping[str, Any]) -> "Future[Any]":
    """Ask in a thread of its own, which does not keep the command from ending when somebody stops it."""
    asked: Future[Any] = Future()

    def ask() -> None:
        try:
            asked.set_result(remote.call(url, _ROUTE, "POST", body, timeout=None))
        except Exception as error:  # noqa: BLE001 - raised again by whoever waits
            asked.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()
    return asked


def _row(url: str, name: str) -> Mapping[str, Any]:
    rows = remote.call(url, _ROUTE)["entries"]
    return next((row for row in reversed(rows) if row["name"] == name), {})


def _show(report: Mapping[str, Any], *, json_output: bool) -> None:
    if json_output:
        print(json.dumps(report, indent=2))  # noqa: T201 - the answer of a command
        return
    console = Console(soft_wrap=True, highlight=False)
    if report["schedule"] is None:
        console.print("There is no schedule; name one in proxy.toml under [warmup], see docs/warmup.md.", markup=False)
    table = Table()
    for heading in ("name", "what", "to", "when", "next", "now", "last"):
        table.add_column(heading, overflow="fold")
    for row in report["entries"]:
        now = "out, see below" if row["status"] == "out" else ": ".join(filter(None, (row["status"], row["reason"])))
        last = f"{_when(row['last']['at'])} {_told(row['last'])}" if row["last"] else ""
        cells = (row["name"], row["what"], row["to"] or "", row["when"], _when(row["next_at"]), now, last)
        table.add_row(*map(escape, cells))
    if report["entries"]:
        table_console().print(table)
    for fault in report["faults"]:
        console.print(fault, markup=False)
    for fault in report["rejected"]:
        console.print(f"The file as it is now is not in force: {fault}", markup=False)


def _told(outcome: Mapping[str, Any]) -> str:
    seconds = f" in {outcome['seconds']:.1f} s" if outcome["seconds"] else ""
    return f"{outcome['result']}{seconds}" + (f": {outcome['detail']}" if outcome["detail"] else "")


def _when(at: float | None) -> str:
    return "" if at is None else datetime.fromtimestamp(at).astimezone().strftime("%a %d %b %H:%M")


def schedule_problems(config: Config, schema: Schema | None) -> list[Advice]:
    """Everything wrong with the schedule, judged by the classes and models of ComfyUI where it has answered."""
    path = config.warmup.file
    if path is None:
        return []
    schedule = load_schedule(path)
    groups = {group.name: group for group in config.groups}
    faults = schedule.faults if schema is None else check(schedule, Surroundings(schema, (), groups))
    return [Advice(f"{fault.where}: {fault.problem}.", _sentence(fault.remedy)) for fault in faults]


def _sentence(remedy: str) -> str:
    return remedy[:1].upper() + remedy[1:] + ("" if remedy.endswith("?") else ".")
