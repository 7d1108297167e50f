"""Which headers concern one connection only, and so must not travel from one side of the proxy to the other.

All other headers pass as they came: same order, same case, duplicates included. Nothing is added here.

Sources: RFC 9110 section 7.6.1 (what a proxy removes), RFC 9112 sections 6 and 9 (framing, persistence), RFC 2616
section 13.5.1 (the older list that servers still go by).
"""

from collections.abc import Iterable
from types import MappingProxyType
from typing import TypeAlias

RawHeaders: TypeAlias = Iterable[tuple[bytes, bytes]]
"""Header lines as they were on the wire, in order."""

HeaderList: TypeAlias = list[tuple[str, str]]
"""Header lines as text, in order, duplicates kept. Bytes that are no UTF-8 are kept as lone surrogates."""

HOP_BY_HOP = MappingProxyType(
    {
        "connection": "lists what belongs to this connection alone, and whether it is kept open",
        "keep-alive": "how long this connection is kept open",
        "proxy-connection": "an old, wrong spelling of Connection",
        "proxy-authenticate": "asks for credentials for the next proxy, not for the server",
        "proxy-authorization": "credentials for the next proxy, not for the server",
        "te": "which transfer codings this connection's peer can read",
        "trailer": "announces trailers, which are not passed on",
        "transfer-encoding": "how the body is framed on this connection; each side frames it anew",
        "upgrade": "asks to change the protocol of this connection; tunnels are made by other means",
    }
)
"""Lower-case name of each header that stays on its own connection, with the reason."""

NEVER_DROPPED = MappingProxyType(
    {
        "host": "ComfyUI's guard against foreign pages compares it with Origin",
        "origin": "as Host",
        "sec-fetch-site": "as Host",
        "content-length": "the length of the body is the same on both sides",
    }
)
"""Headers that stay even if `Connection` names them: a client could otherwise switch the guard or the framing off."""

WEBSOCKET_HANDSHAKE = MappingProxyType(
    {
        "sec-websocket-key": "proves that the peer of this connection speaks WebSocket",
        "sec-websocket-accept": "as Sec-WebSocket-Key",
        "sec-websocket-version": "the version spoken on this connection",
        "sec-websocket-extensions": "compression is agreed per connection",
        "sec-websocket-protocol": "offered and chosen by the handshake itself",
    }
)
"""What the opening handshake of a WebSocket negotiates anew on each side."""


def request_headers(raw: RawHeaders) -> HeaderList:
    """The end-to-end headers of a request, those named in `Connection` left out too."""
    return _end_to_end(raw)


def response_headers(raw: RawHeaders) -> HeaderList:
    """The end-to-end headers of a response, those named in `Connection` left out too."""
    return _end_to_end(raw)


def without_handshake(headers: Iterable[tuple[str, str]]) -> HeaderList:
    """`headers` without those that each side's WebSocket handshake writes itself."""
    return [(name, value) for name, value in headers if name.lower() not in WEBSOCKET_HANDSHAKE]


def _end_to_end(raw: RawHeaders) -> HeaderList:
    pairs = [(name.decode("utf-8", "surrogateescape"), value.decode("utf-8", "surrogateescape")) for name, value in raw]
    dropped = HOP_BY_HOP.keys() | (_named_in_connection(pairs) - NEVER_DROPPED.keys())
    return [(name, value) for name, value in pairs if name.lower() not in dropped]


def _named_in_connection(pairs: HeaderList) -> set[str]:
    return {
        token.strip().lower()
        for name, value in pairs
        if name.lower() == "connection"
        for token in value.split(",")
        if token.strip()
    }
