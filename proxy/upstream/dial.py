"""Opening a WebSocket to ComfyUI that looks to it like the client's own.

ComfyUI judges a handshake by its headers (Host against Origin), custom nodes by cookies and query, so those are sent
as the client sent them; the library would write its own Host and User-Agent. Beyond that, nothing may end a socket
that ComfyUI would have kept: no size limits, no queue limits (the reader never waits), no pings of our own (ComfyUI's
loop may be blocked for a minute while nodes load), no timeout for the handshake's answer, no compression, no proxy,
no redirects.

A peer that is gone without a word is noticed by TCP keep-alive, which the kernel answers even while ComfyUI is busy.
"""

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote_plus

from websockets.asyncio.client import ClientConnection
from websockets.client import ClientProtocol
from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake, InvalidStatus
from websockets.http11 import Request
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from proxy.errors import UpstreamUnreachable
from proxy.wire.headers import HeaderList, response_headers, without_handshake

_CLOSE_TIMEOUT = 10.0
_ASCII = "".join(map(chr, range(33, 127)))
_SERVER_ERRORS = 500
_CLIENT_ID = "clientId"
_CREDENTIALS = frozenset({"authorization", "cookie"})


@dataclass(frozen=True, slots=True)
class Knock:
    """What a handshake asks with: the raw path and query, and the end-to-end headers."""

    target: str
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def client_id(self) -> str:
        """The id that ComfyUI will take from the query (its first `clientId`); empty if it will invent one."""
        return next((value for name, value in parse_qsl(self._query, keep_blank_values=True) if name == _CLIENT_ID), "")

    @property
    def credentials(self) -> frozenset[tuple[str, str]]:
        """What custom nodes may judge a client by: cookies, authorization, and whatever else is in the query."""
        headers = {(name.lower(), value) for name, value in self.headers if name.lower() in _CREDENTIALS}
        return frozenset(headers | {("", part) for part in self._other_parts()})

    def under(self, client_id: str) -> "Knock":
        """The same with this client id in the query."""
        if self.client_id == client_id:
            return self
        query = "&".join([*self._other_parts(), f"{_CLIENT_ID}={quote(client_id, safe='')}"])
        return Knock(f"{self.target.partition('?')[0]}?{query}", self.headers)

    @property
    def _query(self) -> str:
        return self.target.partition("?")[2]

    def _other_parts(self) -> list[str]:
        return [part for part in self._query.split("&") if part and unquote_plus(part.partition("=")[0]) != _CLIENT_ID]


@dataclass(frozen=True, slots=True)
class Refusal:
    """ComfyUI's answer to a handshake that it did not accept."""

    status: int
    reason: str
    headers: HeaderList
    body: bytes

    @property
    def temporary(self) -> bool:
        """Whether it speaks of the server's state and not of the client, so that trying again makes sense."""
        return self.status >= _SERVER_ERRORS


class RefusedError(Exception):
    """The handshake was answered with something else than 101."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(f"{refusal.status} {refusal.reason}")
        self.refusal = refusal


class _Protocol(ClientProtocol):
    """The handshake with the caller's own target and headers."""

    knock: Knock

    def connect(self) -> Request:
        request = super().connect()
        own = request.headers
        headers = Headers()
        if not any(name.lower() == "host" for name, _ in self.knock.headers):
            headers["Host"] = own["Host"]
        for name, value in without_handshake(self.knock.headers):
            # the library writes Latin-1; the round trip keeps the client's bytes
            headers[name] = value.encode("utf-8", "surrogateescape").decode("latin-1")
        for name, value in own.raw_items():
            if name.lower() != "host":
                headers[name] = value
        return Request(quote(self.uri.path.rstrip("/") + self.knock.target, safe=_ASCII), headers)


async def dial(
    base_url: str,
    knock: Knock,
    *,
    subprotocols: Sequence[str] = (),
    max_queue: int | None = None,
    connect_timeout: float = 5.0,
) -> ClientConnection:
    """Open a WebSocket to the ComfyUI at `base_url` (http or https). The caller closes it.

    `max_queue` is the number of messages read ahead, None for as many as come. `connect_timeout` (seconds) bounds the
    TCP connection only. Cancelling while the handshake is under way drops the connection, which ComfyUI may notice
    later than the opening of the next one: do not dial the same client id again right after.

    Raises RefusedError if the answer is not 101, UpstreamUnreachable if there is none.
    """
    uri = parse_uri("ws" + base_url.removeprefix("http") + "/")
    protocol = _Protocol(
        uri,
        subprotocols=[Subprotocol(name) for name in subprotocols] if subprotocols else None,
        max_size=None,
    )
    protocol.knock = knock
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(connect_timeout):
            transport, connection = await loop.create_connection(
                lambda: ClientConnection(
                    protocol, ping_interval=None, ping_timeout=None, close_timeout=_CLOSE_TIMEOUT, max_queue=max_queue
                ),
                uri.host,
                uri.port,
                ssl=True if uri.secure else None,
            )
    except (OSError, TimeoutError) as error:
        raise UpstreamUnreachable(base_url, str(error) or "the connection was not taken in time", _REMEDY) from error
    _watch_peer(transport)
    try:
        await connection.handshake(user_agent_header=None)
    except InvalidStatus as error:
        transport.abort()
        raise RefusedError(_refusal(error)) from error
    except (InvalidHandshake, OSError, EOFError) as error:
        transport.abort()
        raise UpstreamUnreachable(base_url, f"no WebSocket handshake: {error}", _REMEDY) from error
    except BaseException:
        transport.abort()
        raise
    return connection


def answer_headers(connection: ClientConnection) -> HeaderList:
    """The end-to-end headers of ComfyUI's 101."""
    response = connection.response
    return [] if response is None else without_handshake(_headers(response.headers))


_REMEDY = "Start ComfyUI, or correct [upstream] url in the configuration. Sockets are bridged as soon as it answers."


def _refusal(error: InvalidStatus) -> Refusal:
    response = error.response
    return Refusal(
        response.status_code, response.reason_phrase, _headers(response.headers), bytes(response.body or b"")
    )


def _headers(headers: Headers) -> HeaderList:
    return response_headers((name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.raw_items())


def _watch_peer(transport: asyncio.Transport) -> None:
    """Let the kernel ask every 10 s whether the peer still exists, and give up after three silent answers."""
    sock = transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        number = getattr(socket, option, None)  # each system knows some of them
        if number is not None:
            sock.setsockopt(socket.IPPROTO_TCP, number, value)
