"""The HTTP surface of ComfyUI, one module per topic; every route exists with and without /api."""

from aiohttp import web

from simulator.process import Process

from . import catalog, files, history, jobs, models, prompts, queue, shared, system, uploads, userdata

_TOPICS = (prompts, queue, history, jobs, catalog, models, system, shared, files, uploads, userdata)


def add_routes(app: web.Application, process: Process) -> None:
    """Add all routes; the static files of the page come last, as they match anything."""
    routes = [route for topic in _TOPICS for route in topic.routes(process)]
    app.add_subapp("/internal", system.internal(process))
    app.add_routes([web.route(route.method, f"/api{route.path}", route.handler, **route.kwargs) for route in routes])
    app.add_routes(routes)
    app.add_routes([web.static("/", process.machine.directories.web)])
