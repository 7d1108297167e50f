"""`comfykeep bench overhead`: what it costs to stand between a client and ComfyUI, beside what nginx costs.

The same requests, one after the other, to a simulated ComfyUI directly and through each of what may stand before one.
The simulated machine computes in no time, so that nothing hides what is added: behind real prompts it is a small part.
Rounds go from front to front in turn, so that a machine that gets busy harms all alike.
"""

import asyncio
import json
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

import aiohttp
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from bench.errors import BenchError
from bench.fronts import Front, all_fronts
from bench.workflows import sdxl

MIB: Final = 1 << 20
_FILE: Final = 64 * MIB
_STEPS: Final = 1000
"""Of the sampler whose events are counted."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is done; `repeats` of each request in each of `rounds`."""

    rounds: int = 5
    repeats: int = 40
    file_bytes: int = _FILE
    steps: int = _STEPS


@dataclass(frozen=True, slots=True)
class Row:
    """What one front does. Times are medians in milliseconds, rates the median of the rounds.

    `small` and `large` are GETs of some hundred bytes and of the definitions of all nodes; `submitted` ends with the
    answer to `POST /prompt`, `done` with the prompt's last event.
    """

    front: str
    small_ms: float
    large_ms: float
    submitted_ms: float
    done_ms: float
    events_per_second: float
    upload_mib_per_second: float
    download_mib_per_second: float


class Visitor:
    """One client of one front, with one connection and one socket."""

    def __init__(self, session: aiohttp.ClientSession, socket: aiohttp.ClientWebSocketResponse, front: Front) -> None:
        self._session = session
        self._socket = socket
        self._url = front.url
        self._client_id = front.name

    async def get(self, path: str) -> float:
        """Seconds until the whole answer is there."""
        began = time.perf_counter()
        async with self._session.get(self._url + path) as response:
            await response.read()
            response.raise_for_status()
        return time.perf_counter() - began

    async def upload(self, name: str, content: bytes) -> float:
        """Seconds to put a file into ComfyUI's input folder."""
        form = aiohttp.FormData({"overwrite": "true"})
        form.add_field("image", content, filename=name)
        began = time.perf_counter()
        async with self._session.post(f"{self._url}/upload/image", data=form) as response:
            response.raise_for_status()
        return time.perf_counter() - began

    async def run(self, prompt: dict[str, Any]) -> tuple[float, float, int]:
        """Seconds until the answer and until the last event, and how many events there were."""
        began = time.perf_counter()
        body = {"prompt": prompt, "client_id": self._client_id}
        async with self._session.post(f"{self._url}/prompt", json=body) as response:
            answer = await response.json()
            if not response.ok:
                raise BenchError(f"{self._url} refused a prompt: {answer}")
        answered = time.perf_counter() - began
        events = 0
        async for message in self._socket:
            events += 1
            if message.type is aiohttp.WSMsgType.TEXT and _ends(json.loads(message.data), answer["prompt_id"]):
                return answered, time.perf_counter() - began, events
        raise BenchError(f"{self._url} closed the socket")


def _ends(event: dict[str, Any], prompt_id: str) -> bool:
    data = event.get("data") or {}
    return event.get("type") == "executing" and data.get("node") is None and data.get("prompt_id") == prompt_id


async def measure(scale: Scale) -> list[Row]:
    """All rows, the direct one first.

    Raises:
        BenchError: when something does not come up or refuses what it is asked.
    """
    seen: dict[str, defaultdict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory(prefix="comfykeep-bench-") as folder:
        async with all_fronts(Path(folder)) as fronts:
            for front in fronts:
                seen[front.name] = defaultdict(list)
            seeds = count()
            for _ in range(scale.rounds):
                for front in fronts:
                    async with _visiting(front) as visitor:
                        await _round(visitor, seen[front.name], scale, seeds)
    return [_row(name, figures) for name, figures in seen.items()]


@asynccontextmanager
async def _visiting(front: Front) -> AsyncIterator[Visitor]:
    """Come with a fresh connection, and leave."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{front.url}/ws", params={"clientId": front.name}, max_msg_size=0) as socket,
    ):
        yield Visitor(session, socket, front)


async def _round(visitor: Visitor, into: defaultdict[str, list[float]], scale: Scale, seeds: "count[int]") -> None:
    await visitor.get("/features")
    await visitor.run(_prompt(next(seeds), steps=1))
    for _ in range(scale.repeats):
        into["small"].append(await visitor.get("/features"))
        into["large"].append(await visitor.get("/object_info"))
        submitted, done, _events = await visitor.run(_prompt(next(seeds), steps=1))
        into["submitted"].append(submitted)
        into["done"].append(done)
    _, seconds, events = await visitor.run(_prompt(next(seeds), steps=scale.steps))
    into["events"].append(events / seconds)
    size = scale.file_bytes / MIB
    into["upload"].append(size / await visitor.upload("bench.bin", os.urandom(scale.file_bytes)))
    into["download"].append(size / await visitor.get("/view?filename=bench.bin&type=input"))


def _prompt(seed: int, steps: int) -> dict[str, Any]:
    prompt = sdxl(seed)
    prompt["3"]["inputs"]["steps"] = steps
    prompt["5"]["inputs"] |= {"width": 64, "height": 64}
    return prompt


def _row(name: str, figures: defaultdict[str, list[float]]) -> Row:
    medians = {what: statistics.median(values) for what, values in figures.items()}
    return Row(
        front=name,
        small_ms=medians["small"] * 1000,
        large_ms=medians["large"] * 1000,
        submitted_ms=medians["submitted"] * 1000,
        done_ms=medians["done"] * 1000,
        events_per_second=medians["events"],
        upload_mib_per_second=medians["upload"],
        download_mib_per_second=medians["download"],
    )


_MEASURED: Final = {
    "small_ms": "small GET, ms",
    "large_ms": "large GET, ms",
    "submitted_ms": "submission, ms",
    "done_ms": "prompt, ms",
    "events_per_second": "events/s",
    "upload_mib_per_second": "upload, MiB/s",
    "download_mib_per_second": "download, MiB/s",
}


def run(json_output: bool, scale: Scale | None = None) -> None:
    """Measure, and print a table with each figure's ratio to the direct one, or JSON.

    Raises:
        BenchError: when something does not come up or refuses what it is asked.
    """
    rows = [asdict(row) for row in asyncio.run(measure(scale or Scale()))]
    direct = rows[0]
    if json_output:
        ratios = [{key: row[key] / direct[key] for key in _MEASURED} for row in rows]
        report = [row | {"ratios": of_row} for row, of_row in zip(rows, ratios, strict=True)]
        print(json.dumps({"fronts": report}, indent=2))  # noqa: T201 - what the command is for
        return
    title, caption = "A simulated ComfyUI, direct and behind something", "in brackets: times the direct one"
    table = Table(title=title, caption=caption, box=SIMPLE, pad_edge=False)
    table.add_column("")
    for row in rows:
        table.add_column(row["front"], justify="right")
    for key, heading in _MEASURED.items():
        table.add_row(heading, *(f"{row[key]:,.1f} ({row[key] / direct[key]:.1f})" for row in rows))
    console = Console()
    console.print(table)
    if not any(row["front"] == "nginx" for row in rows):
        console.print("nginx is not installed here, so it has no row.")
