"""A simulated ComfyUI and a proxy in mode `full` before it, as processes that can be killed at any moment."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import aiohttp

from bench.errors import BenchError
from bench.fronts import free_port

TIME_SCALE = 50
"""Simulated seconds per second: a prompt takes a tenth of a second or two."""
CAN_HANG = hasattr(signal, "SIGSTOP")
"""Windows has no such signal."""
PATIENCE = 180.0
"""Seconds that a process gets to come up."""
_AGAIN = 0.02
"""Seconds between two looks at what comes up."""
_CONFIGURATION = """
[proxy]
listen = "127.0.0.1:{proxy}"
mode = "full"
[upstream]
url = "http://127.0.0.1:{comfyui}"
stall_timeout = 1.0
[queue]
max_attempts = 1000000
[journal]
path = "{folder}/journal.sqlite3"
retain = 1000000
"""


class Side(StrEnum):
    """Who is killed."""

    PROXY = "proxy"
    COMFYUI = "ComfyUI"


@dataclass
class Victims:
    """Both processes, on ports that stay theirs.

    Attributes:
        folder: where journal, logs and saved files are.
        forget: take the journal away whenever the proxy dies.
        killed: the moments of their deaths, in Unix seconds like the others.
        frozen: from when to when each hung; it may have died so.
        up: the moments at which both were found to be up.
    """

    folder: Path
    forget: bool
    session: aiohttp.ClientSession
    proxy_port: int
    comfyui_port: int
    killed: dict[Side, list[float]] = field(default_factory=lambda: {side: [] for side in Side})
    frozen: dict[Side, list[tuple[float, float]]] = field(default_factory=lambda: {side: [] for side in Side})
    up: list[float] = field(default_factory=list)
    _frozen_since: dict[Side, float] = field(default_factory=dict)
    _processes: dict[Side, asyncio.subprocess.Process] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"http://127.0.0.1:{self.proxy_port}"

    @property
    def saved(self) -> Path:
        """The folder in which ComfyUI saves files, over all its lives."""
        return self.folder / "output"

    async def start(self, side: Side) -> None:
        """Start a process that does not run."""
        with (self.folder / f"{side}.log").open("ab") as log:
            self._processes[side] = await asyncio.create_subprocess_exec(
                sys.executable,
                *self._words(side),
                stdout=log,
                stderr=log,
                env={**os.environ, "TMPDIR": str(self.folder)},
            )

    async def kill(self, side: Side) -> None:
        """End a process as the kernel would."""
        process = self._processes[side]
        if process.returncode is not None:
            raise BenchError(f"the {side} ended by itself, with {process.returncode}; see {self.folder}/{side}.log")
        self._not_frozen_any_more(side)
        process.kill()
        await process.wait()
        self.killed[side].append(time.time())  # only now: until it is dead, it may still save a file
        if side is Side.PROXY and self.forget:
            for file in self.folder.glob("journal.sqlite3*"):
                file.unlink()

    def freeze(self, side: Side) -> None:
        """Let a process hang: its sockets stay open, and nothing answers. Only where it `CAN_HANG`."""
        self._frozen_since[side] = time.time()
        self._processes[side].send_signal(signal.SIGSTOP)

    def thaw(self, side: Side) -> None:
        """Let it go on where it was."""
        self._processes[side].send_signal(signal.SIGCONT)
        self._not_frozen_any_more(side)

    def _not_frozen_any_more(self, side: Side) -> None:
        since = self._frozen_since.pop(side, None)
        if since is not None:
            self.frozen[side].append((since, time.time()))

    def worked(self, side: Side, since: float, until: float) -> float:
        """The seconds of such a stretch in which it did not hang."""
        hung = (max(0.0, min(until, end) - max(since, start)) for start, end in self.frozen[side])
        return until - since - sum(hung)

    async def until_up(self) -> None:
        """Wait until both answer and the proxy has compared its journal with what ComfyUI has.

        Raises:
            BenchError: when that takes too long.
        """
        for _ in range(2):  # the first answer may be of a moment before it has seen that ComfyUI died
            await self.until("/comfykeep/queue", lambda queue: bool(queue.get("reconciled")))
            await asyncio.sleep(_AGAIN)
        self.up.append(time.time())

    async def until(self, path: str, holds: Callable[[Any], bool], side: Side = Side.PROXY) -> None:
        """Wait until something is true of what one of them answers.

        Raises:
            BenchError: when that takes too long.
        """
        try:
            async with asyncio.timeout(PATIENCE):
                while not holds(await self._ask(path, side)):  # noqa: ASYNC110 - of another process, no event can be set
                    await asyncio.sleep(_AGAIN)
        except TimeoutError:
            raise BenchError(f"it does not come true what is waited for of GET {path}; see {self.folder}") from None

    async def _ask(self, path: str, side: Side) -> Any:
        """What is answered; nothing from who is not there."""
        port = self.proxy_port if side is Side.PROXY else self.comfyui_port
        try:
            async with self.session.get(f"http://127.0.0.1:{port}{path}") as response:
                return json.loads(await response.text())
        except aiohttp.ClientError:
            return {}

    def _words(self, side: Side) -> Sequence[str]:
        if side is Side.PROXY:
            return ("-c", "from proxy.cli import main; main()", "serve", "--config", str(self.folder / "proxy.toml"))
        flags = ("--port", str(self.comfyui_port), "--time-scale", str(TIME_SCALE))
        return ("-m", "simulator", *flags, "--output-directory", str(self.saved))

    async def end(self) -> None:
        """Kill what still runs."""
        for process in self._processes.values():
            if process.returncode is None:
                process.kill()
                await process.wait()


@asynccontextmanager
async def running(folder: Path, *, forget: bool) -> AsyncIterator[Victims]:
    """Both processes, up."""
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:
        victims = Victims(folder, forget, session, free_port(), free_port())
        text = _CONFIGURATION.format(proxy=victims.proxy_port, comfyui=victims.comfyui_port, folder=folder.as_posix())
        (folder / "proxy.toml").write_text(text, encoding="utf-8")
        try:
            for side in Side:
                await victims.start(side)
            await victims.until_up()
            yield victims
        finally:
            await victims.end()
