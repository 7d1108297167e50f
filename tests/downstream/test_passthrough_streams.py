"""Hazard: a body is held back, or a broken one is made to look whole."""

import asyncio
import contextlib
import json

import pytest

from tests.downstream.passing import passing
from tests.rawhttp import Peer, connected, serving, until

GET = b"GET /big HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"


async def test_the_first_bytes_of_a_download_arrive_before_the_last_are_made() -> None:
    client_has_first = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst")
        await client_has_first.wait()
        await peer.send(b"-last")

    async with serving(script) as upstream, passing(upstream.url) as port, connected(port) as client:
        await client.send(GET)
        await client.head()
        assert await client.exactly(5) == b"first"
        client_has_first.set()
        assert await client.rest() == b"-last"


async def test_the_first_bytes_of_an_upload_arrive_before_the_last_are_sent() -> None:
    comfyui_has_first = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        assert await peer.exactly(5) == b"first"
        comfyui_has_first.set()
        assert await peer.exactly(5) == b"-last"
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with serving(script) as upstream, passing(upstream.url) as port, connected(port) as client:
        await client.send(b"POST /u HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 10\r\n\r\nfirst")
        async with asyncio.timeout(10):
            await comfyui_has_first.wait()
        await client.send(b"-last")
        assert (await client.rest()).startswith(b"HTTP/1.1 200 OK")
        assert not upstream.errors


async def test_a_slow_client_slows_comfyui_down_and_not_the_proxys_memory() -> None:
    piece = b"x" * (1 << 16)
    total = 1 << 28
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        while sent < total:
            await peer.send(piece)
            sent += len(piece)

    async with serving(script) as upstream, passing(upstream.url) as port, connected(port) as client:
        await client.send(GET)
        await client.head()
        last = -1
        while sent != last:  # until nothing moves any more
            last = sent
            for _ in range(200):
                await asyncio.sleep(0)
        assert 0 < sent < total // 4


async def test_a_slow_comfyui_slows_the_upload_down_and_not_the_proxys_memory() -> None:
    total = 1 << 28
    sent = 0

    async def script(peer: Peer) -> None:
        await peer.head()
        await asyncio.Event().wait()

    async def upload(client: Peer) -> None:
        nonlocal sent
        await client.send(b"POST /u HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % total)
        while sent < total:
            await client.send(b"x" * (1 << 16))
            sent += 1 << 16

    async with serving(script) as upstream, passing(upstream.url) as port, connected(port) as client:
        uploading = asyncio.ensure_future(upload(client))
        await until(lambda: bool(upstream.peers))
        last = -1
        while sent != last:  # until nothing moves any more
            last = sent
            for _ in range(200):
                await asyncio.sleep(0)
        assert 0 < sent < total // 4
        uploading.cancel()
        client.abort()


async def test_a_client_that_offers_http2_is_served_over_http1() -> None:
    async def script(peer: Peer) -> None:
        head = await peer.head()
        assert b"pgrade" not in head
        assert b"HTTP2" not in head
        assert await peer.exactly(2) == b"hi"
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with serving(script) as upstream, passing(upstream.url) as port, connected(port) as client:
        await client.send(
            b"POST /x HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
            b"HTTP2-Settings: AAMAAABk\r\nContent-Length: 2\r\n\r\nhi"
        )
        assert (await client.head()).startswith(b"HTTP/1.1 200 OK\r\n")
        assert not upstream.errors


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n",
    ],
    ids=["length", "chunked"],
)
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_a_body_that_breaks_off_never_looks_complete(head: bytes, version: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(head)
        peer.abort()

    async with serving(script) as upstream, passing(upstream.url) as port, connected(port) as client:
        await client.send(GET.replace(b"1.1", version))
        with pytest.raises(ConnectionError):
            await client.rest()


async def test_a_client_that_leaves_ends_the_request_to_comfyui() -> None:
    ended = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        assert await peer.rest() == b""
        ended.set()

    async with serving(script) as upstream, passing(upstream.url) as port:
        async with connected(port) as client:
            await client.send(GET)
            await until(lambda: bool(upstream.peers))
        async with asyncio.timeout(10):
            await ended.wait()


async def test_a_client_that_leaves_in_the_middle_of_its_upload_ends_the_upload() -> None:
    failed = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.exactly(5)
        with contextlib.suppress(ConnectionError):
            assert await peer.rest() == b""
        failed.set()

    async with serving(script) as upstream, passing(upstream.url) as port:
        async with connected(port) as client:
            await client.send(b"POST /u HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nfirst")
            await until(lambda: bool(upstream.peers))
        async with asyncio.timeout(10):
            await failed.wait()
        assert not upstream.errors


async def test_continue_is_said_when_comfyui_says_it() -> None:
    asked = asyncio.Event()
    answer = asyncio.Event()

    async def script(peer: Peer) -> None:
        assert b"\r\nExpect: 100-continue\r\n" in await peer.head()
        asked.set()
        await answer.wait()
        await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await peer.exactly(5) == b"hello"
        await peer.send(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")

    async with serving(script) as upstream, passing(upstream.url) as port, connected(port) as client:
        await client.send(
            b"POST /u HTTP/1.1\r\nHost: h\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        )
        async with asyncio.timeout(10):
            await asked.wait()
        answer.set()
        assert await client.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b"hello")
        assert await client.rest() == b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        assert not upstream.errors


async def test_a_refusal_before_continue_reaches_the_client_without_its_body() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")

    async with serving(script) as upstream, passing(upstream.url) as port, connected(port) as client:
        await client.send(
            b"POST /u HTTP/1.1\r\nHost: h\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        )
        assert (await client.head()).startswith(b"HTTP/1.1 413 Too Large\r\n")
        assert await client.exactly(3) == b"big"


async def test_connections_to_the_client_are_kept() -> None:
    async def script(peer: Peer) -> None:
        while True:
            await peer.head()
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with serving(script) as upstream, passing(upstream.url) as port, connected(port) as client:
        for _ in range(3):
            await client.send(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n")
            assert await client.head() == b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
            assert await client.exactly(2) == b"ok"
        assert len(upstream.peers) == 1


async def test_no_comfyui_is_told_with_the_address_and_the_remedy() -> None:
    async with serving(lambda _peer: asyncio.sleep(0)) as gone:
        url = gone.url
    async with passing(url) as port, connected(port) as client:
        await client.send(b"GET /x?secret=1 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        head, _, body = (await client.rest()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 502 ")
    assert b"Content-Type: application/json; charset=utf-8" in head
    error = json.loads(body)["error"]
    assert error["type"] == "upstream_unreachable"
    assert url in error["message"]
    assert "secret" not in body.decode()
    assert "Start ComfyUI" in error["details"]


async def test_a_comfyui_that_dies_before_it_answers_is_a_502() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.abort()

    async with serving(script) as upstream, passing(upstream.url) as port, connected(port) as client:
        await client.send(b"POST /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi")
        assert (await client.rest()).startswith(b"HTTP/1.1 502 ")
        assert len(upstream.peers) == 1  # a POST goes out once
