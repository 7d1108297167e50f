"""Orders whose bodies are read: as ComfyUI's server reads them, and passed on as they came."""

from aiohttp import web

from proxy.downstream.answers import raw_target
from proxy.engine.unpacking import unpack
from proxy.errors import DownstreamError
from proxy.upstream.client import Answer, UpstreamClient
from proxy.wire.headers import request_headers


async def plain_body(request: web.Request, limit: int) -> bytes:
    """The body without its Content-Encoding; `limit` is in bytes.

    Raises:
        DownstreamError: 413 when it is larger, 400 when it cannot be read here.
    """
    coding = request.headers.get("Content-Encoding", "")
    body = unpack(await request.read(), coding, limit)
    if body is None:
        raise DownstreamError(
            f"The body is in the Content-Encoding {coding}, which is not read here",
            type="unknown_encoding",
            details="Send it plain, or with gzip or deflate.",
        )
    return body


async def post_on(request: web.Request, client: UpstreamClient) -> Answer:
    """ComfyUI's answer to an order, passed on as it came.

    Raises:
        UpstreamError: when ComfyUI does not answer.
    """
    headers = [i for i in request_headers(request.raw_headers) if i[0].lower() not in {"content-length", "expect"}]
    return await client.post(raw_target(request), await request.read(), headers)
