"""Hazard: one client's socket harms another's, or a client is told something else than ComfyUI would have told it."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from aiohttp import web
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from proxy.downstream.answers_first import AnswersFirst
from proxy.downstream.middleware import errors_as_json
from proxy.downstream.passthrough import Passthrough
from proxy.downstream.sockets import Sockets
from proxy.downstream.tunnel import Tunnel
from proxy.upstream.attachment import Delivery
from proxy.upstream.client import UpstreamClient
from proxy.upstream.feed import Feed
from tests.downstream.passing import running
from tests.rawhttp import DEADLINE, connected, until
from tests.upstream.comfy import Comfy, comfy
from tests.upstream.feeding import Rig, feeding


@dataclass
class Place:
    server: Comfy
    rig: Rig
    port: int

    @property
    def feed(self) -> Feed:
        return self.rig.feed

    def url(self, client_id: str, path: str = "/ws") -> str:
        return f"ws://127.0.0.1:{self.port}{path}?clientId={client_id}"


@asynccontextmanager
async def place(buffer_limit: int = 1 << 20) -> AsyncIterator[Place]:
    async with comfy() as server, feeding(server.url) as rig, UpstreamClient(server.url) as client:
        passthrough = Passthrough(client, Tunnel(server.url))
        sockets = Sockets(rig.feed, passthrough.forward, AnswersFirst(), buffer_limit=buffer_limit)
        app = web.Application(middlewares=[errors_as_json])
        app.router.add_get("/ws", sockets.handle)
        app.router.add_get("/api/ws", sockets.handle)
        passthrough.install(app)
        async with running(app) as port:
            await until(lambda: rig.feed.up)
            yield Place(server, rig, port)
            await rig.feed.close(grace=1.0)


async def text(client: ClientConnection) -> dict[str, object]:
    async with asyncio.timeout(DEADLINE):
        frame = await client.recv()
    assert isinstance(frame, str)
    message = json.loads(frame)
    assert isinstance(message, dict)
    return message


async def until_closed(client: ClientConnection) -> tuple[list[str | bytes], ConnectionClosed]:
    """All that still comes, and how it ended."""
    frames: list[str | bytes] = []
    try:
        async with asyncio.timeout(DEADLINE):
            while True:
                frames.append(await client.recv())
    except ConnectionClosed as closed:
        return frames, closed


@pytest.mark.parametrize("path", ["/ws", "/api/ws"])
async def test_a_client_talks_to_comfyui(path: str) -> None:
    async with place() as here, connect(here.url("a", path)) as client:
        assert (await text(client))["type"] == "status"
        await client.send('{"type": "feature_flags", "data": {}}')
        assert (await text(client))["type"] == "feature_flags"
        await here.server.send_bytes(b"\0\0\0\1image", "a")
        assert await client.recv() == b"\0\0\0\1image"
        assert here.server.handshakes[-1].path == path


async def test_compression_is_offered_as_by_comfyui() -> None:
    async with place() as here, connect(here.url("a")) as client:
        assert client.response is not None
        assert client.response.headers["Sec-WebSocket-Extensions"] == "permessage-deflate"
    async with place() as here, connect(here.url("a"), compression=None) as client:
        assert client.response is not None
        assert "Sec-WebSocket-Extensions" not in client.response.headers


async def test_a_refusal_reaches_the_client_as_it_is() -> None:
    async def refuse(_request: web.Request) -> web.Response:
        return web.Response(status=403, text="go away", headers={"X-Why": "origin"})

    async with place() as here:
        here.server.judge = refuse
        with pytest.raises(InvalidStatus) as caught:
            await connect(here.url("a"))
        response = caught.value.response
        assert (response.status_code, response.body, response.headers["X-Why"]) == (403, b"go away", "origin")
        assert response.headers.get_all("Server") == [here.server.server_header]


async def test_a_request_that_is_no_handshake_is_comfyuis_to_answer() -> None:
    async with place() as here, connected(here.port) as client:
        await client.send(b"GET /ws?clientId=a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        assert b" 400 " in (await client.rest()).split(b"\r\n")[0]
        assert here.server.handshakes[-1].raw_path == "/ws?clientId=a"


async def test_a_bad_handshake_is_refused_before_comfyui_is_asked() -> None:
    async with place() as here, connected(here.port) as client:
        before = len(here.server.handshakes)
        await client.send(
            b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: bad\r\n\r\n"
        )
        assert (await client.head()).startswith(b"HTTP/1.1 400 ")
        assert len(here.server.handshakes) == before


async def test_a_client_that_leaves_is_forgotten() -> None:
    async with place() as here:
        async with connect(here.url("a")) as client:
            await text(client)
            assert here.feed.connected() == {"a"}
        await until(lambda: not here.feed.connected())
        await until(lambda: "a" not in here.server.sockets)


async def test_a_client_that_does_not_read_is_dropped_alone() -> None:
    frame = bytes(1 << 16)
    async with place(buffer_limit=1 << 18) as here, connect(here.url("good")) as good:
        await text(good)
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)
            sock.setblocking(False)  # noqa: FBT003 - the standard library's signature
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", here.port))
            deaf = await connect(here.url("deaf"), sock=sock, compression=None, max_queue=1, ping_interval=None)
            await until(lambda: "deaf" in here.feed.connected())
            for _ in range(1000):
                here.feed.deliver([Delivery(frame, None)])
                assert await good.recv() == frame
                if "deaf" not in here.feed.connected():
                    break
            assert "deaf" not in here.feed.connected()
            assert (await until_closed(deaf))[1].rcvd is None
        await here.server.send("after", {}, "good")
        assert (await text(good))["type"] == "after"


async def test_closing_delivers_what_is_buffered_and_says_going_away() -> None:
    words = [f"last words {number}" + "." * (1 << 18) for number in range(100)]  # more than the kernel buffers
    async with place(1 << 26) as here, connect(here.url("a"), compression=None) as client:
        await text(client)
        here.feed.deliver([Delivery(word, "a") for word in words])
        closing = asyncio.ensure_future(here.feed.close())
        heard, closed = await until_closed(client)
        assert heard == words
        assert closed.rcvd is not None
        assert closed.rcvd.code == 1001
        await closing
        with pytest.raises(InvalidStatus) as refused:
            await connect(here.url("b"))
        assert refused.value.response.status_code == 503
        assert refused.value.response.headers["Retry-After"] == "5"


async def test_a_page_is_told_to_reload_after_a_restart() -> None:
    async with place() as here, connect(here.url("page")) as page, connect(here.url("plain")) as plain:
        await text(page)
        await page.send('{"type": "feature_flags", "data": {}}')
        assert (await text(page))["type"] == "feature_flags"
        await here.server.stop()
        await here.server.start()
        await here.rig.retries_until(lambda: here.feed.up)
        here.feed.upstream_restarted()
        _, closed = await until_closed(page)
        assert closed.rcvd is not None
        assert closed.rcvd.code == 1012
        await here.rig.retries_until(lambda: "plain" in here.server.sockets)
        await here.server.send("news", {}, "plain")
        while (await text(plain))["type"] != "news":
            pass


async def test_many_clients_that_come_and_go_at_once_leave_nothing_behind() -> None:
    async def visit(here: Place, number: int) -> None:
        async with connect(here.url(f"c{number % 7}")) as client:
            await text(client)
            if number % 3 == 0:
                await client.send('{"type": "feature_flags", "data": {}}')
            if number % 2:
                client.transport.abort()

    async with place() as here:
        await asyncio.gather(*(visit(here, number) for number in range(60)))
        await until(lambda: not here.feed.connected())
        await until(lambda: set(here.server.sockets) == {here.feed.own_id})
        assert max(here.server.most_at_once.values()) == 1
