"""Every route that the proxy does not answer itself goes to ComfyUI and comes back, byte for byte.

The web page, its assets, images, uploads and whatever a custom node adds: none of it is understood here, so none of it
may be touched. What is in the way is mostly good will: aiohttp's server adds Date, Server and Content-Type, normalizes
paths, answers `Expect` before ComfyUI was asked, unpacks compressed bodies (to be switched off where the server is
built, with `auto_decompress=False`). Bodies are streamed in both directions, and each side is read only as fast as the
other takes it.

A body that breaks off must never look complete: the client's connection is then aborted, so that it sees an error, as
it would have seen one from ComfyUI itself.
"""

import logging
from collections.abc import AsyncIterator

import aiohttp
from aiohttp import web

from proxy.downstream.answers import PassedResponse, abort, keep_headers, raw_target
from proxy.downstream.tunnel import Tunnel
from proxy.upstream.client import UpstreamClient
from proxy.wire.headers import request_headers, response_headers

log = logging.getLogger(__name__)


class Passthrough:
    """The handler behind all other routes."""

    def __init__(self, client: UpstreamClient, tunnel: Tunnel) -> None:
        """`client` carries plain requests, `tunnel` WebSockets."""
        self._client = client
        self._tunnel = tunnel
        self._route: web.AbstractRoute | None = None

    def install(self, app: web.Application) -> None:
        """Take every route of `app` that nothing else answers. To be called after all other routes are added."""
        app.on_response_prepare.append(keep_headers)
        self._route = app.router.add_route("*", "/{anything:.*}", self.handle, expect_handler=leave_to_upstream)

    def takes(self, request: web.Request) -> bool:
        """Whether a routed request will be passed on."""
        return request.match_info.route is self._route

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Pass one request on. Raises UpstreamError if ComfyUI does not answer."""
        if self._tunnel.wanted(request):
            return await self._tunnel.handle(request)
        return await self.forward(request)

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """As `handle`, for a request that is not, or must not become, a WebSocket."""
        headers = request_headers(request.raw_headers)
        body = _body(request) if request.body_exists else None
        async with self._client.forward(request.method, raw_target(request), headers, body) as upstream:
            response = PassedResponse(upstream.status, upstream.reason, response_headers(upstream.raw_headers))
            await response.prepare(request)
            await _copy(upstream, response, request)
        return response


async def leave_to_upstream(_request: web.Request) -> None:
    """Expect handler: say nothing yet. `100 Continue` is sent when ComfyUI has said it, see `_body`."""


async def _body(request: web.Request) -> AsyncIterator[bytes]:
    """The request's body, piece by piece. Where the client waits for it, ComfyUI's `100 Continue` is passed on first.

    The HTTP client asks for the first piece only when ComfyUI has said `100 Continue`; a refusal before that reaches
    the client without its body having been sent.
    """
    if request.headers.get("Expect", "").lower() == "100-continue" and request.version == aiohttp.HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # aiohttp takes any output for the start of the response, see its own expect handler
        request.writer.output_size = 0
    async for piece in request.content.iter_any():
        yield piece


async def _copy(upstream: aiohttp.ClientResponse, response: PassedResponse, request: web.Request) -> None:
    pieces = upstream.content.iter_any()
    while True:
        try:
            piece = await anext(pieces, b"")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            log.warning("ComfyUI broke off in the middle of %s: %s", request.path, error)
            abort(request)
            return
        if not piece:
            await response.write_eof()
            return
        await response.write(piece)
