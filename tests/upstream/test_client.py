"""Hazard: the engine's own calls are repeated, hang, or fail without saying what and where."""

import asyncio
import json
import math

import pytest

from proxy.errors import UpstreamError, UpstreamTimeout, UpstreamUnreachable
from proxy.upstream.client import UpstreamClient
from tests.rawhttp import Peer, header_lines, serving, until


def ok(body: bytes, *lines: bytes) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), *lines, b"", body])


async def test_json_with_nan_infinity_and_large_integers_survives() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(ok(b'[NaN, Infinity, 18446744073709551615, "\\ud83d"]'))

    async with serving(script) as server, UpstreamClient(server.url) as client:
        nan, infinity, large, text = await client.get_json("/x")
    assert math.isnan(nan)
    assert (infinity, large, text) == (math.inf, 2**64 - 1, "\ud83d")


async def test_a_call_sends_nothing_but_what_it_must() -> None:
    heads: list[bytes] = []

    async def script(peer: Peer) -> None:
        heads.append(await peer.head())
        heads.append(await peer.exactly(8))
        await peer.send(ok(b"{}"))

    async with serving(script) as server, UpstreamClient(server.url) as client:
        await client.post_json("/prompt", {"a": 1}, [("X-Mine", "1")])
        assert header_lines(heads[0]) == [
            f"Host: 127.0.0.1:{server.port}".encode(),
            b"Content-Type: application/json",
            b"X-Mine: 1",
            b"Content-Length: 8",
            b"Connection: close",
        ]
        assert heads[1] == b'{"a": 1}'


async def test_an_answer_is_given_whole_whatever_its_status() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.exactly(2)
        await peer.send(b"HTTP/1.1 400 No Way\r\nContent-Length: 3\r\nX: 1\r\nx: 2\r\nConnection: close\r\n\r\nbad")

    async with serving(script) as server, UpstreamClient(server.url) as client:
        answer = await client.post("/prompt", b"{}")
    assert (answer.status, answer.reason, answer.body, answer.ok) == (400, "No Way", b"bad", False)
    assert answer.headers == [("Content-Length", "3"), ("X", "1"), ("x", "2")]


async def test_a_path_before_comfyuis_own_is_kept() -> None:
    heads: list[bytes] = []

    async def script(peer: Peer) -> None:
        heads.append(await peer.head())
        await peer.send(ok(b"{}"))

    async with serving(script) as server, UpstreamClient(f"{server.url}/comfy/") as client:
        await client.get_json("/queue?a=%2F")
    assert heads[0].startswith(b"GET /comfy/queue?a=%2F HTTP/1.1\r\n")


async def test_a_get_survives_a_connection_that_went_stale() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(ok(b"1"))
        if len(server.peers) == 1:
            await peer.head()
            peer.abort()

    async with serving(script) as server, UpstreamClient(server.url) as client:
        assert await client.get_json("/x") == 1
        assert await client.get_json("/x") == 1
        assert len(server.peers) == 2


async def test_a_post_never_meets_a_stale_connection_and_is_never_repeated() -> None:
    posts = 0

    async def script(peer: Peer) -> None:
        nonlocal posts
        head = await peer.head()
        if head.startswith(b"POST"):
            await peer.exactly(2)
            posts += 1
        if posts == 2:
            peer.abort()
            return
        await peer.send(ok(b"1"))
        await peer.rest()

    async with serving(script) as server, UpstreamClient(server.url) as client:
        assert await client.get_json("/x") == 1
        assert (await client.post("/prompt", b"{}")).ok
        assert len(server.peers) == 2  # its own connection, not the one that is kept
        with pytest.raises(UpstreamUnreachable) as caught:
            await client.post("/prompt", b"{}")
        assert caught.value.sent
        assert posts == 2


async def test_nobody_at_the_address() -> None:
    async with serving(lambda _peer: asyncio.sleep(0)) as gone:
        url = gone.url
    async with UpstreamClient(url) as client:
        with pytest.raises(UpstreamUnreachable) as caught:
            await client.post("/prompt?secret=1", b"{}")
    assert not caught.value.sent
    assert caught.value.status == 502
    body = caught.value.body()
    assert body["error"]["extra_info"] == {"url": f"{url}/prompt", "why": caught.value.why}
    assert body["node_errors"] == {}
    assert "Start ComfyUI" in body["error"]["details"]
    assert "secret" not in json.dumps(body)


async def test_no_answer_in_time() -> None:
    async def script(peer: Peer) -> None:
        await peer.rest()

    async with serving(script) as server, UpstreamClient(server.url, control_timeout=0.05) as client:
        with pytest.raises(UpstreamTimeout) as caught:
            await client.get("/queue")
    assert caught.value.status == 504


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", b"nonsense\r\n\r\n"])
async def test_an_answer_that_breaks_off(answer: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.exactly(2)
        await peer.send(answer)

    async with serving(script) as server, UpstreamClient(server.url) as client:
        with pytest.raises(UpstreamUnreachable):
            await client.post("/x", b"{}")


@pytest.mark.parametrize("answer", [b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", ok(b"<html>")])
async def test_something_else_than_comfyui(answer: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(answer)

    async with serving(script) as server, UpstreamClient(server.url) as client:
        with pytest.raises(UpstreamError, match="answered"):
            await client.get_json("/system_stats")


@pytest.mark.parametrize("url", ["", "localhost:8188", "ftp://x", "http://", "/path"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="http"):
        UpstreamClient(url)


async def test_many_requests_at_once_are_not_queued() -> None:
    release = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await release.wait()
        await peer.send(ok(b"1"))

    async with serving(script) as server, UpstreamClient(server.url) as client:
        calls = [asyncio.ensure_future(client.get_json("/x")) for _ in range(150)]
        await until(lambda: len(server.peers) == 150)
        release.set()
        assert await asyncio.gather(*calls) == [1] * 150
