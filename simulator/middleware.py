"""What ComfyUI does to every request: origin guard or CORS headers, cache headers, compression.

Behaviour from ComfyUI server.py and middleware/cache_middleware.py.
"""

import ipaddress
import socket
from urllib.parse import urlparse, urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from .config import SimulatorConfig

_IMAGES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
_CACHED_STATUSES = frozenset((200, 201, 202, 203, 204, 205, 206, 301, 308))
_UNCACHED_STATUSES = frozenset((302, 303, 307))


def middlewares(config: SimulatorConfig) -> list[Middleware]:
    """All of them, the outermost first."""
    stack: list[Middleware] = [cache_control]
    if config.compress:
        stack.append(compress)
    stack.append(origin_guard if config.cors_origin is None else cors(config.cors_origin))
    return stack


@web.middleware
async def cache_control(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Cache headers by the kind of file."""
    response = await handler(request)
    name = request.path.rsplit("/", 1)[-1]
    is_index = name.startswith("index") and name.endswith(".json")
    if request.path.endswith((".js", ".css")) or is_index:
        response.headers.setdefault("Cache-Control", "no-store")
    elif request.path.lower().endswith(_IMAGES):
        if response.status == web.HTTPNotFound.status_code:
            response.headers.setdefault("Cache-Control", "public, max-age=3600")
        elif response.status in _CACHED_STATUSES:
            response.headers.setdefault("Cache-Control", "public, max-age=86400")
        elif response.status in _UNCACHED_STATUSES:
            response.headers.setdefault("Cache-Control", "no-cache")
    return response


@web.middleware
async def compress(request: web.Request, handler: Handler) -> web.StreamResponse:
    """`--enable-compress-response-body`: JSON and text are compressed for who accepts it."""
    response = await handler(request)
    if (
        isinstance(response, web.Response)
        and response.content_type in {"application/json", "text/plain"}
        and response.body
        and "gzip" in request.headers.get("Accept-Encoding", "")
    ):
        response.enable_compression()
    return response


def cors(origin: str) -> Middleware:
    """`--enable-cors-header`: headers on every answer, and no guard."""

    @web.middleware
    async def add_headers(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = web.Response() if request.method == "OPTIONS" else await handler(request)
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Allow-Methods"] = "POST, GET, DELETE, PUT, OPTIONS, PATCH"
        response.headers["Access-Control-Allow-Headers"] = "Content-Type, Authorization"
        response.headers["Access-Control-Allow-Credentials"] = "true"
        return response

    return add_headers


@web.middleware
async def origin_guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """On a loopback host, requests that a foreign web page caused are refused."""
    if request.headers.get("Sec-Fetch-Site") == "cross-site" or _foreign_origin(request):
        return web.Response(status=403)
    if request.method == "OPTIONS":
        return web.Response()
    return await handler(request)


def _foreign_origin(request: web.Request) -> bool:
    if "Host" not in request.headers or "Origin" not in request.headers:
        return False
    host: str | None = request.headers["Host"].lower()
    host_parts = urlsplit(f"//{host}")
    origin_parts = urlparse(request.headers["Origin"])
    origin: str | None = origin_parts.netloc.lower()
    if not _is_loopback(host_parts.hostname):
        return False
    if origin_parts.port is None:
        host = host_parts.hostname
    if host_parts.port is None:
        origin = origin_parts.hostname
    return bool(host) and bool(origin) and host != origin


def _is_loopback(host: str | None) -> bool:
    if host is None:
        return False
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError):
        return False
    return bool(found) and all(ipaddress.ip_address(address[4][0]).is_loopback for address in found)
