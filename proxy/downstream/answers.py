"""Writing answers to clients exactly as given, and dropping a client whose answer cannot be finished."""

import socket
import struct
import sys

from aiohttp import web
from multidict import CIMultiDict

from proxy.errors import DownstreamError
from proxy.upstream.client import Answer
from proxy.upstream.dial import Refusal
from proxy.wire.headers import HeaderList

_OURS = ("Connection", "Transfer-Encoding")
"""What the server framework rightly writes itself: they belong to the client's connection."""


class PassedResponse(web.StreamResponse):
    """A response that carries exactly the headers it was given, and the two that frame it on this connection."""

    def __init__(self, status: int, reason: str | None, headers: HeaderList) -> None:
        """`headers` are end-to-end ones; Content-Length among them decides whether the body is chunked."""
        super().__init__(status=status, reason=reason, headers=CIMultiDict(headers))
        self._given = headers

    def restore_headers(self) -> None:
        """Undo what was added since construction. To be called when the headers are about to be written."""
        framing = [(name, self.headers[name]) for name in _OURS if name in self.headers]
        self.headers.clear()
        self.headers.extend(self._given)
        self.headers.extend(framing)


async def keep_headers(_request: web.Request, response: web.StreamResponse) -> None:
    """Signal `on_response_prepare`: passed responses lose what the framework added to them."""
    if isinstance(response, PassedResponse):
        response.restore_headers()


async def pass_refusal(request: web.Request, refusal: Refusal) -> PassedResponse:
    """Answer a handshake as ComfyUI answered it."""
    response = PassedResponse(refusal.status, refusal.reason, refusal.headers)
    await response.prepare(request)
    await response.write_eof(refusal.body)
    return response


async def respond(request: web.Request, answer: Answer) -> web.StreamResponse:
    """Give a client an answer that was read to its end."""
    if answer.ours:
        return web.Response(status=answer.status, headers=CIMultiDict(answer.headers), body=answer.body)
    response = PassedResponse(answer.status, answer.reason, answer.headers)
    await response.prepare(request)
    await response.write_eof(answer.body)
    return response


def raw_target(request: web.BaseRequest) -> str:
    """Path and query as the client sent them, from the first slash on. Raises DownstreamError if there is no path."""
    target = request.raw_path
    if not target.startswith("/"):
        target = request.rel_url.raw_path_qs
    if not target.startswith("/"):
        raise DownstreamError(f"cannot pass on a request for {request.raw_path!r}", type="bad_target")
    return target


_RESET_ON_CLOSE = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
"""`struct linger`: on, 0 seconds."""


def abort(request: web.BaseRequest) -> None:
    """Reset the client's connection so that it sees an error and not the end of the body.

    An ordinary close would do for a body of known length or in chunks, but where the end of the connection is the end
    of the body (HTTP/1.0) only a reset tells that something is missing.
    """
    transport = request.transport
    if transport is None:
        return
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()
