"""Hazard: a custom node's own WebSocket works at ComfyUI and not through the proxy."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from tests.downstream.passing import passing
from tests.rawhttp import DEADLINE, connected, until

Handler = Callable[[ServerConnection], Awaitable[None]]


async def echo(socket: ServerConnection) -> None:
    async for message in socket:
        await socket.send(message)


@asynccontextmanager
async def tunnelled(handler: Handler, **options: object) -> AsyncIterator[str]:
    """Yields the WebSocket URL of a proxy before a server with this handler."""
    async with serve(handler, "127.0.0.1", 0, max_size=None, **options) as server:  # type: ignore[arg-type]
        port = next(iter(server.sockets)).getsockname()[1]
        async with passing(f"http://127.0.0.1:{port}") as front:
            yield f"ws://127.0.0.1:{front}"


async def closing(client: ClientConnection) -> ConnectionClosed:
    with pytest.raises(ConnectionClosed) as caught:
        async with asyncio.timeout(DEADLINE):
            await client.recv()
    return caught.value


async def test_text_and_binary_pass_both_ways_without_a_limit() -> None:
    async with tunnelled(echo) as url, connect(f"{url}/node/ws?x=%2F", max_size=None) as client:
        for message in ("text \u00e9", b"\0\xff", "", b"", b"x" * (5 << 20), "y" * (5 << 20)):
            await client.send(message)
            assert await client.recv() == message


async def test_the_handshake_is_the_clients_own() -> None:
    seen: list[Request] = []

    async def handler(socket: ServerConnection) -> None:
        assert socket.request is not None
        seen.append(socket.request)

    headers = {"Origin": "http://page.example", "Cookie": "a=1", "X-Mine": "\u00e9".encode().decode("latin-1")}
    async with tunnelled(handler) as url, connect(f"{url}/n%2Fs?a=1&a=2", additional_headers=headers) as client:
        await closing(client)
        (request,) = seen
        assert request.path == "/n%2Fs?a=1&a=2"
        assert request.headers["Host"] == url.removeprefix("ws://")
        assert {name: request.headers[name] for name in headers} == headers
        assert client.request is not None
        assert request.headers["Sec-WebSocket-Key"] != client.request.headers["Sec-WebSocket-Key"]


async def test_the_sub_protocol_is_the_one_comfyui_chose() -> None:
    offered = [Subprotocol("one"), Subprotocol("three"), Subprotocol("two")]
    async with (
        tunnelled(echo, subprotocols=["two"]) as url,
        connect(f"{url}/ws2", subprotocols=offered) as client,
    ):
        assert client.subprotocol == "two"
        await client.send("x")
        assert await client.recv() == "x"


async def test_headers_of_the_101_pass() -> None:
    async def add(_socket: ServerConnection, _request: Request, response: Response) -> None:
        response.headers["Set-Cookie"] = "a=1"
        response.headers["Set-Cookie"] = "b=2"

    async with tunnelled(echo, process_response=add) as url, connect(f"{url}/x") as client:
        assert client.response is not None
        assert client.response.headers.get_all("Set-Cookie") == ["a=1", "b=2"]


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "bye"), (4321, "caf\u00e9")])
async def test_comfyuis_close_reaches_the_client(code: int, reason: str) -> None:
    async def handler(socket: ServerConnection) -> None:
        await socket.close(code, reason)

    async with tunnelled(handler) as url, connect(f"{url}/x") as client:
        closed = (await closing(client)).rcvd
        assert closed is not None
        assert (closed.code, closed.reason) == (code, reason)


@pytest.mark.parametrize("code", [1000, 3000, 4999])
async def test_the_clients_close_reaches_comfyui(code: int) -> None:
    codes: list[int | None] = []

    async def handler(socket: ServerConnection) -> None:
        await socket.wait_closed()
        codes.append(socket.close_code)

    async with tunnelled(handler) as url:
        async with connect(f"{url}/x") as client:
            await client.close(code)
        await until(lambda: codes == [code])


async def test_a_comfyui_that_breaks_off_breaks_the_client_off() -> None:
    async def handler(socket: ServerConnection) -> None:
        socket.transport.abort()

    async with tunnelled(handler) as url, connect(f"{url}/x") as client:
        assert (await closing(client)).rcvd is None


async def test_a_client_that_breaks_off_is_noticed() -> None:
    ended = asyncio.Event()

    async def handler(socket: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            await socket.recv()
        ended.set()

    async with tunnelled(handler) as url:
        client = await connect(f"{url}/x")
        client.transport.abort()
        async with asyncio.timeout(DEADLINE):
            await ended.wait()


async def test_a_refusal_passes_with_its_body() -> None:
    def refuse(_socket: ServerConnection, _request: Request) -> Response:
        return Response(401, "Who Are You", Headers([("Content-Length", "4"), ("WWW-Authenticate", "Basic")]), b"none")

    async with tunnelled(echo, process_request=refuse) as url:
        with pytest.raises(InvalidStatus) as caught:
            await connect(f"{url}/x")
    response = caught.value.response
    assert (response.status_code, response.reason_phrase, response.body) == (401, "Who Are You", b"none")
    assert response.headers["WWW-Authenticate"] == "Basic"


async def test_an_incomplete_handshake_is_an_ordinary_request() -> None:
    async def page(request: web.Request) -> web.Response:
        return web.Response(text=f"plain {request.headers.get('Upgrade')}")

    app = web.Application()
    app.router.add_get("/x", page)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with passing(f"http://127.0.0.1:{runner.addresses[0][1]}") as port, connected(port) as client:
            await client.send(
                b"GET /x HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Version: 13\r\n\r\n"
            )
            assert (await client.rest()).endswith(b"plain None")
    finally:
        await runner.cleanup()


async def test_a_client_that_does_not_read_holds_comfyui_and_not_the_memory() -> None:
    sent = 0

    async def handler(socket: ServerConnection) -> None:
        nonlocal sent
        with contextlib.suppress(ConnectionClosed):
            while True:
                await socket.send(bytes(1 << 20))
                sent += 1

    async with tunnelled(handler) as url:
        client = await connect(f"{url}/x", max_queue=1, max_size=None, compression=None)
        last = -1
        while sent != last:
            last = sent
            for _ in range(300):
                await asyncio.sleep(0)
        assert 0 < sent < 100
        client.transport.abort()
