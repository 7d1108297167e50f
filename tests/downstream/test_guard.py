"""Hazard: a route answered here is open to foreign pages, or shut to clients that ComfyUI would have let in."""

import socket

import pytest
from aiohttp import web
from multidict import CIMultiDict

from proxy.core.flags import UpstreamFlags
from proxy.downstream import guard
from proxy.downstream.guard import Judgement, host_name, is_loopback, judge
from proxy.downstream.middleware import errors_as_json, install_access_rules
from proxy.downstream.passthrough import Passthrough
from proxy.downstream.tunnel import Tunnel
from proxy.errors import ShuttingDown
from proxy.upstream.client import UpstreamClient
from tests.downstream.passing import running
from tests.rawhttp import Peer, connected, header_lines, serving

ALLOWED, REFUSED, ON_LOOPBACK = Judgement.ALLOWED, Judgement.REFUSED, Judgement.REFUSED_ON_LOOPBACK


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, ALLOWED),
        ({"Host": "127.0.0.1:8188"}, ALLOWED),
        ({"Origin": "http://evil.example"}, ALLOWED),  # as ComfyUI: no Host, no judgement
        ({"Host": "127.0.0.1:8188", "Origin": "http://127.0.0.1:8188"}, ALLOWED),
        ({"Host": "LocalHost:8188", "Origin": "HTTP://localhost:8188"}, ALLOWED),
        ({"Host": "127.0.0.1:8188", "Origin": "http://127.0.0.1:8189"}, ON_LOOPBACK),
        ({"Host": "127.0.0.1:8188", "Origin": "http://localhost:8188"}, ON_LOOPBACK),
        ({"Host": "127.0.0.1:8188", "Origin": "http://evil.example"}, ON_LOOPBACK),
        ({"Host": "127.0.0.1:8188", "Origin": "http://127.0.0.1"}, ALLOWED),  # ports count only where both have one
        ({"Host": "127.0.0.1", "Origin": "http://127.0.0.1:8188"}, ALLOWED),
        ({"Host": "127.0.0.1", "Origin": "http://127.0.0.1"}, ALLOWED),
        ({"Host": "[::1]:8188", "Origin": "http://[::1]:8188"}, ALLOWED),
        ({"Host": "[::1]", "Origin": "http://[::1]"}, ALLOWED),
        ({"Host": "127.0.0.1:8188", "Origin": "null"}, ALLOWED),
        ({"Host": "127.0.0.1", "Origin": "null"}, ALLOWED),
        ({"Host": "127.0.0.1", "Origin": ""}, ALLOWED),
        ({"Host": "comfy.example", "Origin": "http://evil.example"}, ON_LOOPBACK),
        ({"Host": "127.0.0.1:x", "Origin": "http://evil.example"}, REFUSED),
        ({"Host": "127.0.0.1", "Origin": "http://evil.example:99999"}, REFUSED),
        ({"Host": "[", "Origin": "http://evil.example"}, REFUSED),
        ({"Sec-Fetch-Site": "cross-site"}, REFUSED),
        ({"Sec-Fetch-Site": "same-site"}, ALLOWED),
        ({"Sec-Fetch-Site": "same-origin", "Host": "127.0.0.1", "Origin": "http://x"}, ON_LOOPBACK),
    ],
)
def test_judgement(headers: dict[str, str], expected: Judgement) -> None:
    assert judge(CIMultiDict(headers)) is expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("10.0.0.1", False),
        ("::", False),
        (None, False),
        ("", False),
    ],
)
async def test_addresses_on_loopback(host: str | None, expected: bool) -> None:
    assert await is_loopback(host) is expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({}, False),
        ({"v4": ["127.0.0.1"]}, True),
        ({"v6": ["::1"]}, True),
        ({"v4": ["10.0.0.1"], "v6": ["::1"]}, False),
        (
            {"v4": ["127.0.0.1"], "v6": ["2001:db8::1"]},
            True,
        ),  # ComfyUI stops at the first that is not, and keeps what it had
        ({"v4": ["127.0.0.1", "10.0.0.1"]}, True),
    ],
)
async def test_names_on_loopback(found: dict[str, list[str]], expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async def look_up(host: str, family: object) -> list[str]:
        assert host == "box"
        return found.get("v4" if family is socket.AF_INET else "v6", [])

    monkeypatch.setattr(guard, "_addresses", look_up)
    assert await is_loopback("box") is expected


async def test_names_are_looked_up() -> None:
    assert await is_loopback("localhost")
    assert not await is_loopback("no.such.host.invalid")
    assert host_name(CIMultiDict({"Host": "LOCALHOST:8188"})) == "localhost"


async def answer(request: bytes, cors_origin: str | None) -> bytes:
    """What a proxy with a route of its own, `/ours`, answers; everything else is ComfyUI's."""

    async def ours(_request: web.Request) -> web.Response:
        return web.Response(text="ours")

    async def failing(_request: web.Request) -> web.Response:
        raise ShuttingDown

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\ntheirs")

    async with serving(script) as upstream, UpstreamClient(upstream.url) as client:
        passthrough = Passthrough(client, Tunnel(upstream.url))
        app = web.Application(middlewares=[errors_as_json])
        flags = UpstreamFlags(version=(0, 33), cors_origin=cors_origin)
        install_access_rules(app, lambda: flags, passthrough.takes)
        app.router.add_get("/ours", ours)
        app.router.add_get("/failing", failing)
        passthrough.install(app)
        async with running(app) as port, connected(port) as peer:
            await peer.send(request)
            return await peer.rest()


def foreign(target: bytes, method: bytes = b"GET") -> bytes:
    return (
        method
        + b" "
        + target
        + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://evil.example\r\nConnection: close\r\n\r\n"
    )


async def test_our_routes_are_shut_to_foreign_pages() -> None:
    refused = await answer(foreign(b"/ours"), None)
    assert refused.startswith(b"HTTP/1.1 403 ")
    assert refused.endswith(b"\r\n\r\n")


async def test_comfyui_judges_its_own_routes() -> None:
    assert (await answer(foreign(b"/theirs"), None)).endswith(b"theirs")
    assert (await answer(foreign(b"/ours", b"OPTIONS"), None)).endswith(b"theirs")


async def test_with_cors_our_answers_carry_comfyuis_headers_and_its_own_stay() -> None:
    for target, status in ((b"/ours", b" 200 "), (b"/failing", b" 503 ")):
        got = await answer(foreign(target), "https://page.example")
        assert status in got.split(b"\r\n")[0]
        assert {
            b"Access-Control-Allow-Origin: https://page.example",
            b"Access-Control-Allow-Methods: POST, GET, DELETE, PUT, OPTIONS, PATCH",
            b"Access-Control-Allow-Headers: Content-Type, Authorization",
            b"Access-Control-Allow-Credentials: true",
        } <= set(header_lines(got.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"))
    assert b"Access-Control" not in await answer(foreign(b"/theirs"), "https://page.example")
