"""The life of the serving process: signals from people and from systemd, signs of life to systemd.

SIGTERM and SIGINT stop it, a second one hurries the stop, SIGHUP reads the configuration again. systemd hears that it
is ready when the port is open and the journal reconciled with ComfyUI (if there is one), and gets its sign of life from
the engine: a process whose engine decides nothing any more is to be restarted, however well its event loop turns.
"""

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import AsyncIterator, Callable

from proxy import systemd
from proxy.app import Running
from proxy.cli.reloading import reload
from proxy.config import Config
from proxy.errors import ConfigError
from proxy.tasks import Tasks

log = logging.getLogger("comfykeep")

RECONCILING = 60.0
"""Seconds after which systemd is told that the port is open although ComfyUI does not tell what it has."""


class Lifetime:
    """From the first signal handler to the last word. Make it inside the event loop, before anything is started."""

    def __init__(self, read_again: Callable[[], Config] | None) -> None:
        """`read_again` reads the configuration; None where there is no file."""
        self._read_again = read_again
        self._stop = asyncio.Event()
        self._proxy: Running | None = None
        self._tasks = Tasks()
        self._reloading = asyncio.Lock()
        self._on(self._stopped, signal.SIGINT, signal.SIGTERM)
        if sys.platform != "win32":
            self._on(self._reload_wanted, signal.SIGHUP)

    @contextlib.asynccontextmanager
    async def of(self, proxy: Running) -> AsyncIterator[None]:
        """Connect the signals with a proxy that runs; at the end it is told to systemd that it stops."""
        self._proxy = proxy
        proxy.engine.pulse.beaten = lambda: systemd.notify("WATCHDOG=1")
        try:
            yield
        finally:
            systemd.notify("STOPPING=1", "STATUS=stopping")
            await self._tasks.close()

    async def until_stopped(self, *, wait_for_comfyui: bool) -> None:
        """Say that all is ready when it is, and wait for the signal to stop."""
        self._tasks.spawn(self._announce(wait_for_comfyui=wait_for_comfyui), "tell systemd")
        await self._stop.wait()
        log.info("stopping; a second signal hurries")

    async def _announce(self, *, wait_for_comfyui: bool) -> None:
        proxy = self._required()
        if wait_for_comfyui and proxy.engine.held is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RECONCILING):
                    await proxy.engine.held.until_reconciled()
        systemd.notify("READY=1", f"STATUS=fronting {proxy.config.upstream.url} at {proxy.url}")

    def _stopped(self) -> None:
        if self._proxy is not None:
            self._proxy.engine.departure.begin()
            if self._stop.is_set():
                log.info("hurrying")
                self._proxy.engine.departure.hurry()
        self._stop.set()

    def _reload_wanted(self) -> None:
        if self._proxy is not None and not self._stop.is_set():
            self._tasks.spawn(self._reload(), "read the configuration again")

    async def _reload(self) -> None:
        proxy = self._required()
        async with self._reloading:
            proxy.warmup.reload()
            if self._read_again is None:
                log.info("reloaded: there is no configuration file to read again")
                return
            try:
                await reload(proxy, self._read_again())
            except ConfigError as error:
                log.error("the configuration stays as it was: %s", error)  # noqa: TRY400 - the error says it all

    def _required(self) -> Running:
        if self._proxy is None:
            raise RuntimeError("nothing runs yet")
        return self._proxy

    @staticmethod
    def _on(handler: Callable[[], None], *signals: signal.Signals) -> None:
        for number in signals:
            with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C raises KeyboardInterrupt instead
                asyncio.get_running_loop().add_signal_handler(number, handler)
