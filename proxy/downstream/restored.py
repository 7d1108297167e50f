"""GET routes whose answers name nodes: asked of ComfyUI, given to the client in its own terms.

An answer in which nothing of ours occurs goes on as the bytes it came as.
"""

import asyncio
import json
import zlib
from collections.abc import Callable
from typing import Any

from aiohttp import web

from normalizer import EXTRA_DATA_KEY, WayBack, mentions_sent_id
from proxy.downstream.answers import raw_target, respond
from proxy.downstream.hidden import clients_history, clients_job, clients_jobs, clients_queue, shows_warmups
from proxy.engine import Engine
from proxy.engine.sender import with_body
from proxy.upstream.client import Answer
from proxy.wire.headers import request_headers

_LARGE = 1 << 18
"""Bytes from which a body is taken apart in a thread: events must not wait for it."""

_WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
"""zlib's window bits for the encodings that ComfyUI uses (aiohttp, `enable_compression`)."""


class Restored:
    """Handlers for `/queue`, `/history` and `/api/jobs`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def queue(self, request: web.Request) -> web.StreamResponse:
        """`GET /queue`."""
        if shows_warmups(request):
            return await self._give(request, restore_queue)
        return await self._give(request, lambda queue: restore_queue(clients_queue(queue)))

    async def count(self, request: web.Request) -> web.StreamResponse:
        """`GET /prompt`."""
        answer = await self._ask(request)
        if answer.ok and not shows_warmups(request):
            remaining = json.loads(_decoded(answer))["exec_info"]["queue_remaining"]
            visible = self._engine.warming.traces.visible(remaining)
            if visible != remaining:
                answer = _encoded(answer, {"exec_info": {"queue_remaining": visible}})
        return await respond(request, answer)

    async def history(self, request: web.Request, fallback: Any = None) -> web.StreamResponse:
        """`GET /history` and `GET /history/{prompt_id}`; `fallback` is given where ComfyUI has nothing."""
        if shows_warmups(request):
            return await self._give(request, restore_history, fallback)
        rerunning = self._engine.records.rerunning
        return await self._give(request, lambda history: restore_history(clients_history(history, rerunning)), fallback)

    async def jobs(self, request: web.Request) -> web.StreamResponse:
        """`GET /api/jobs`: the list has no `extra_data`, so the way back is looked up."""
        answer = await self._ask(request)
        body = _decoded(answer)
        hidden = frozenset[str]() if shows_warmups(request) else self._engine.warming.traces.hidden
        if answer.ok and (mentions_sent_id(body) or any(prompt_id.encode() in body for prompt_id in hidden)):
            parsed = clients_jobs(json.loads(body), hidden, self._engine.records.rerunning)
            parsed["jobs"] = await self.restore_jobs(parsed["jobs"])
            answer = _encoded(answer, parsed)
        return await respond(request, answer)

    async def job(self, request: web.Request) -> web.StreamResponse:
        """`GET /api/jobs/{id}`."""
        answer = await self._ask(request)
        body = _decoded(answer)
        if answer.ok and (_mentions_us(body) or mentions_sent_id(body)):
            job = clients_job(json.loads(body), self._engine.records.rerunning)
            answer = _encoded(answer, await self._job(job))
        return await respond(request, answer)

    async def restore_jobs(self, jobs: list[Any]) -> list[Any]:
        """Jobs of ComfyUI's list in their clients' terms."""
        return [await self._job(job) for job in jobs]

    async def _job(self, job: Any) -> Any:
        workflow = job.get("workflow") or {}
        way_back = WayBack.from_extra_data(workflow.get("extra_data")) or await self._engine.way_back(job.get("id"))
        return way_back.job(job) if way_back else job

    async def _give(
        self, request: web.Request, restore: Callable[[Any], Any], fallback: Any = None
    ) -> web.StreamResponse:
        answer = await self._ask(request)
        if answer.ok:
            run = asyncio.to_thread if len(answer.body) > _LARGE else _directly
            answer = await run(_restore_body, answer, restore)
            if fallback is not None and _decoded(answer) == b"{}":
                answer = _encoded(answer, fallback)
        return await respond(request, answer)

    async def _ask(self, request: web.Request) -> Answer:
        return await self._engine.upstream.client.get(raw_target(request), request_headers(request.raw_headers))


def restore_queue(queue: Any) -> Any:
    """`{"queue_running": [item], "queue_pending": [item]}` with each item restored."""
    return {key: [_restore_item(item) for item in items] for key, items in queue.items()}


def restore_history(history: Any) -> Any:
    """`{prompt_id: entry}` with each entry restored."""
    return {prompt_id: _restore_entry(entry) for prompt_id, entry in history.items()}


def _restore_item(item: Any) -> Any:
    way_back = WayBack.from_extra_data(item[3])
    return way_back.queue_item(item) if way_back else item


def _restore_entry(entry: Any) -> Any:
    way_back = WayBack.from_extra_data(entry["prompt"][3])
    return way_back.history_entry(entry) if way_back else entry


async def _directly(function: Callable[..., Answer], *args: Any) -> Answer:
    return function(*args)


def _restore_body(answer: Answer, restore: Callable[[Any], Any]) -> Answer:
    body = _decoded(answer)
    return _encoded(answer, restore(json.loads(body))) if _mentions_us(body) else answer


def _mentions_us(body: bytes) -> bool:
    return f'"{EXTRA_DATA_KEY}"'.encode() in body


def _decoded(answer: Answer) -> bytes:
    window = _WINDOWS.get(_encoding(answer))
    return answer.body if window is None else zlib.decompress(answer.body, window)


def _encoded(answer: Answer, content: Any) -> Answer:
    body = json.dumps(content).encode()
    window = _WINDOWS.get(_encoding(answer))
    if window is not None:
        packer = zlib.compressobj(wbits=window)
        body = packer.compress(body) + packer.flush()
    return with_body(answer, body)


def _encoding(answer: Answer) -> str:
    return next((value.lower() for name, value in answer.headers if name.lower() == "content-encoding"), "identity")
