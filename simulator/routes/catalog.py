"""Node classes: /object_info (ComfyUI server.py)."""

from aiohttp import web

from simulator.process import Process


def routes(process: Process) -> list[web.RouteDef]:
    """Routes of this module."""

    async def get_all(_: web.Request) -> web.Response:
        return web.json_response({name: node.info(process.machine) for name, node in process.classes.items()})

    async def get_one(request: web.Request) -> web.Response:
        name = request.match_info["node_class"]
        known = process.classes.get(name)
        return web.json_response({} if known is None else {name: known.info(process.machine)})

    return [web.get("/object_info", get_all), web.get("/object_info/{node_class}", get_one)]
