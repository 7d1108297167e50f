"""What the contract is held against: the simulator, a real ComfyUI, and the proxy before each.

The expectations are those of ComfyUI 0.3.64 and 0.33.0, the two releases that the suite was written against. Where
they differ, a test asks the target's `Capabilities`, never its name. Between the two the line is drawn at 0.33.
"""

import json
import os
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from proxy import app
from proxy.config import Config, JournalSection, ProxySection, UpstreamSection
from proxy.core.mode import Mode
from simulator import Simulator, SimulatorConfig
from tests.contract import prompts
from tests.contract.client import Client
from tests.contract.sockets import Socket
from tests.rawhttp import until

REAL_URL = os.environ.get("COMFYUI_URL", "").rstrip("/")
"""Address of a real ComfyUI that nobody else uses: the suite empties its queue, its history and its caches."""

MB = 2**20
_CURRENT = (0, 33)


@dataclass(frozen=True)
class Capabilities:
    """What one release does that the other does not."""

    current: bool
    """0.33: ids must be UUIDs, /api/jobs, times in prompts, faults that name the node, cycles found, nosniff."""

    @classmethod
    def of(cls, version: str) -> "Capabilities":
        return cls(current=tuple(int(part) for part in version.split(".")[:2]) >= _CURRENT)


@dataclass(frozen=True)
class Target:
    """One running thing under test.

    Attributes:
        url: where clients connect.
        upstream_url: where ComfyUI itself listens; the same as `url` when nothing stands before it.
        real: whether ComfyUI itself is real, not simulated.
    """

    url: str
    upstream_url: str
    real: bool
    can: Capabilities

    @property
    def proxied(self) -> bool:
        return self.url != self.upstream_url

    @asynccontextmanager
    async def busy(self, client: Client, socket: Socket, **fields: Any) -> AsyncIterator[str]:
        """While inside, a prompt runs that ends only when somebody interrupts it; its id is yielded."""
        prompt, inner = await self.long_prompt(client)
        prompt_id: str = (await client.submit(prompt, socket.client_id, **fields))["prompt_id"]
        await socket.until_event("executing", node=inner, prompt_id=prompt_id)
        try:
            yield prompt_id
        finally:
            await client.post("/interrupt", {"prompt_id": prompt_id})
            await client.idle()

    async def long_prompt(self, client: Client) -> tuple[prompts.Prompt, str]:
        """A prompt that runs for many seconds, and the node at which it certainly runs."""
        if self.real:
            return prompts.long_blur(), "2"
        return prompts.long_sampling(await _checkpoint(client)), "4"


def real_version() -> str:
    """The version of the real ComfyUI, empty when there is none."""
    if not REAL_URL:
        return ""
    try:
        with urllib.request.urlopen(f"{REAL_URL}/system_stats", timeout=30) as answer:  # noqa: S310 - the user's own
            version: str = json.load(answer)["system"]["comfyui_version"]
            return version
    except OSError as error:
        raise pytest.UsageError(f"COMFYUI_URL={REAL_URL} does not answer: {error}") from error


REAL_VERSION = real_version()

ARRANGEMENTS = [
    f"{before}{upstream}"
    for upstream in ("simulator", *([f"comfyui-{REAL_VERSION}"] if REAL_VERSION else []))
    for before in ("", "proxy+", "proxy-full+")
]
"""Names of all that can be tested here: the proxy that rewrites and pins, and the one that holds the queue too."""

PROXIED = [name for name in ARRANGEMENTS if "+" in name]
SIMULATED = [name for name in PROXIED if name.endswith("simulator")]


@asynccontextmanager
async def arranged(name: str, folder: Path, **flags: Any) -> AsyncIterator[Target]:
    """One of the `ARRANGEMENTS`, running; the folder is for what it keeps, the flags are for the simulator."""
    before, _, upstream = name.rpartition("+")
    async with simulator(**flags) if upstream == "simulator" else real() as direct:
        if not before:
            yield direct
            return
        async with proxied(direct, Mode.FULL if before == "proxy-full" else Mode.PINS, folder) as target:
            yield target


@asynccontextmanager
async def simulator(**flags: Any) -> AsyncIterator[Target]:
    """A simulator of its own: ComfyUI's default cache mode, small models."""
    models = {"checkpoints": {"small.safetensors": MB}, "vae": {"one.safetensors": MB, "two.safetensors": MB}}
    async with Simulator(SimulatorConfig(models=models, time_scale=10, **flags)) as running:
        version = await _version(running.url)
        yield Target(running.url, running.url, real=False, can=Capabilities.of(version))


@asynccontextmanager
async def real() -> AsyncIterator[Target]:
    yield Target(REAL_URL, REAL_URL, real=True, can=Capabilities.of(REAL_VERSION))


@asynccontextmanager
async def proxied(upstream: Target, mode: Mode, folder: Path) -> AsyncIterator[Target]:
    """The proxy before another target, configured as it comes but for its mode; the folder takes its journal."""
    config = Config(
        proxy=ProxySection(listen="127.0.0.1:0", mode=mode),
        upstream=UpstreamSection(url=upstream.url),
        journal=JournalSection(path=str(folder / "journal.sqlite3")),
    )
    async with app.running(config) as proxy:
        await until(lambda: proxy.engine.upstream.stats is not None)  # until then it carries no pins
        yield Target(proxy.url, upstream.url, real=upstream.real, can=upstream.can)


async def _version(url: str) -> str:
    async with Client(url) as client:
        version: str = (await client.get_json("/system_stats"))["system"]["comfyui_version"]
        return version


async def _checkpoint(client: Client) -> str:
    info = await client.get_json("/object_info/CheckpointLoaderSimple")
    name: str = info["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"][0][0]
    return name
