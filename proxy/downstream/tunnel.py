"""WebSockets on any path but ComfyUI's own `/ws`: custom nodes may serve some, and they pass unread.

ComfyUI is asked first, so that its refusal reaches the client as it is, and so that the sub-protocol is the one it
chose. Then messages travel both ways, each side waiting for the other, until one closes; its code is passed on.
"""

import asyncio

from aiohttp import WSCloseCode, WSMsgType, web
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from proxy.downstream.answers import abort, pass_refusal, raw_target
from proxy.tasks import Tasks
from proxy.upstream.dial import Knock, RefusedError, answer_headers, dial
from proxy.wire.headers import request_headers

_QUEUED = 16
"""Messages read ahead from ComfyUI before the client has taken them."""


class Tunnel:
    """Passes WebSockets on, one upstream connection for each."""

    def __init__(self, base_url: str) -> None:
        """`base_url` is ComfyUI's, http or https."""
        self._base_url = base_url
        self._farewells = Tasks()

    async def close(self) -> None:
        """Give up the upstream sockets that are still saying good-bye. To be called when the server has stopped."""
        await self._farewells.close()

    def wanted(self, request: web.Request) -> bool:
        """Whether the request is a complete WebSocket handshake. Anything less is ComfyUI's to judge."""
        return web.WebSocketResponse(protocols=_offered(request)).can_prepare(request).ok

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Open the other half and copy until either side closes. Raises UpstreamUnreachable before the 101."""
        knock = Knock(raw_target(request), tuple(request_headers(request.raw_headers)))
        try:
            upstream = await dial(self._base_url, knock, subprotocols=_offered(request), max_queue=_QUEUED)
        except RefusedError as error:
            return await pass_refusal(request, error.refusal)
        socket = web.WebSocketResponse(protocols=[upstream.subprotocol] if upstream.subprotocol else (), max_msg_size=0)
        socket.headers.extend(answer_headers(upstream))
        try:
            await socket.prepare(request)
            await _copy_both_ways(socket, upstream)
            await _close_downstream(socket, upstream, request)
        finally:
            # not here: a client that has left takes this handler with it
            self._farewells.spawn(_close_upstream(upstream, socket.close_code), "tunnel's farewell")
        return socket


async def _copy_both_ways(socket: web.WebSocketResponse, upstream: ClientConnection) -> None:
    async with asyncio.TaskGroup() as group:
        pumps = [group.create_task(_up(socket, upstream)), group.create_task(_down(socket, upstream))]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()


async def _up(socket: web.WebSocketResponse, upstream: ClientConnection) -> None:
    try:
        async for message in socket:
            if message.type in {WSMsgType.TEXT, WSMsgType.BINARY}:
                await upstream.send(message.data)
    except ConnectionClosed:
        return


async def _down(socket: web.WebSocketResponse, upstream: ClientConnection) -> None:
    try:
        while True:
            message = await upstream.recv()
            if isinstance(message, str):
                await socket.send_str(message)
            else:
                await socket.send_bytes(message)
    except (ConnectionClosed, ConnectionError):
        return


async def _close_downstream(socket: web.WebSocketResponse, upstream: ClientConnection, request: web.Request) -> None:
    """Pass ComfyUI's close on, if it was ComfyUI that closed."""
    if upstream.close_code == WSCloseCode.ABNORMAL_CLOSURE:
        abort(request)
    elif upstream.close_code is not None:
        await socket.close(code=_sendable(upstream.close_code), message=(upstream.close_reason or "").encode())


async def _close_upstream(upstream: ClientConnection, code: int | None) -> None:
    """Pass the client's close on; one that left without a word leaves without a word."""
    if code is None or code == WSCloseCode.ABNORMAL_CLOSURE:
        upstream.transport.abort()
    else:
        await upstream.close(_sendable(code))


def _sendable(code: int | None) -> int:
    """1005 and 1006 say that there was no code; neither may be sent (RFC 6455 section 7.4.1)."""
    return code if code and code not in {1005, 1006, 1015} else WSCloseCode.OK


def _offered(request: web.Request) -> list[str]:
    lines = request.headers.getall("Sec-WebSocket-Protocol", [])
    return [name.strip() for line in lines for name in line.split(",") if name.strip()]
