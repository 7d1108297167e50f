"""Puts the parts together, from configuration to listening port."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from proxy.config import Config
from proxy.core.budget import Limits
from proxy.core.costs import LoadCosts
from proxy.core.flags import GB
from proxy.core.mode import Mode
from proxy.core.pinning import PinPlanner
from proxy.core.release import Releases
from proxy.core.residency import Residency
from proxy.core.settings import Settings
from proxy.core.sizes import Sizes
from proxy.core.upkeep import GIB
from proxy.core.upkeep import Settings as Upkeep
from proxy.downstream.answers_first import AnswersFirst
from proxy.downstream.middleware import errors_as_json, install_access_rules
from proxy.downstream.passthrough import Passthrough
from proxy.downstream.routes import add_routes
from proxy.downstream.sockets import Sockets
from proxy.downstream.tunnel import Tunnel
from proxy.downstream.warmup_routes import add_warmup_routes
from proxy.engine import Engine
from proxy.engine.comfy import Upstream
from proxy.engine.memory import MemoryWatch
from proxy.engine.queue import HeldQueue, Parts, Terms
from proxy.journal import Journal
from proxy.journal_peek import told, unfinished
from proxy.tasks import Tasks
from proxy.upstream.client import UpstreamClient
from proxy.upstream.feed import Feed
from proxy.upstream.schema import SchemaKeeper
from proxy.upstream.stats import StatsReader
from warmup import StateFile, SystemClock, WarmupService

log = logging.getLogger(__name__)

_HEAD_LIMIT = 1 << 20
"""Bytes of a request line or of one header: ComfyUI decides what is too long."""

DAY = 86_400.0

_LAST_WORDS = 5.0
"""Seconds that answers under way get at a stop; a long download ends with an error then."""


@dataclass(slots=True)
class Running:
    """A proxy that listens at `url`, with the configuration that holds now (`cli.reloading`)."""

    url: str
    engine: Engine
    warmup: WarmupService
    """Its `reload` reads the schedule again."""
    config: Config


@asynccontextmanager
async def running(config: Config) -> AsyncIterator[Running]:
    """Run a proxy inside the current event loop for as long as the context is open.

    Raises:
        ConfigError: it cannot be told which GPU is meant.
        OSError: when the address cannot be listened on.
    """
    url = config.upstream.url
    async with UpstreamClient(url) as client:
        upstream = _upstream(config, client)
        await upstream.memory.check_gpu()
        tunnel = Tunnel(url)
        engine = Engine(
            upstream,
            config.proxy.mode,
            time.monotonic,
            time.time,
            lambda observer: Feed(url, observer),
            lambda parts: _open_queue(proxy.config, parts),
        )
        if config.proxy.mode is not Mode.FULL:
            engine.left_in_journal = await asyncio.to_thread(unfinished, config.journal.file)
        if engine.left_in_journal:
            log.warning("%s", told(engine.left_in_journal))
        engine.pulse.stall.timeout = config.upstream.stall_timeout
        warmup = engine.warming.service = _warmup(config, engine)
        proxy = Running("", engine, warmup, config)
        tasks = Tasks()
        runner = web.AppRunner(
            _application(engine, client, tunnel, warmup),
            shutdown_timeout=_LAST_WORDS,
            access_log=None,
            auto_decompress=False,  # bodies are passed on as they came
            handler_cancellation=True,  # a client that leaves ends what is fetched for it
            max_line_size=_HEAD_LIMIT,
            max_field_size=_HEAD_LIMIT,
        )
        await runner.setup()
        try:
            await engine.start()  # first: what is taken before the queue is open would be no promise
            await web.TCPSite(runner, config.proxy.host, config.proxy.port).start()
            tasks.spawn(warmup.run(), "warm-up service")
            proxy.url = _address(runner)
            yield proxy
        finally:
            await tasks.close()  # first: a warm-up that runs is taken back while ComfyUI can be reached
            await engine.leave(flush=proxy.config.service.on_stop == "flush")
            await engine.close()
            await engine.departure.patiently(runner.cleanup())
            await tunnel.close()


def _upstream(config: Config, client: UpstreamClient) -> Upstream:
    loaders = config.normalizer.loaders
    return Upstream(
        client,
        SchemaKeeper(client, include=loaders.include, exclude=loaders.exclude),
        memory_watch(config, client),
        PinPlanner(Residency(Sizes(configured_sizes(config)), LoadCosts()), limits(config), config.groups),
        releases(config),
        config.normalizer.strategy,
    )


def releases(config: Config) -> Releases:
    """When ComfyUI is told to free memory."""
    return Releases(config.residency.release_idle or None, _bytes(config.residency.vram_reserve))


def memory_watch(config: Config, client: UpstreamClient) -> MemoryWatch:
    """Reads the memory of the configured ComfyUI's machine."""
    upstream, ram_limit = config.upstream, _bytes(config.residency.ram_limit) or None
    reader = StatsReader(client, ram_limit)
    return MemoryWatch(upstream.url, reader, time.monotonic, gpu=upstream.gpu, ram_limit=ram_limit)


