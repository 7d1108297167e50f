"""Requests that are no HTTP are told in one plain line."""

import asyncio
import logging

import pytest
from aiohttp import web

from proxy.cli.plain_log import told_in_a_line


@pytest.mark.parametrize(
    "request_head", [b"GET / HTTP/1.1\r\nBad Header\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: abc\r\n\r\n"]
)
async def test_what_is_no_http_is_told_in_a_line(request_head: bytes, caplog: pytest.LogCaptureFixture) -> None:
    server_log = logging.getLogger("aiohttp.server")
    server_log.addFilter(told_in_a_line)
    runner = web.AppRunner(web.Application())
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        reader, writer = await asyncio.open_connection(*runner.addresses[0])
        writer.write(request_head)
        assert (await reader.readline()).split()[1] == b"400"
        writer.close()
        await writer.wait_closed()
    finally:
        await runner.cleanup()
        server_log.removeFilter(told_in_a_line)
    (record,) = [record for record in caplog.records if record.name == "aiohttp.server"]
    assert record.getMessage().startswith("not HTTP, answered with 400: ")
    assert (record.levelname, record.exc_info, "\n" in record.getMessage()) == ("WARNING", None, False)
