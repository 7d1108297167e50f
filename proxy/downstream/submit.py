"""Requests whose bodies are read: prompts, to be rewritten, and orders to free memory, to be remembered."""

import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from proxy.downstream.answers import raw_target, respond
from proxy.downstream.answers_first import AnswersFirst
from proxy.engine import Engine, Submission
from proxy.engine.unpacking import unpack
from proxy.errors import BodyTooLarge, DownstreamError
from proxy.wire.headers import request_headers


class Submit:
    """Takes prompts in and hands them to the engine."""

    def __init__(self, engine: Engine, answers_first: AnswersFirst) -> None:
        self._engine = engine
        self._answers_first = answers_first

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Submit one prompt and give ComfyUI's answer in the client's terms.

        Raises:
            DownstreamError: 413 for a body above ComfyUI's own limit, 400 for what would harm ComfyUI, 503 at a stop.
            UpstreamError: when ComfyUI does not answer.
        """
        submission = Submission(
            target=raw_target(request),
            headers=tuple(request_headers(request.raw_headers)),
            body=await self._body(request),
            charset=request.charset or "utf-8",
            bypass=request.headers.get("X-Comfykeep", "").strip().lower() == "bypass",
        )
        with self._answers_first.submission() as submitting:
            with self._engine.departure.submission():
                answer = await self._engine.submit(submission, submitting.named)
            return await respond(request, answer)

    async def free(self, request: web.Request) -> web.StreamResponse:
        """`POST /free`: what ComfyUI holds is not known any more.

        Raises:
            UpstreamError: when ComfyUI does not answer.
        """
        body = await self._body(request)
        headers = [item for item in request_headers(request.raw_headers) if item[0].lower() != "content-length"]
        answer = await self._engine.upstream.client.post(raw_target(request), body, headers)
        if answer.ok:
            wanted = self._wanted(body, request.headers.get("Content-Encoding", ""))
            self._engine.freed(
                unload_models=bool(wanted.get("unload_models")), free_memory=bool(wanted.get("free_memory"))
            )
        return await respond(request, answer)

    def _wanted(self, body: bytes, coding: str) -> Mapping[str, Any]:
        """What a body of `/free` that ComfyUI has accepted asks for: everything, where that cannot be read here."""
        try:
            plain = unpack(body, coding, self._engine.body_limit)
            wanted = None if plain is None else json.loads(plain)
        except (ValueError, DownstreamError):
            wanted = None
        return wanted if isinstance(wanted, dict) else {"unload_models": True, "free_memory": True}

    async def _body(self, request: web.Request) -> bytes:
        limit = self._engine.body_limit
        body = bytearray()
        async for piece in request.content.iter_any():
            body += piece
            if len(body) > limit:
                raise BodyTooLarge(limit)
        return bytes(body)
