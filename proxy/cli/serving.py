"""Commands that front, look at or imitate a ComfyUI."""

import asyncio
import contextlib
import errno
import json
import logging
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from normalizer import Role, Schema, describe
from proxy.app import Running, configured_sizes, limits, memory_watch, running
from proxy.cli.lifetime import Lifetime
from proxy.cli.options import table_console
from proxy.cli.plain_log import told_in_a_line
from proxy.cli.warming import schedule_problems
from proxy.collecting import collect_rarely
from proxy.config import Config
from proxy.core.advice import Advice, Severity
from proxy.core.mode import Mode
from proxy.engine.instance import INSTANCE, asked_instance
from proxy.engine.report import Report, Wanted, survey
from proxy.errors import ComfykeepError, UpstreamError
from proxy.journal_peek import told, unfinished
from proxy.tasks import Tasks
from proxy.upstream.client import UpstreamClient

log = logging.getLogger("comfykeep")

_LEVELS = {
    Severity.ERROR: logging.ERROR,
    Severity.PROBLEM: logging.WARNING,
    Severity.WARNING: logging.WARNING,
    Severity.HINT: logging.INFO,
}
_STYLES = {
    Severity.ERROR: "bold red",
    Severity.PROBLEM: "bold yellow",
    Severity.WARNING: "bold magenta",
    Severity.HINT: "bold cyan",
}
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class ServeError(Exception):
    """What keeps a command from doing its work; the message says what to do."""


def run_async(main: Coroutine[Any, Any, int]) -> int:
    """Run on uvloop where it exists."""
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if sys.platform != "win32":
        with contextlib.suppress(ImportError):
            import uvloop  # noqa: PLC0415 - not on every platform

            loop_factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(main)


