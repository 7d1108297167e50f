"""Hazard: an error reaches the client in a form it cannot read or amid another answer, or fills the log for nothing."""

import json
import logging

import pytest
from aiohttp import web

from proxy.downstream.middleware import errors_as_json
from proxy.errors import ComfykeepError, DownstreamError, ShuttingDown, UpstreamTimeout, UpstreamUnreachable
from tests.downstream.passing import running
from tests.rawhttp import connected


async def answer_of(handler: object) -> bytes:
    app = web.Application(middlewares=[errors_as_json])
    app.router.add_get("/", handler)  # type: ignore[arg-type]
    async with running(app) as port, connected(port) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        return await client.rest()


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (DownstreamError("no", details="do", extra_info={"a": 1}), 400),
        (DownstreamError("too much", status=413, type="too_large"), 413),
        (ShuttingDown(), 503),
        (UpstreamUnreachable("http://h", "gone", "start it"), 502),
        (UpstreamTimeout("http://h", "slow", "wait"), 504),
    ],
)
async def test_our_errors_have_comfyuis_shape(error: ComfykeepError, status: int) -> None:
    async def fail(_request: web.Request) -> web.Response:
        raise error

    head, _, body = (await answer_of(fail)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    parsed = json.loads(body)
    assert set(parsed) == {"error", "node_errors"}
    assert set(parsed["error"]) == {"type", "message", "details", "extra_info"}
    assert (b"Retry-After: 5" in head) == isinstance(error, ShuttingDown)


async def test_what_nobody_expected_is_told_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(_request: web.Request) -> web.Response:
        raise KeyError("surprise")

    head, _, body = (await answer_of(fail)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 500 ")
    assert "surprise" in json.loads(body)["error"]["details"]
    assert "Traceback" in caplog.text


async def test_aiohttps_own_answers_stay() -> None:
    async def fail(_request: web.Request) -> web.Response:
        raise web.HTTPNotFound(text="nothing here")

    assert (await answer_of(fail)).endswith(b"nothing here")


async def test_an_error_in_the_middle_of_an_answer_breaks_it_off() -> None:
    async def fail(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"half")
        raise UpstreamUnreachable("http://h", "gone", "start it")

    with pytest.raises(ConnectionError):
        await answer_of(fail)


async def test_a_client_that_went_away_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.close()
        raise ConnectionResetError("Cannot write to closing transport")

    assert await answer_of(fail) == b""
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_another_broken_connection_is_one() -> None:
    async def fail(_request: web.Request) -> web.Response:
        raise ConnectionResetError("somebody else's")

    assert (await answer_of(fail)).startswith(b"HTTP/1.1 500 ")
