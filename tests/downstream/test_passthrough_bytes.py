"""Hazard: the proxy tidies something up on the way. Each test compares bytes on the wire with bytes on the wire."""

import gzip

import pytest

from tests.downstream.passing import passing
from tests.rawhttp import Peer, connected, header_lines, serving

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def exchange(request: bytes, response: bytes = OK, body: int = 0) -> tuple[bytes, bytes]:
    """What ComfyUI gets for `request` (head and `body` bytes), and all that the client gets for `response`."""
    got = b""

    async def script(peer: Peer) -> None:
        nonlocal got
        got = await peer.head()
        got += await peer.exactly(body)
        await peer.send(response)

    async with serving(script) as upstream, passing(upstream.url) as port, connected(port) as client:
        await client.send(request)
        answer = await client.rest()
        assert not upstream.errors
    return got, answer


def request(target: str = "/x", method: str = "GET", *lines: str) -> bytes:
    head = [f"{method} {target} HTTP/1.1", "Host: comfy.example:1", "Connection: close", *lines]
    return "\r\n".join([*head, "", ""]).encode()


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/userdata/a%2Fb",
        "/view?filename=a%20b.png&type=output&subfolder=",
        "/a%20b",
        "//double//slash/",
        "/q?a=b&a=c&a",
        "/semi;colon;x=1?y;z",
        "/plus?q=1+2%2B3",
        "/./dots/../up",
        "/%zz?%zz",
        "/%E4%BD%A0",
        "/brackets[0]?x={1}|2",
        "/api/userdata/workflows%2F%E2%9C%93.json?overwrite=true",
        "/tilde~'()*!,:@$",
    ],
)
async def test_the_target_is_passed_as_it_came(target: str) -> None:
    got, _ = await exchange(request(target))
    assert got.split(b"\r\n")[0] == f"GET {target} HTTP/1.1".encode()


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"])
async def test_the_method_is_passed_as_it_came(method: str) -> None:
    got, answer = await exchange(request("/x", method))
    assert got.startswith(f"{method} /x ".encode())
    assert answer.endswith(b"ok")


async def test_request_headers_keep_case_order_duplicates_and_host() -> None:
    lines = ["x-OdD-cAse: 1", 'Cookie: a=b; c="d e"', "Accept: b", "accept: a", "X-Utf8: \u00e9\u4f60", "X-Empty:"]
    got, _ = await exchange(request("/x", "GET", *lines))
    expected = [b"Host: comfy.example:1", *[line.encode() for line in lines]]
    expected[4] = b"Accept: a"  # the one thing that is lost: a second spelling of a repeated name
    assert [line.rstrip() for line in header_lines(got)] == expected


async def test_no_request_header_is_added() -> None:
    got, _ = await exchange(request())
    assert header_lines(got) == [b"Host: comfy.example:1"]


async def test_hop_by_hop_request_headers_stay_here() -> None:
    lines = ["TE: trailers", "Keep-Alive: 5", "Upgrade: h2c", "Proxy-Authorization: x", "X-Mine: 1", "X-Kept: 1"]
    head = request("/x", "GET", *lines).replace(b"Connection: close", b"Connection: close, X-Mine, Host")
    got, _ = await exchange(head)
    assert header_lines(got) == [b"Host: comfy.example:1", b"X-Kept: 1"]


async def test_response_headers_keep_case_order_and_duplicates_and_none_is_added() -> None:
    lines = [
        b"x-ODD: 1",
        b"Set-Cookie: a=1; Path=/",
        b"set-cookie: b=2",
        b'ETag: W/"x"',
        b"Content-Length: 2",
        b'Content-Disposition: filename="\xc3\xa9.png"',
    ]
    response = b"\r\n".join([b"HTTP/1.1 200 Fine By Me", *lines, b"", b"ok"])
    _, answer = await exchange(request(), response)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [b"HTTP/1.1 200 Fine By Me", *lines, b"Connection: close"]
    assert body == b"ok"


