"""A `comfykeep` process that finds what it would find on Windows: started with the arguments of the command line.

What Windows does not have is taken away after the libraries have been loaded and before any of comfykeep's own modules
is; what only Windows has is there. It is no Windows: it shows that nothing of ours asks for what is missing there.
"""

import asyncio
import os
import signal
import socket
import sqlite3
import sys
import types
import zoneinfo
from typing import Any, NoReturn

import aiohttp.web
import pydantic
import pynvml  # type: ignore[import-untyped]
import rich.console
import rich.live
import rich.progress
import rich.table
import typer
import websockets.asyncio.client

LOADED = (aiohttp, pydantic.BaseModel, pynvml, rich, sqlite3, typer, websockets, zoneinfo)
MISSING_MODULES = ("fcntl", "grp", "pwd", "resource", "termios", "uvloop")
MISSING_NAMES: dict[Any, tuple[str, ...]] = {
    os: ("fork", "geteuid", "getpgid", "getuid", "killpg", "sysconf"),
    signal: ("SIGHUP", "SIGKILL", "SIGUSR1"),
    socket: ("SO_REUSEPORT",),
}
MISSING_IN_LOOPS = ("add_signal_handler", "add_reader", "add_writer", "create_unix_connection", "create_unix_server")
"""Of the event loop that Python uses there (Proactor)."""


def not_there(*_: object, **__: object) -> NoReturn:
    raise NotImplementedError


def locking(file: int, _mode: int, count: int) -> None:
    """As the real one does, lock so many bytes from where the file stands."""
    os.lockf(file, os.F_TLOCK, count)


def pretend() -> None:
    for name in MISSING_MODULES:
        sys.modules[name] = None  # type: ignore[assignment]  # so that importing it fails
    for module, names in MISSING_NAMES.items():
        for name in names:
            delattr(module, name)
    for name in MISSING_IN_LOOPS:
        setattr(asyncio.SelectorEventLoop, name, not_there)
    msvcrt = types.ModuleType("msvcrt")
    msvcrt.LK_NBLCK = 2  # type: ignore[attr-defined]
    msvcrt.locking = locking  # type: ignore[attr-defined]
    sys.modules["msvcrt"] = msvcrt
    sys.platform = "win32"


if __name__ == "__main__":
    pretend()
    from proxy.cli import main

    main()
