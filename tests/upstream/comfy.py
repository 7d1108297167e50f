"""A server with ComfyUI's WebSocket habits, its bad ones included, that notes what is done to it."""

import asyncio
import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import WSMsgType, web
from aiohttp.http import SERVER_SOFTWARE


class Comfy:
    """One ComfyUI. Stopped and started again on its port, it is a new process: nothing is remembered."""

    def __init__(self) -> None:
        self.port = 0
        self.sockets: dict[str, web.WebSocketResponse] = {}
        self.log: list[str] = []
        """`open <id>` and `close <id>`, as its handler comes and goes."""
        self.handshakes: list[web.Request] = []
        self.texts: list[tuple[str, str]] = []
        self.most_at_once: Counter[str] = Counter()
        self.judge: Callable[[web.Request], Awaitable[web.StreamResponse | None]] = _accept
        self.answer_headers: list[tuple[str, str]] = []
        self.talks = asyncio.Event()
        """While it is not set, new sockets get no `status`."""
        self.talks.set()
        self._open: Counter[str] = Counter()
        self._runner: web.AppRunner | None = None

    @property
    def server_header(self) -> str:
        return SERVER_SOFTWARE

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/ws", self._websocket)
        app.router.add_get("/api/ws", self._websocket)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Die: connections break without a word."""
        if self._runner is None:
            return
        for request in self.handshakes:
            if request.transport is not None:
                request.transport.abort()
        self.handshakes.clear()
        runner, self._runner = self._runner, None
        await runner.cleanup()
        self.sockets.clear()

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        self.handshakes.append(request)
        refused = await self.judge(request)
        if refused is not None:
            return refused
        socket = web.WebSocketResponse()
        socket.headers.extend(self.answer_headers)
        await socket.prepare(request)
        sid = request.rel_url.query.get("clientId", "")
        if sid:
            self.sockets.pop(sid, None)
        else:
            sid = uuid.uuid4().hex
        self.sockets[sid] = socket
        self.log.append(f"open {sid}")
        self._open[sid] += 1
        self.most_at_once[sid] = max(self.most_at_once[sid], self._open[sid])
        try:
            await self.talks.wait()
            await self.send("status", {"status": {"exec_info": {"queue_remaining": 0}}, "sid": sid}, sid)
            first = True
            async for message in socket:
                if message.type is not WSMsgType.TEXT:
                    continue
                self.texts.append((sid, message.data))
                if first and '"feature_flags"' in message.data:
                    await self.send("feature_flags", {"answered": True}, sid)
                first = False
        finally:
            self._open[sid] -= 1
            self.log.append(f"close {sid}")
            self.sockets.pop(sid, None)
        return socket

    async def send(self, kind: str, data: Any, sid: str | None = None) -> None:
        """As ComfyUI's own: to one socket, or to all."""
        receivers = list(self.sockets.values()) if sid is None else [self.sockets[sid]] if sid in self.sockets else []
        for socket in receivers:
            await socket.send_str(json.dumps({"type": kind, "data": data}))

    async def send_bytes(self, data: bytes, sid: str) -> None:
        if sid in self.sockets:
            await self.sockets[sid].send_bytes(data)


async def _accept(_request: web.Request) -> web.Response | None:
    return None


@asynccontextmanager
async def comfy() -> AsyncIterator[Comfy]:
    served = Comfy()
    await served.start()
    try:
        yield served
    finally:
        await served.stop()


class Gate:
    """A judge that lets handshakes wait until it is opened."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()

    async def __call__(self, _request: web.Request) -> None:
        self.reached.set()
        await self.opened.wait()