async def test_no_content_type_is_invented_for_a_chunked_body() -> None:
    response = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    _, answer = await exchange(request(), response)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert sorted(head.split(b"\r\n")[1:]) == [b"Connection: close", b"Transfer-Encoding: chunked", b"X: y"]
    assert body == b"3\r\nabc\r\n0\r\n\r\n"


async def test_hop_by_hop_response_headers_stay_there() -> None:
    response = (
        b"HTTP/1.1 200 OK\r\nConnection: x-private, close\r\nX-Private: 1\r\nKeep-Alive: timeout=5\r\n"
        b"Content-Length: 0\r\n\r\n"
    )
    _, answer = await exchange(request(), response)
    assert header_lines(answer) == [b"Content-Length: 0", b"Connection: close"]


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 204 No Content\r\nX: y\r\n\r\n",
        b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\nLast-Modified: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n',
        b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 416 Range\r\nContent-Range: bytes */5\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_answers_without_a_body(head: bytes) -> None:
    _, answer = await exchange(request(), head)
    assert answer == head[:-2] + b"Connection: close\r\n\r\n"


async def test_the_answer_to_head_keeps_its_length() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\nContent-Type: image/png\r\n\r\n"
    _, answer = await exchange(request("/view?x", "HEAD"), head)
    assert answer == head[:-2] + b"Connection: close\r\n\r\n"


async def test_ranges_and_conditions_pass() -> None:
    response = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 1-2/5\r\nContent-Length: 2\r\n\r\nbc"
    got, answer = await exchange(request("/view", "GET", "Range: bytes=1-2", 'If-Range: "e"'), response)
    assert header_lines(got)[1:] == [b"Range: bytes=1-2", b'If-Range: "e"']
    assert answer.startswith(b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 1-2/5\r\n")
    assert answer.endswith(b"\r\n\r\nbc")


async def test_a_compressed_answer_is_not_unpacked() -> None:
    packed = gzip.compress(b"x" * 1000)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    _, answer = await exchange(request("/x", "GET", "Accept-Encoding: gzip"), head + packed)
    assert answer.partition(b"\r\n\r\n")[2] == packed


async def test_a_compressed_request_is_not_unpacked() -> None:
    packed = gzip.compress(b"x" * 1000)
    head = request("/x", "POST", "Content-Encoding: gzip", f"Content-Length: {len(packed)}")
    got, _ = await exchange(head + packed, body=len(packed))
    assert got.endswith(b"\r\n\r\n" + packed)
    assert b"Content-Encoding: gzip\r\n" in got


async def test_a_body_with_a_length_goes_on_with_that_length() -> None:
    got, _ = await exchange(request("/x", "POST", "Content-Length: 5") + b"hello", body=5)
    assert b"Content-Length: 5" in header_lines(got.partition(b"hello")[0])
    assert b"Transfer-Encoding" not in got


async def test_a_chunked_body_goes_on_chunked() -> None:
    chunks = b"5\r\nhello\r\n0\r\n\r\n"
    got, _ = await exchange(request("/x", "POST", "Transfer-Encoding: chunked") + chunks, body=len(chunks))
    assert b"\r\nTransfer-Encoding: chunked\r\n" in got
    assert got.endswith(b"\r\n\r\n" + chunks)


async def test_a_redirect_is_not_followed_and_no_cookie_is_kept() -> None:
    seen: list[bytes] = []

    async def script(peer: Peer) -> None:
        while True:
            seen.append(await peer.head())
            await peer.send(b"HTTP/1.1 302 Found\r\nLocation: /two\r\nSet-Cookie: s=1\r\nContent-Length: 0\r\n\r\n")

    async with serving(script) as upstream, passing(upstream.url) as port:
        for _ in range(2):
            async with connected(port) as client:
                await client.send(request())
                assert b" 302 " in await client.rest()
    assert [head.split(b"\r\n")[0] for head in seen] == [b"GET /x HTTP/1.1"] * 2
    assert not any(b"cookie" in head.lower() for head in seen)


async def test_long_targets_and_headers_are_for_comfyui_to_judge() -> None:
    target = "/x?" + "a" * 20_000
    got, _ = await exchange(request(target, "GET", "X-Long: " + "b" * 20_000))
    assert target.encode() in got
    assert b"b" * 20_000 in got
