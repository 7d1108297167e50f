"""One queue for clients: what runs, what waits at ComfyUI and what waits here, in ComfyUI's own shapes.

While nothing is held, ComfyUI's answers are given (`restored`). Otherwise the list is put together from both, in the
order in which prompts will run. It may be long: it is written piece by piece, so that events go on between the pieces.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any

from aiohttp import web

from proxy.core import events as ev
from proxy.core.jobs import RUNS
from proxy.downstream.answers import respond
from proxy.downstream.bodies import plain_body, post_on
from proxy.downstream.hidden import clients_queue, shows_warmups
from proxy.downstream.restored import Restored, restore_queue
from proxy.engine import Engine
from proxy.engine.held import Held
from proxy.engine.holding import Holding
from proxy.errors import DownstreamError, UpstreamError
from proxy.upstream.client import Answer

_OK = 200
_PIECE = 1 << 16
"""Bytes that are written at once."""


class QueueView:
    """Handlers for `/queue`, `GET /prompt` and `/interrupt`."""

    def __init__(self, engine: Engine, restored: Restored) -> None:
        self._engine = engine
        self._restored = restored

    async def show(self, request: web.Request) -> web.StreamResponse:
        """`GET /queue`."""
        holding = self._holding
        if holding is None:
            return await self._restored.queue(request)
        running, pending = await self._at_comfyui(holding, warmups=shows_warmups(request))
        # In the same moment: a prompt that is sent meanwhile must be somewhere.
        waiting = [(held, job.number) for held in holding.lookahead.waiting() if (job := holding.job(held.prompt_id))]
        response = web.StreamResponse(headers={"Content-Type": "application/json; charset=utf-8"})
        await response.prepare(request)
        async for piece in _pieces(running, pending, waiting):
            await response.write(piece)
            await asyncio.sleep(0)  # a client that reads fast would let nothing else have its turn
        await response.write_eof()
        return response

    async def count(self, request: web.Request) -> web.StreamResponse:
        """`GET /prompt`."""
        if self._holding is None:
            return await self._restored.count(request)
        return web.json_response({"exec_info": {"queue_remaining": self._holding.remaining}})

    async def change(self, request: web.Request) -> web.StreamResponse:
        """`POST /queue` with `{"clear": bool, "delete": [prompt_id]}`.

        Raises:
            DownstreamError: 400 where ComfyUI fails; what it would have cleared before that is cleared.
        """
        if self._holding is None:
            answer = await post_on(request, self._engine.upstream.client)
            cleared, deleted = await self._chosen(request)
            if answer.status == _OK and (cleared or deleted):
                self._engine.deleted_from_queue(None if cleared else deleted)
            return await respond(request, answer)
        body = _body(await plain_body(request, self._engine.body_limit), request.charset or "utf-8")
        if body.get("clear"):
            await self._clear(self._holding)
        chosen = _named(body.get("delete", []))
        if chosen is None:
            raise _not_for_queue()
        await self._delete(self._holding, chosen)
        return web.Response(status=200)

    async def _clear(self, holding: Holding) -> None:
        """Take out all that waits, foreign prompts too: each by its id, or what comes meanwhile would go with them."""
        await holding.clear()
        with suppress(UpstreamError):  # what it has is out of reach, and may be lost
            pending = (await self._engine.upstream.client.get_json("/queue"))["queue_pending"]
            await self._delete(holding, [item[1] for item in pending if holding.get(item[1]) is None])

    async def _delete(self, holding: Holding, chosen: Sequence[Any]) -> None:
        others = [prompt_id for prompt_id in chosen if holding.get(prompt_id) is None]
        for prompt_id in chosen:
            await holding.delete(prompt_id)
            await asyncio.sleep(0)  # there may be ten thousand
        if others:
            await self._tell_comfyui("/queue", {"delete": others})

    async def interrupt(self, request: web.Request) -> web.StreamResponse:
        """`POST /interrupt` with or without `{"prompt_id": …}`.

        Raises:
            DownstreamError: 400 for JSON that is no object, on which ComfyUI fails, and for what cannot be unpacked.
        """
        if self._holding is None:
            return await respond(request, await post_on(request, self._engine.upstream.client))
        raw = (await plain_body(request, self._engine.body_limit)).decode(request.charset or "utf-8")
        try:
            body = json.loads(raw) if raw.strip() else {}
        except ValueError:
            body = {}  # ComfyUI takes what is no JSON for none (server.py, `post_interrupt`)
        if not isinstance(body, dict):
            raise DownstreamError(
                "The body is not what /interrupt takes",
                type="invalid_body",
                details='Send {"prompt_id": id}, or nothing to interrupt whatever runs.',
            )
        prompt_id = body.get("prompt_id")
        if prompt_id and self._holding.get(prompt_id) is None:
            await self._tell_comfyui("/interrupt", {"prompt_id": prompt_id})
        else:
            self._holding.tell(ev.InterruptRequested(prompt_id or None))
        return web.Response(status=200)

    async def change_history(self, request: web.Request) -> web.StreamResponse:
        """`POST /history` with `{"clear": bool, "delete": [prompt_id]}`."""
        cleared, deleted = await self._chosen(request)
        answer: Answer | None = None
        try:
            answer = await post_on(request, self._engine.upstream.client)
        except UpstreamError:
            if self._holding is None:
                raise  # else ours can be deleted without it
        if (answer is None or answer.status == _OK) and (cleared or deleted):
            await self._engine.deleted_from_history(None if cleared else deleted)
        return web.Response(status=_OK) if answer is None else await respond(request, answer)

    @property
    def _holding(self) -> Holding | None:
        return None if self._engine.held is None else self._engine.held.holding

    async def _chosen(self, request: web.Request) -> tuple[bool, list[Any]]:
        """What a body of `/queue` or `/history` that ComfyUI accepts asks for: to clear all, or to delete some."""
        try:
            body = json.loads(await plain_body(request, self._engine.body_limit))
        except (ValueError, DownstreamError):
            return False, []
        if not isinstance(body, dict):
            return False, []
        return bool(body.get("clear")), _named(body.get("delete")) or []

    async def _at_comfyui(self, holding: Holding, *, warmups: bool) -> tuple[list[Any], list[Any]]:
        """ComfyUI's own items, restored, without the prompts that are only there to be validated or taken back."""
        try:
            queue = restore_queue(await self._engine.upstream.client.get_json("/queue"))
        except UpstreamError:
            queue = {"queue_running": [], "queue_pending": []}
        queue = queue if warmups else clients_queue(queue)
        ranks = {held.prompt_id: rank for rank, held in enumerate(holding.at_comfyui())}
        pending = [item for item in queue["queue_pending"] if item[1] in ranks or holding.get(item[1]) is None]
        # Its answer may be older than what is known here, and a prompt must be somewhere.
        told = {item[1] for item in (*queue["queue_running"], *pending)}
        running, staged = _untold(holding, told)
        pending = sorted((*pending, *staged), key=lambda item: ranks.get(item[1], len(ranks)))
        return [*queue["queue_running"], *running], pending

    async def _tell_comfyui(self, path: str, body: Any) -> None:
        await self._engine.upstream.client.post_json(path, body)


