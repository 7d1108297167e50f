"""`comfykeep status`: where the models are, what stays and why, how full memory is."""

import json
import time
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from proxy.cli.options import ConfigOption, JsonOption, ProxyOption, table_console
from proxy.cli.queueing import spell
from proxy.cli.remote import address, call
from proxy.config import load
from proxy.journal_peek import told

_EVERY = 2.0
"""Seconds between two looks with --watch."""
_BAR = 40
"""Characters of a memory bar."""
_GB = 1024**3


def status(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="look again every 2 seconds until Ctrl-C")] = False,
    proxy: ProxyOption = None,
    config: ConfigOption = None,
    json_output: JsonOption = False,
) -> None:
    """Show where models are, what is kept and why, how full RAM and VRAM are, and what that has saved."""
    url = address(proxy, load(config))
    answer = call(url, "/comfykeep/status")
    if json_output:
        print(json.dumps(answer, indent=None if watch else 2), flush=True)  # noqa: T201 - the answer of a command
    elif not watch:
        table_console().print(view(answer))
    if watch:
        _watch(url, answer, json_output=json_output)


def _watch(url: str, answer: Mapping[str, Any], *, json_output: bool) -> None:
    if json_output:
        while True:
            time.sleep(_EVERY)
            print(json.dumps(call(url, "/comfykeep/status")), flush=True)  # noqa: T201 - the answer of a command
    with Live(view(answer), auto_refresh=False) as live:
        while True:
            time.sleep(_EVERY)
            live.update(view(call(url, "/comfykeep/status")), refresh=True)


def view(answer: Mapping[str, Any]) -> Group:
    """The whole of it for people; `answer` as `/comfykeep/status` gives it."""
    return Group(*(Text(line) for line in _lines(answer)), _components(answer["upstream"]))


def _lines(answer: Mapping[str, Any]) -> Iterator[str]:
    upstream, totals = answer["upstream"], answer["totals"]
    state = f"ComfyUI {upstream['version'] or 'of unknown version'}" if upstream["up"] else "ComfyUI does not answer"
    yield f"{state} at {upstream['url']}; mode {answer['mode']}"
    if answer["waiting_in_journal"]:
        yield told(answer["waiting_in_journal"])
    for name, memory in (("RAM ", upstream["ram"]), ("VRAM", upstream["vram"])):
        if memory is not None:
            yield f"{name} {_bar(memory)}"
    yield f"pins may take {upstream['budget']['pins'] / _GB:.1f} GB in {upstream['budget']['chains']} chains"
    yield from _ailments(answer["health"])
    for prompt in upstream["running"]:
        yield f"runs  {_prompt(prompt)}"
    for prompt in upstream["queue"]:
        yield f"next  {_prompt(prompt)}"
    if upstream["waiting"] > len(upstream["queue"]):
        yield f"      and {upstream['waiting'] - len(upstream['queue'])} more"
    yield (
        f"{totals['prompts']} prompts: {totals['loaded']} loads, {totals['kept']} avoided; about "
        f"{totals['saved_seconds']:.0f} s saved (by what each load took the last time)"
    )
    yield _accuracy(upstream["accuracy"])


def _ailments(health: Mapping[str, Any]) -> Iterator[str]:
    if health["poisoned"] is not None:
        yield f"the queue stands until ComfyUI is restarted: {health['poisoned']}"
    if health["stalled_since"] is not None:
        yield f"nothing has moved for {spell(time.time() - health['stalled_since'])}, although prompts wait"


def _prompt(prompt: Mapping[str, Any]) -> str:
    told = f"{prompt['prompt_id']}  {', '.join(prompt['models'])}"
    return told if prompt["ours"] else f"{told} (did not come through comfykeep)"


def _bar(memory: Mapping[str, Any]) -> str:
    """`#` is in use, `.` free, `r` the part of what is free that is to stay free."""
    total = max(1, memory["total"])
    used = round(_BAR * (total - memory["free"]) / total)
    reserved = min(_BAR - used, round(_BAR * memory["reserve"] / total))
    bar = "#" * used + "." * (_BAR - used - reserved) + "r" * reserved
    return (
        f"[{bar}] {memory['free'] / _GB:.1f} of {total / _GB:.1f} GB free, reserve {memory['reserve'] / _GB:.1f} GB "
        f"({memory['source']}, {memory['age']:.0f} s ago)"
    )


def _accuracy(accuracy: Mapping[str, Any]) -> str:
    if accuracy["share"] is None:
        return "no prediction of a tier has been judged yet"
    tiers = (
        f"{tier} {score['right']} of {score['uses']}" for tier, score in accuracy["tiers"].items() if score["uses"]
    )
    return f"tiers predicted right: {accuracy['share']:.0%} ({', '.join(tiers)})"


def _components(upstream: Mapping[str, Any]) -> Table:
    table = Table()
    for heading in ("model", "tier", "GB", "size by", "used", "needed", "pinned", "why"):
        table.add_column(heading, overflow="fold", justify="right" if heading == "GB" else "left")
    for item in upstream["components"]:
        table.add_row(
            Text(item["label"]),
            item["tier"],
            f"{item['size'] / _GB:.2f}",
            item["size_source"],
            "" if item["last_used"] is None else f"{spell(item['last_used'])} ago",
            "" if item["needed_in"] is None else f"{item['needed_in']}. in the queue, {item['needed_by'][:8]}",
            "yes" if item["pinned"] else "no",
            Text(item["why"] if item["kept"] is None else f"{'kept' if item['kept'] else 'let go'}: {item['why']}"),
        )
    return table
