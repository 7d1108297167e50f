"""`/ws` and `/api/ws`: a client's WebSocket, joined to the feed.

A client must never hold anybody else up. Frames for it are put into a buffer that a task of its own empties; a client
that lets the buffer fill is dropped, alone. (ComfyUI sends to its clients one after the other and waits for each:
there, one that does not read stops the events of all.)

The socket is negotiated as ComfyUI would (compression if the client offers it, messages of at most 4 MiB from the
client, no pings), and is opened when ComfyUI has accepted the client or is away, never when it has refused.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable

from aiohttp import WSMsgType, web

from proxy.downstream.answers import abort, pass_refusal, raw_target
from proxy.downstream.answers_first import AnswersFirst
from proxy.upstream.attachment import Attachment
from proxy.upstream.dial import Knock, RefusedError
from proxy.upstream.feed import Feed
from proxy.wire.frames import Frame
from proxy.wire.headers import request_headers

log = logging.getLogger(__name__)

BUFFER_LIMIT = 64 << 20
"""Bytes of frames that wait for one client before it is dropped: minutes of previews."""


class ClientSink:
    """The frames on their way to one client. See `Sink` for the contract of `put`, `close` and `abort`."""

    def __init__(self, client_id: str, answers_first: AnswersFirst, limit: int = BUFFER_LIMIT) -> None:
        """`limit` is in bytes."""
        self._client_id = client_id
        self._answers_first = answers_first
        self._limit = limit
        self._frames: deque[Frame] = deque()
        self._size = 0
        self._changed = asyncio.Event()
        self._farewell: tuple[int, str] | None = None
        self.dropped = asyncio.Event()
        """Set when the client is given up."""

    def put(self, frame: Frame) -> None:
        """Take a frame, or give the client up if it is too far behind."""
        if self._farewell is not None or self.dropped.is_set():
            return
        if self._frames and self._size + len(frame) > self._limit:
            log.warning("a client does not read its events; dropped with %d bytes unread", self._size)
            self.abort()
            return
        self._frames.append(frame)
        self._size += len(frame)
        self._changed.set()

    def close(self, code: int, reason: str) -> None:
        """Close when all is written. The first code given counts."""
        if self._farewell is None:
            self._farewell = (code, reason)
            self._changed.set()

    def abort(self) -> None:
        """Forget what is buffered and end the connection."""
        self._frames.clear()
        self._size = 0
        self.dropped.set()

    async def write_to(self, socket: web.WebSocketResponse) -> None:
        """Write frames as the client takes them. Returns after the farewell; raises ConnectionError if it is gone."""
        while True:
            while self._frames:
                frame = self._frames.popleft()
                self._size -= len(frame)
                await self._answers_first.before(frame, self._client_id)
                if isinstance(frame, str):
                    await socket.send_str(frame)
                else:
                    await socket.send_bytes(frame)
            if self._farewell is not None:
                code, reason = self._farewell
                await socket.close(code=code, message=reason.encode())
                return
            self._changed.clear()
            await self._changed.wait()


class Sockets:
    """The handler of `/ws` and `/api/ws`."""

    def __init__(
        self,
        feed: Feed,
        forward: Callable[[web.Request], Awaitable[web.StreamResponse]],
        answers_first: AnswersFirst,
        *,
        buffer_limit: int = BUFFER_LIMIT,
    ) -> None:
        """`forward` answers requests that want no WebSocket; `buffer_limit` is in bytes per client."""
        self._feed = feed
        self._forward = forward
        self._answers_first = answers_first
        self._buffer_limit = buffer_limit

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one client until it leaves, is told to, or is dropped.

        Raises ShuttingDown or web.HTTPBadRequest before the 101.
        """
        socket = web.WebSocketResponse()
        if "Upgrade" not in request.headers:
            return await self._forward(request)
        if not socket.can_prepare(request).ok:
            await socket.prepare(request)  # raises the 400 that ComfyUI's would
        knock = Knock(raw_target(request), tuple(request_headers(request.raw_headers)))
        sink = ClientSink(knock.client_id, self._answers_first, self._buffer_limit)
        try:
            attachment, headers = await self._feed.attach(knock, sink)
        except RefusedError as error:
            return await pass_refusal(request, error.refusal)
        try:
            socket.headers.extend(headers)
            await socket.prepare(request)
            await self._converse(socket, attachment, sink)
        finally:
            self._feed.detach(attachment)
        if sink.dropped.is_set():
            abort(request)
        return socket

    async def _converse(self, socket: web.WebSocketResponse, attachment: Attachment, sink: ClientSink) -> None:
        """Write and read until either ends, or the client is given up."""
        async with asyncio.TaskGroup() as group:
            ends = [
                group.create_task(self._write(socket, sink)),
                group.create_task(self._read(socket, attachment)),
                group.create_task(_happened(sink.dropped)),
            ]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for task in ends:
                task.cancel()

    async def _write(self, socket: web.WebSocketResponse, sink: ClientSink) -> None:
        try:
            await sink.write_to(socket)
        except ConnectionError:
            log.debug("a client went away while it was written to")

    async def _read(self, socket: web.WebSocketResponse, attachment: Attachment) -> None:
        async for message in socket:
            if message.type in {WSMsgType.TEXT, WSMsgType.BINARY}:
                await self._feed.send(attachment, message.data)


async def _happened(event: asyncio.Event) -> None:
    await event.wait()