def serve(config: Config, read_again: Callable[[], Config] | None) -> None:
    """Front a ComfyUI until told to stop; `read_again` reads the configuration anew at SIGHUP, None if it has no file.

    Raises:
        ServeError: when the address cannot be listened on, leads back to itself, or the journal cannot be used.
    """
    logging.basicConfig(level=config.proxy.log_level.upper(), format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("aiohttp.server").addFilter(told_in_a_line)
    collect_rarely()
    with contextlib.suppress(KeyboardInterrupt):
        run_async(_serve(config, read_again))


async def _serve(config: Config, read_again: Callable[[], Config] | None) -> int:
    lifetime = Lifetime(read_again)
    try:
        async with running(config) as proxy, lifetime.of(proxy):
            if await asked_instance(proxy.engine.upstream.client) == INSTANCE:
                raise ServeError(
                    f"{config.upstream.url} leads back to comfykeep itself, which listens on {config.proxy.listen}. "
                    "Set [upstream] url to ComfyUI's own port."
                )
            log.info("listening on %s, mode %s; stop with Ctrl-C", proxy.url, config.proxy.mode)
            if config.proxy.host not in _LOOPBACK:
                log.warning(
                    "%s is not a loopback address, and neither ComfyUI nor comfykeep asks for a password: whoever "
                    "reaches this port can run workflows and read and write ComfyUI's files. Put an authenticating "
                    "reverse proxy in front, or listen on 127.0.0.1.",
                    config.proxy.listen,
                )
            announcer = Announcer(proxy)
            answers = await announcer.say()
            async with announcer.following():
                await lifetime.until_stopped(wait_for_comfyui=answers)
    except ComfykeepError as error:
        raise ServeError(f"{error.message}. {error.details}") from error
    except OSError as error:
        raise ServeError(
            f"Cannot listen on {config.proxy.listen}: {error.strerror or error}. {_guess(error)} "
            'Else set another address in proxy.toml: [proxy] listen = "127.0.0.1:8190".'
        ) from error
    return 0


def _guess(error: OSError) -> str:
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return "Is that an address of this machine?"
    if error.errno == errno.EACCES:
        return "Low ports are for privileged users."
    return "Is another comfykeep there?"


class Announcer:
    """Says in the log what is fronted, and says it again when another ComfyUI, or one at all, is there."""

    def __init__(self, proxy: Running) -> None:
        self._proxy = proxy
        self._said: Report | None = None
        self._news = asyncio.Event()
        proxy.engine.learned = self._news.set

    async def say(self) -> bool:
        """Look and tell, unless it is what was told before; whether ComfyUI answers."""
        config = self._proxy.config
        client = self._proxy.engine.upstream.client
        report = await _survey(config, client)
        if self._said is None or not report.like(self._said):
            for line in report.lines():
                log.info("%s", line)
            for problem in report.problems:
                log.log(_LEVELS[problem.severity], "%s %s", problem.problem, problem.remedy)
        self._said = report
        return report.stats is not None

    @contextlib.asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Look again each time a ComfyUI has come up, while the context is open."""
        tasks = Tasks()
        tasks.spawn(self._follow(), "announce what is fronted")
        try:
            yield
        finally:
            await tasks.close()

    async def _follow(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            await self.say()


def _overrides(config: Config) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return config.normalizer.loaders.include, config.normalizer.loaders.exclude


async def _survey(config: Config, client: UpstreamClient) -> Report:
    wanted = Wanted(limits(config), config.groups, config.normalizer.strategy, configured_sizes(config))
    return await survey(client, memory_watch(config, client), wanted, *_overrides(config))


def check(config: Config) -> int:
    """Print what is fronted, each problem with its remedy, warnings and hints; 1 when there is a problem, else 0."""

    async def look() -> Report:
        async with UpstreamClient(config.upstream.url) as client:
            return await _survey(config, client)

    report = asyncio.run(look())
    problems = [
        *_left_in_journal(config),
        *report.problems,
        *schedule_problems(config, report.schema),
    ]
    console = Console(soft_wrap=True, highlight=False)
    for line in report.lines():
        console.print(line, markup=False)
    for problem in problems:
        console.print(f"{problem.severity.capitalize()}:", style=_STYLES[problem.severity], end=" ")
        console.print(f"{problem.problem}\n  {problem.remedy}", markup=False)
    severities = {problem.severity for problem in problems}
    if severities <= {Severity.HINT}:
        console.print("[green]No problems found.[/]")
    return 0 if severities.isdisjoint({Severity.ERROR, Severity.PROBLEM}) else 1


def _left_in_journal(config: Config) -> Iterator[Advice]:
    count = 0 if config.proxy.mode is Mode.FULL else unfinished(config.journal.file)
    if count:
        yield Advice(f"{told(count)}.", 'Or set [proxy] mode = "full" before the next start.')


def simulate(arguments: Sequence[str]) -> int:
    """Run the simulated ComfyUI until stopped; its exit status."""
    import simulator  # noqa: PLC0415 - no other command should take the time to load it

    return simulator.run(simulator.parse_flags(_cache_flags(arguments)))


def _cache_flags(arguments: Sequence[str]) -> list[str]:
    """`--cache lru 50` for ComfyUI's own `--cache-lru 50`, and so on for the other modes."""
    words = list(arguments)
    for place, word in enumerate(words[:-1]):
        if word == "--cache":
            words[place : place + 2] = [f"--cache-{words[place + 1]}"]
            break
    return words


def loaders(config: Config, upstream: str | None, object_info: Path | None, *, json_output: bool) -> None:
    """List the roles of node classes.

    Raises:
        ServeError: when the schema cannot be read.
    """
    rows = describe(_schema(config, upstream, object_info))
    if json_output:
        listed = [
            {"class": row.class_type, "role": row.role, "reason": row.reason, "module": row.module} for row in rows
        ]
        print(json.dumps(listed))  # noqa: T201 - the answer of a command
        return
    table = Table()
    for heading in ("class", "role", "why"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        if row.role is not Role.NEITHER:
            table.add_row(row.class_type, row.role, row.reason)
    console = table_console()
    console.print(table)
    others = sum(row.role is Role.NEITHER for row in rows)
    console.print(f"{others} more classes are neither; --json lists them with the reason.")


def _schema(config: Config, upstream: str | None, object_info: Path | None) -> Schema:
    include, exclude = _overrides(config)
    if object_info is not None:
        try:
            info = json.loads(object_info.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ServeError(f"{object_info}: cannot be read as JSON: {error}") from error
        if not isinstance(info, dict):
            raise ServeError(f"{object_info}: not an answer of GET /object_info")
        return Schema.from_object_info(info, include=include, exclude=exclude)

    async def ask() -> Any:
        async with UpstreamClient(upstream or config.upstream.url) as client:
            return await client.get_json("/object_info")

    try:
        return Schema.from_object_info(asyncio.run(ask()), include=include, exclude=exclude)
    except UpstreamError as error:
        raise ServeError(f"{error.message}. {error.details}") from error
