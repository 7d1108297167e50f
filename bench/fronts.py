"""Simulated ComfyUIs and what may stand before one: nothing, nginx, comfykeep in each mode. All are processes."""

import asyncio
import shutil
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import aiohttp

from bench.errors import BenchError
from proxy.core.mode import Mode

PATIENCE = 60.0
"""Seconds that a process gets to answer."""
_AGAIN = 0.05
"""Seconds between two questions whether it does."""

_NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        client_max_body_size 0;
        location / {{
            proxy_pass http://127.0.0.1:{upstream};
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $http_connection;
            proxy_buffering off;
            proxy_request_buffering off;
        }}
    }}
}}
"""
"""As people put it before ComfyUI: WebSockets passed on, nothing buffered."""

_COMFYKEEP = """
[proxy]
listen = "127.0.0.1:{port}"
mode = "{mode}"
[upstream]
url = "http://127.0.0.1:{upstream}"
[journal]
path = "{folder}/journal.sqlite3"
"""


@dataclass(frozen=True, slots=True)
class Front:
    """Something to connect to."""

    name: str
    url: str


@asynccontextmanager
async def all_fronts(folder: Path) -> AsyncIterator[tuple[Front, ...]]:
    """The simulated ComfyUI itself first, then all that can be put before it here.

    Each front has a ComfyUI of its own, so that none works for what is asked of another.

    Raises:
        BenchError: when one of them does not come up.
    """
    async with Processes(folder) as processes:
        direct = await _start_simulator(processes, "direct", free_port())
        async with asyncio.TaskGroup() as group:
            starting = [group.create_task(_start(processes, name, folder)) for name in _names()]
        yield (direct, *(task.result() for task in starting))


def _names() -> tuple[str, ...]:
    return (*(("nginx",) if shutil.which("nginx") else ()), *Mode)


async def _start(processes: "Processes", name: str, folder: Path) -> Front:
    port, upstream = free_port(), free_port()
    await _start_simulator(processes, f"ComfyUI behind {name}", upstream)
    nginx = shutil.which("nginx")
    if name == "nginx" and nginx is not None:
        file = folder / "nginx.conf"
        file.write_text(_NGINX.format(folder=folder, port=port, upstream=upstream), encoding="utf-8")
        return await processes.start(name, port, nginx, "-c", str(file), "-p", str(folder))
    file, journal = folder / f"{name}.toml", folder / name
    journal.mkdir()
    text = _COMFYKEEP.format(folder=journal.as_posix(), port=port, mode=name, upstream=upstream)
    file.write_text(text, encoding="utf-8")
    serve = ("-c", "from proxy.cli import main; main()", "serve", "--config", str(file))
    return await processes.start(name, port, sys.executable, *serve)


async def _start_simulator(processes: "Processes", name: str, port: int) -> Front:
    words = ("-m", "simulator", "--port", str(port), "--time-scale", "inf")
    return await processes.start(name, port, sys.executable, *words)


class Processes:
    """What was started; it is ended on the way out. Each writes a log of its name into `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: list[asyncio.subprocess.Process] = []

    async def __aenter__(self) -> Self:
        """Nothing runs yet."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """End all, the newest first."""
        for process in reversed(self._running):
            if process.returncode is None:
                process.terminate()
                await process.wait()

    async def start(self, name: str, port: int, *words: str) -> Front:
        """Start one and wait until it passes questions on to ComfyUI."""
        log = self._folder / f"{name}.log"
        with log.open("wb") as output:
            self._running.append(await asyncio.create_subprocess_exec(*words, stdout=output, stderr=output))
        front = Front(name, f"http://127.0.0.1:{port}")
        try:
            async with aiohttp.ClientSession() as session, asyncio.timeout(PATIENCE):
                while not await _answers(session, front.url):  # noqa: ASYNC110 - of another process, no event can be set
                    await asyncio.sleep(_AGAIN)
        except TimeoutError:
            raise BenchError(f"{name} does not come up: {log.read_text(encoding='utf-8')[-2000:]}") from None
        return front


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(f"{url}/prompt") as response:
            return response.ok
    except aiohttp.ClientError:
        return False


def free_port() -> int:
    """A port that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
