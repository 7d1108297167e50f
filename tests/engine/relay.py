"""A relay between the proxy and ComfyUI: it notes every request as bytes, and misbehaves where a test wants it to."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import Enum, auto
from urllib.parse import urlsplit


class Fate(Enum):
    """What becomes of a request, where it is not answered by a test."""

    PASSED = auto()
    BROKEN = auto()
    """The connection breaks before ComfyUI has seen anything of it."""
    UNANSWERED = auto()
    """ComfyUI gets it and answers, and the connection breaks instead of the answer."""


@dataclass(frozen=True)
class Asked:
    """One request as it came: its head with the empty line, and its body."""

    head: bytes
    body: bytes

    @property
    def method(self) -> str:
        return self.head.split(b" ", 1)[0].decode()

    @property
    def target(self) -> str:
        return self.head.split(b" ", 2)[1].decode()

    @property
    def raw(self) -> bytes:
        return self.head + self.body

    def is_(self, method: str, path: str) -> bool:
        return self.method == method and self.target.partition("?")[0] == path


def answer(status: int, body: bytes, content_type: str = "application/json") -> bytes:
    """A whole answer, to be given instead of ComfyUI's."""
    head = f"HTTP/1.1 {status} Scripted\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


Script = Callable[[Asked], Awaitable[Fate | bytes]]


async def pass_all(_: Asked) -> Fate:
    return Fate.PASSED


class Relay:
    """Listens at `url`. `script` decides what becomes of each request: a fate, or bytes to answer with."""

    def __init__(self, upstream: str) -> None:
        self.requests: list[Asked] = []
        self.script: Script = pass_all
        self.port = 0
        self._host, self._port = urlsplit(upstream).hostname, urlsplit(upstream).port
        self._tasks: set[asyncio.Task[None]] = set()
        self._sockets: list[asyncio.StreamWriter] = []
        self._cut = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def asked(self, method: str, path: str) -> list[Asked]:
        """The requests for a path so far."""
        return [request for request in self.requests if request.is_(method, path)]

    def break_sockets(self) -> None:
        """All WebSockets break; ComfyUI lives on."""
        for writer in self._sockets:
            writer.transport.abort()
        self._sockets.clear()

    def cut(self) -> None:
        """Nothing passes any more, in either direction."""
        self._cut = True
        for task in self._tasks:
            task.cancel()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Relay"]:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, limit=1 << 20)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if self._cut:
                raise ConnectionAbortedError
            await self._relay(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()  # either side has gone, or the test is over
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        swallow = asyncio.Event()
        up_writer: asyncio.StreamWriter | None = None
        pump: asyncio.Task[None] | None = None
        try:
            while True:
                request = await _read_request(reader)
                self.requests.append(request)
                fate = await self.script(request)
                if fate is Fate.BROKEN:
                    writer.transport.abort()
                    return
                if isinstance(fate, bytes):
                    writer.write(fate)
                    continue
                if fate is Fate.UNANSWERED:
                    swallow.set()
                if up_writer is None:  # only now: a request that was held back goes to whoever is there then
                    up_reader, up_writer = await asyncio.open_connection(self._host, self._port, limit=1 << 20)
                    pump = asyncio.create_task(_pump(up_reader, writer, swallow))
                up_writer.write(request.raw)
                if b"upgrade: websocket" in request.head.lower():
                    self._sockets.append(writer)
                    await _pump(reader, up_writer, asyncio.Event())
                    return
        finally:
            if pump is not None:
                pump.cancel()
                with suppress(asyncio.CancelledError):
                    await pump
            if up_writer is not None:
                up_writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, swallow: asyncio.Event) -> None:
    with suppress(OSError):
        while data := await reader.read(1 << 16):
            if swallow.is_set():
                break
            writer.write(data)
            await writer.drain()
    writer.transport.abort()


async def _read_request(reader: asyncio.StreamReader) -> Asked:
    head = await reader.readuntil(b"\r\n\r\n")
    lengths = [line.split(b":", 1)[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    assert b"transfer-encoding" not in head.lower(), "the relay reads no chunked bodies"
    return Asked(head, await reader.readexactly(int(lengths[0])) if lengths else b"")
