"""ComfyUI's guard against foreign web pages, decided the same way.

A page from anywhere can make its visitor's browser POST to a server on the visitor's own machine. Browsers say where
such a request comes from: `Origin`, `Sec-Fetch-Site`. ComfyUI (server.py, `create_origin_only_middleware`) refuses
what is cross-site, and on loopback what has an Origin other than the Host. Its quirks (which ports are compared, that
`null` is no origin) are reproduced: a request must not fare differently because the proxy answers it.

The decision is pure. Whether a host name means loopback takes a look-up, so it is asked only where it matters.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Mapping
from enum import Enum, auto
from urllib.parse import urlsplit


class Judgement(Enum):
    """What becomes of a request."""

    ALLOWED = auto()
    REFUSED = auto()
    REFUSED_ON_LOOPBACK = auto()
    """Refused if the name in `Host` means this machine."""


def judge(headers: Mapping[str, str]) -> Judgement:
    """Judge a request by its headers (a case-insensitive mapping).

    Headers that cannot be read are refused; ComfyUI answers 500 to those.
    """
    if headers.get("Sec-Fetch-Site") == "cross-site":
        return Judgement.REFUSED
    if "Host" not in headers or "Origin" not in headers:
        return Judgement.ALLOWED
    try:
        same = _same_host(headers["Host"].lower(), headers["Origin"])
    except ValueError:
        return Judgement.REFUSED
    return Judgement.ALLOWED if same else Judgement.REFUSED_ON_LOOPBACK


def _same_host(host: str, origin: str) -> bool:
    """Compare with the port where both have one. An empty side counts as the same: ComfyUI does not judge it."""
    ours = urlsplit("//" + host)
    theirs = urlsplit(origin)
    ours_compared = host if theirs.port is not None else ours.hostname
    theirs_compared = theirs.netloc.lower() if ours.port is not None else theirs.hostname
    return not ours_compared or not theirs_compared or ours_compared == theirs_compared


def host_name(headers: Mapping[str, str]) -> str | None:
    """The name or address in `Host`, without the port."""
    return urlsplit("//" + headers["Host"].lower()).hostname


async def is_loopback(host: str | None) -> bool:
    """Whether a name or address means this machine (ComfyUI server.py, `is_loopback`)."""
    if host is None:
        return False
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        pass
    loopback = False
    for family in (socket.AF_INET, socket.AF_INET6):
        for address in await _addresses(host, family):
            if not ipaddress.ip_address(address).is_loopback:
                return loopback
            loopback = True
    return loopback


async def _addresses(host: str, family: socket.AddressFamily) -> list[str]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, family=family, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError):
        return []
    return [str(entry[4][0]).partition("%")[0] for entry in found]
