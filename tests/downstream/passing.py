"""A proxy that only passes on, built as the application builds it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from proxy.downstream.middleware import errors_as_json
from proxy.downstream.passthrough import Passthrough
from proxy.downstream.tunnel import Tunnel
from proxy.upstream.client import UpstreamClient


@asynccontextmanager
async def running(app: web.Application) -> AsyncIterator[int]:
    """Serve `app` with the settings that passing on needs; yields the port."""
    runner = web.AppRunner(
        app,
        access_log=None,
        auto_decompress=False,
        handler_cancellation=True,
        max_line_size=1 << 16,
        max_field_size=1 << 16,
        shutdown_timeout=0.1,
    )
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@asynccontextmanager
async def passing(upstream_url: str) -> AsyncIterator[int]:
    """Yields the port of a proxy before `upstream_url`."""
    async with UpstreamClient(upstream_url) as client:
        app = web.Application(middlewares=[errors_as_json])
        tunnel = Tunnel(upstream_url)
        Passthrough(client, tunnel).install(app)
        try:
            async with running(app) as port:
                yield port
        finally:
            await tunnel.close()
