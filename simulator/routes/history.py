"""What ran: /history (ComfyUI server.py)."""

from aiohttp import web

from simulator.process import Process


def routes(process: Process) -> list[web.RouteDef]:
    """Routes of this module."""
    queue = process.queue

    async def get_history(request: web.Request) -> web.Response:
        query = request.rel_url.query
        max_items = query.get("max_items")
        offset = query.get("offset")
        past = queue.past(None if max_items is None else int(max_items), -1 if offset is None else int(offset))
        return web.json_response(past)

    async def get_one(request: web.Request) -> web.Response:
        prompt_id = request.match_info["prompt_id"]
        entry = queue.history.get(prompt_id)
        return web.json_response({} if entry is None else {prompt_id: entry})

    async def post_history(request: web.Request) -> web.Response:
        body = await request.json()
        if "clear" in body and body["clear"]:  # noqa: RUF019  # a list has no get, and is no error
            queue.history = {}
        if "delete" in body:
            for prompt_id in body["delete"]:
                queue.history.pop(prompt_id, None)
        return web.Response(status=200)

    return [
        web.get("/history", get_history),
        web.get("/history/{prompt_id}", get_one),
        web.post("/history", post_history),
    ]
