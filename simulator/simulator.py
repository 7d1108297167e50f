"""The simulator as others use it: start, crash, restart, stop, and ask what it did."""

import asyncio
import contextlib
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from aiohttp import web

from . import png
from .clock import Clock
from .config import SimulatorConfig
from .ledger import DiskRead, Ledger
from .machine import Directories, Machine
from .nodes.catalogue import node_classes
from .process import Process
from .routes import add_routes

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>ComfyUI (simulated)</title>
<script type="module" src="./assets/index.js"></script></head>
<body><h1>ComfyUI, simulated</h1><p>There is no page here, only the API.</p></body></html>
"""
_SCRIPT = "// A stand-in for the scripts of a page.\n"


class Simulator:
    """A simulated ComfyUI with its web server, to be used as an asynchronous context manager.

    The ledger, the clock and the files outlive a crash; queue, history, caches and memory do not.

    Args:
        config: what is simulated.
    """

    def __init__(self, config: SimulatorConfig | None = None) -> None:
        self.config = config or SimulatorConfig()
        self.clock = Clock(self.config.time_scale)
        self.ledger = Ledger()
        self.crashed: asyncio.Event = asyncio.Event()
        """Set when the process has exited by itself or `crash` was called; cleared by `restart`."""
        self.crash_reason: str | None = None
        self._classes = node_classes(self.config)
        self._root: Path | None = None
        self._port = self.config.port
        self._process: Process | None = None
        self._runner: web.AppRunner | None = None
        self._dying: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port it listens on; stays the same over restarts."""
        return self._port

    @property
    def url(self) -> str:
        """Base address, without a slash at the end."""
        host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
        return f"http://{host}:{self._port}"

    @property
    def process(self) -> Process:
        """The present life. Raises RuntimeError while there is none."""
        if self._process is None:
            raise RuntimeError("the simulator is not running")
        return self._process

    @property
    def directories(self) -> Directories:
        """Its folders. Raises RuntimeError before `start`."""
        if self._root is None:
            raise RuntimeError("the simulator was not started")
        return Directories(self._root, self.config.output_directory)

    def loads(self) -> tuple[DiskRead, ...]:
        """All reads of model files so far."""
        return tuple(self.ledger.reads)

    async def start(self) -> None:
        """Make the folders and start listening."""
        self._root = _make_root()
        _furnish(self.directories)
        await self._boot()

    async def stop(self) -> None:
        """Stop listening and remove everything."""
        if self._dying is not None:
            await self._dying
        await self._halt(abrupt=False)
        if self._root is not None:
            shutil.rmtree(self._root, ignore_errors=True)
            self._root = None

    async def crash(self, reason: str = "killed") -> None:
        """Die at once: connections are aborted, queue, history and memory are lost."""
        if self._process is None:
            return
        self.crash_reason = reason
        await self._halt(abrupt=True)
        self.crashed.set()

    async def restart(self) -> None:
        """Start a new process after a crash, at the same address, with the same files."""
        if self._dying is not None:
            await self._dying
        await self._halt(abrupt=True)
        self.crashed.clear()
        self.crash_reason = None
        shutil.rmtree(self.directories.temp, ignore_errors=True)
        self.directories.temp.mkdir()
        await self._boot()

    async def idle(self) -> None:
        """Wait until nothing is queued and nothing runs.

        Raises:
            RuntimeError: the process died, or its worker did, so that this would never be.
        """
        process = self.process
        waits = [asyncio.ensure_future(process.queue.idle.wait()), asyncio.ensure_future(process.ended.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if not process.queue.idle.is_set():
            raise RuntimeError("the simulated worker is dead")

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _boot(self) -> None:
        machine = Machine(self.config, self.clock, self.ledger, self.directories)
        process = Process(machine, self._classes, self._exited)
        app = process.application()
        add_routes(app, process)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, self.config.host, self._port).start()
        self._port = self._runner.addresses[0][1]
        process.port = self._port
        self._process = process
        process.start()

    async def _halt(self, *, abrupt: bool) -> None:
        process, self._process = self._process, None
        runner, self._runner = self._runner, None
        if runner is not None:
            for site in list(runner.sites):
                await site.stop()
            if abrupt and runner.server is not None:
                for connection in runner.server.connections:
                    if connection.transport is not None:
                        connection.transport.abort()
        if process is not None:
            await process.stop()
        if runner is not None:
            await runner.cleanup()

    def _exited(self, reason: str) -> None:
        """The process exits by itself; called from within one of its own tasks."""
        if self._dying is None or self._dying.done():
            self._dying = asyncio.get_running_loop().create_task(self.crash(reason), name="simulated exit")


def _make_root() -> Path:
    return Path(tempfile.mkdtemp(prefix="comfykeep-simulator-")).resolve()


def _furnish(directories: Directories) -> None:
    """Lay out the folders of a fresh installation."""
    web_files = {
        "index.html": _PAGE,
        "assets/index.js": _SCRIPT,
        "extensions/core/simulated.js": _SCRIPT,
    }
    for folder in (directories.output, directories.input, directories.temp, directories.user / "default"):
        folder.mkdir(parents=True, exist_ok=True)
    (directories.input / "example.png").write_bytes(png.encode(64, 64, (96, 104, 120)))
    for name, text in web_files.items():
        path = directories.web / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


async def serve(config: SimulatorConfig) -> str | None:
    """Serve until SIGINT, SIGTERM or the simulated process dies; returns why it died, None after a signal."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C raises KeyboardInterrupt instead
            loop.add_signal_handler(number, stop.set)
    async with Simulator(config) as simulator:
        print(f"To see the GUI go to: {simulator.url}", flush=True)  # noqa: T201  # as ComfyUI announces itself
        waits = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(simulator.crashed.wait())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        return simulator.crash_reason


def run(config: SimulatorConfig) -> int:
    """Serve in this process until a signal.

    Returns:
        The exit status: 0 after a signal, 137 when the simulated kernel killed it, 1 when it died otherwise.
    """
    try:
        reason = asyncio.run(serve(config))
    except KeyboardInterrupt:
        return 0
    except OSError as error:
        address = f"{config.host}:{config.port}"
        print(f"Cannot listen on {address}: {error.strerror or error}. Choose another --port.", file=sys.stderr)  # noqa: T201
        return 1
    if reason is None:
        return 0
    print(reason, flush=True)  # noqa: T201  # the last words of the process
    return 137 if reason.startswith("out of memory") else 1