def _untold(holding: Holding, told: set[str]) -> tuple[list[Any], list[Any]]:
    """Items for those that run and for those that are staged, and are in neither list of ComfyUI's."""
    running: list[Any] = []
    staged: list[Any] = []
    for held in holding.at_comfyui():
        job = holding.job(held.prompt_id)
        if job is not None and job.answered and held.prompt_id not in told:
            (running if job.state in RUNS else staged).append(json.loads(held.queue_item(job.number)))
    return running, staged


async def _pieces(
    running: Sequence[Any], pending: Sequence[Any], waiting: Sequence[tuple[Held, float]]
) -> AsyncIterator[bytes]:
    # A prompt that is looked for after an outage counts as waiting, though ComfyUI may say where it is.
    told = {item[1] for item in (*running, *pending)}
    yield b'{"queue_running": ' + json.dumps(running).encode() + b', "queue_pending": ['
    piece = bytearray(b", ".join(json.dumps(item).encode() for item in pending))
    separator = b", " if piece else b""
    for held, number in waiting:
        if held.prompt_id in told:
            continue
        piece += separator + held.queue_item(number)
        separator = b", "
        if len(piece) > _PIECE:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece) + b"]}"


def _body(raw: bytes, charset: str) -> dict[str, Any]:
    """The body of `POST /queue`, read as ComfyUI reads it: a list or a text says nothing (server.py, `post_queue`).

    Raises:
        DownstreamError: 400 where ComfyUI fails.
    """
    try:
        body = json.loads(raw.decode(charset))
    except ValueError as error:
        raise DownstreamError("The body is not valid JSON", type="invalid_json", details=str(error)) from error
    if isinstance(body, list | str) and "clear" not in body and "delete" not in body:
        return {}
    if not isinstance(body, dict):
        raise _not_for_queue()
    return body


def _named(delete: Any) -> list[Any] | None:
    """What is under `delete`, as ComfyUI goes through it: the letters of a text too; None where it fails."""
    return list(delete) if isinstance(delete, list | str | dict) else None


def _not_for_queue() -> DownstreamError:
    return DownstreamError(
        "The body is not what ComfyUI takes", type="invalid_body", details='Send {"clear": true} or {"delete": [id]}.'
    )
