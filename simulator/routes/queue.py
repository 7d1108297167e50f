"""Looking at the queue and changing it: /queue, /interrupt, /free (ComfyUI server.py)."""

import json
from typing import Any

from aiohttp import web

from simulator.process import Process


def routes(process: Process) -> list[web.RouteDef]:
    """Routes of this module."""

    async def get_queue(_: web.Request) -> web.Response:
        queue = process.queue
        running = [item[:5] for item in queue.running.values()]
        return web.json_response({"queue_running": running, "queue_pending": [item[:5] for item in queue.pending]})

    async def post_queue(request: web.Request) -> web.Response:
        return _change(process, await request.json())

    async def post_interrupt(request: web.Request) -> web.Response:
        try:
            body = await request.json()
        except json.JSONDecodeError:
            body = {}
        prompt_id = body.get("prompt_id")
        if prompt_id:
            process.queue.interrupt_if_running(prompt_id)
        else:
            process.executor.interrupt.wanted = True
        return web.Response(status=200)

    async def post_free(request: web.Request) -> web.Response:
        body = await request.json()
        for flag in ("unload_models", "free_memory"):
            if body.get(flag, False):
                process.queue.set_flag(flag, body[flag])
        return web.Response(status=200)

    return [
        web.get("/queue", get_queue),
        web.post("/queue", post_queue),
        web.post("/interrupt", post_interrupt),
        web.post("/free", post_free),
    ]


def _change(process: Process, body: Any) -> web.Response:
    if "clear" in body and body["clear"]:  # noqa: RUF019  # a list has no get, and is no error
        process.queue.clear()
    if "delete" in body:
        for prompt_id in body["delete"]:
            process.queue.delete(prompt_id)
    return web.Response(status=200)
