"""What the Inspire Pack's cache holds: `/inspire/cache/list` (its `inspire/inspire_server.py`)."""

from aiohttp import web

from simulator.process import Process


def routes(process: Process) -> list[web.RouteDef]:
    """Routes of this module: none where the pack is not installed."""

    async def get_list(_: web.Request) -> web.Response:
        return web.Response(text=process.machine.shared.listing())

    return [web.get("/inspire/cache/list", get_list)] if process.machine.config.inspire_pack else []
