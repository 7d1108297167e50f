"""The bodies of orders, read as ComfyUI's server reads them."""

from aiohttp import web

from proxy.engine.unpacking import unpack
from proxy.errors import DownstreamError


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
