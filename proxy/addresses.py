"""Addresses as the configuration spells them: what they mean, and whether two of them are one."""

import ipaddress
import re
from urllib.parse import urlsplit

_PORTS = {"http": 80, "https": 443}
_HIGHEST_PORT = 65535
_LOCALHOST = frozenset({"127.0.0.1", "::1"})
_EVERYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared, not bound


def split_address(value: str) -> tuple[str, int]:
    """Split `host:port` or `[ipv6]:port`.

    Raises:
        ValueError: when it is neither.
    """
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([^:\[\]]*)):(\d+)", value)
    if match is None:
        raise ValueError('must be "host:port", for example "127.0.0.1:8189" or "[::1]:8189"')
    if int(match[3]) > _HIGHEST_PORT:
        raise ValueError(f"there is no port {match[3]}; choose one up to {_HIGHEST_PORT}")
    return match[1] or match[2] or "0.0.0.0", int(match[3])  # noqa: S104 - ":8189" asks for all interfaces; serve warns


def check_url(value: str) -> str:
    """A base URL as it is used, without the slash at its end.

    Raises:
        ValueError: when it is none.
    """
    parts = urlsplit(value)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError("must look like http://127.0.0.1:8188")
    if parts.query or parts.fragment:
        raise ValueError("must end before the ? or #: paths are put behind it")
    try:
        _ = parts.port
    except ValueError as error:
        raise ValueError(f"has a port that does not exist; choose one up to {_HIGHEST_PORT}") from error
    return value.rstrip("/")


def leads_to(url: str, host: str, port: int) -> bool:
    """Whether connections to `url` arrive at who listens on `host` and `port`, as far as the spelling tells.

    Names other than localhost are compared as they are: to resolve them would be to ask somebody.
    """
    parts = urlsplit(url)
    if (parts.port or _PORTS[parts.scheme]) != port:
        return False
    tried, heard = _addresses(parts.hostname or ""), _addresses(host)
    if heard & _EVERYWHERE:
        return bool(tried & (_LOCALHOST | _EVERYWHERE)) or any(_is_loopback(address) for address in tried)
    # Whoever connects to the unspecified address gets to the loopback one.
    return bool((tried | _LOCALHOST if tried & _EVERYWHERE else tried) & heard)


def _addresses(host: str) -> frozenset[str]:
    if host.lower().rstrip(".") == "localhost":
        return _LOCALHOST
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return frozenset({host.lower()})
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return frozenset({str(mapped or address)})


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
