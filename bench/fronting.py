"""A proxy in this process, to be measured."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from proxy.app import Running, running
from proxy.config import Config, ProxySection, UpstreamSection

_LOOK = 0.01
"""Seconds between two looks."""


@asynccontextmanager
async def fronting(upstream: str) -> AsyncIterator[Running]:
    """A proxy before the ComfyUI at `upstream`, past its start.

    Until it knows the node classes, prompts wait for them or carry no pins; and a real ComfyUI takes seconds to list
    them, which are no workflow's.
    """
    config = Config(proxy=ProxySection(listen="127.0.0.1:0"), upstream=UpstreamSection(url=upstream))
    async with running(config) as proxy:
        while not proxy.engine.upstream.schema.complete:  # noqa: ASYNC110 - looks from outside, as anybody would
            await asyncio.sleep(_LOOK)
        yield proxy