def limits(config: Config) -> Limits:
    """What the configuration says about pins and what stays free beside them."""
    residency = config.residency
    return Limits(
        max_chains=config.pins.max_chains,
        ram_share=config.pins.ram_share,
        ram_reserve=_bytes(residency.ram_reserve) or None,
        vram_reserve=_bytes(residency.vram_reserve),
    )


def configured_sizes(config: Config) -> dict[str, int]:
    """Bytes of model files by name, where the configuration knows better than ComfyUI."""
    return {name: _bytes(size) for name, size in config.residency.sizes.items()}


def _bytes(gigabytes: float) -> int:
    return int(gigabytes * GB)


def queue_settings(config: Config) -> Settings:
    """What the configuration says about the order of the queue."""
    queue = config.queue
    return Settings(
        depth=queue.depth,
        validate=queue.validate_at,
        max_bypass=queue.max_bypass,
        max_wait=queue.max_wait,
        age_step=queue.age_step,
        fair_quantum=queue.fair_quantum,
        max_waiting=queue.max_waiting,
        max_attempts=queue.max_attempts,
        rerun_paid=queue.retry == "all",
    )


def _warmup(config: Config, engine: Engine) -> WarmupService:
    section = config.warmup
    return WarmupService(
        section.file,
        engine.warming,
        SystemClock(),
        _state(config.warmup_state) if section.file else _Nothing(),
        gate_limit=section.gate_limit,
        gates_readiness=section.gate_readiness,
    )


def _state(path: Path) -> StateFile:
    with suppress(OSError):  # said by the file, whenever it cannot be written
        path.parent.mkdir(parents=True, exist_ok=True)
    return StateFile(path)


class _Nothing:
    """Without a schedule there is nothing to remember."""

    def load(self) -> None:
        """Nothing was saved."""

    def save(self, text: str) -> None:
        """Keep nothing."""


async def _open_queue(config: Config, parts: Parts) -> HeldQueue:
    journal = await Journal.open(config.journal.file, config.journal.sync)
    return HeldQueue(parts, journal, queue_settings(config), terms(config))


def terms(config: Config) -> Terms:
    """What the configuration says about the upkeep of ComfyUI and of the journal."""
    upstream, journal = config.upstream, config.journal
    return Terms(
        upkeep=Upkeep(
            can_restart=bool(upstream.restart_command),
            recycle_after=upstream.recycle_after,
            recycle_bytes=round(upstream.recycle_memory_gb * GIB),
        ),
        restart_command=upstream.restart_command,
        retain=journal.retain,
        retain_seconds=journal.retain_days * DAY,
    )


def _application(engine: Engine, client: UpstreamClient, tunnel: Tunnel, warmup: WarmupService) -> web.Application:
    passthrough = Passthrough(client, tunnel)
    app = web.Application(middlewares=[errors_as_json], client_max_size=0)  # ComfyUI sets the limit
    install_access_rules(app, lambda: engine.upstream.flags, passthrough.takes)
    answers_first = AnswersFirst()
    add_routes(app, engine, Sockets(engine.feed, passthrough.forward, answers_first), answers_first)
    add_warmup_routes(app, engine, warmup)
    passthrough.install(app)
    return app


def _address(runner: web.AppRunner) -> str:
    host, port = runner.addresses[0][:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
