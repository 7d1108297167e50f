"""One history for clients: what ComfyUI remembers, and what only the journal does.

ComfyUI's history dies with its process, and never had the prompts that ended here. Where the queue is held, entries
that only the journal has come first: they are older, or ComfyUI never saw them.
"""

import asyncio
from typing import Any

from aiohttp import web

from proxy.downstream.answers import raw_target, respond
from proxy.downstream.hidden import clients_history, shows_warmups
from proxy.downstream.restored import Restored, restore_history
from proxy.engine import Engine
from proxy.errors import UpstreamError
from proxy.wire.headers import request_headers


class HistoryView:
    """Handlers for `GET /history` and `GET /history/{prompt_id}`."""

    def __init__(self, engine: Engine, restored: Restored) -> None:
        self._engine = engine
        self._restored = restored

    async def page(self, request: web.Request) -> web.StreamResponse:
        """`GET /history[?max_items&offset]` (ComfyUI execution.py, `get_history`)."""
        held = self._engine.held
        if held is None:
            return await self._restored.history(request)
        limit, offset = _integer(request, "max_items"), _integer(request, "offset")
        if limit is _BAD or offset is _BAD:
            answer = await self._engine.upstream.client.get(raw_target(request), request_headers(request.raw_headers))
            return await respond(request, answer)  # ComfyUI says what is wrong with it
        theirs = await self._theirs()
        theirs = theirs if shows_warmups(request) else clients_history(theirs, self._engine.records.rerunning)
        # what ComfyUI may have of a prompt that waits here is a run that is repeated
        theirs = {key: entry for key, entry in theirs.items() if held.holding.get(key) is None}
        merged = list((await held.history.besides(theirs) | theirs).items())
        return web.json_response(dict(_page(merged, limit, -1 if offset is None else offset)))

    async def entry(self, request: web.Request) -> web.StreamResponse:
        """`GET /history/{prompt_id}`."""
        held = self._engine.held
        if held is None:
            return await self._restored.history(request)
        prompt_id = request.match_info["prompt_id"]
        if held.holding.get(prompt_id) is not None:
            return web.json_response({})  # as in `page`
        entry = await held.history.entry(prompt_id)
        try:
            return await self._restored.history(request, fallback=None if entry is None else {prompt_id: entry})
        except UpstreamError:
            if entry is None:
                raise
            return web.json_response({prompt_id: entry})

    async def _theirs(self) -> dict[str, Any]:
        try:
            history = await self._engine.upstream.client.get_json("/history")
        except UpstreamError:
            return {}
        # There may be ten thousand entries, and events must not wait for them.
        restored: dict[str, Any] = await asyncio.to_thread(restore_history, history)
        return restored


_BAD = -(2**63)


def _integer(request: web.Request, name: str) -> int | None:
    given = request.query.get(name)
    try:
        return None if given is None else int(given)
    except ValueError:
        return _BAD


def _page(items: list[tuple[str, Any]], limit: int | None, offset: int) -> list[tuple[str, Any]]:
    if offset < 0 and limit is not None:
        offset = len(items) - limit
    chosen = items[max(0, offset) :]
    # ComfyUI looks at the limit after it has taken an item
    return chosen if limit is None else chosen[: max(1, limit)]
