"""HTTP towards ComfyUI: streams for what is passed on, small calls for what the engine asks itself.

An HTTP client library is helpful by default: it follows redirects, unpacks bodies, keeps cookies, adds headers, reads
proxy settings from the environment, limits connections, repeats a request whose connection broke. A proxy must do
none of that, or ComfyUI and its client no longer see each other's bytes. All of it is switched off here, in one
place.

Repeating deserves a word. A kept-alive connection may turn out to be dead when the next request is written to it. For
GET and the other idempotent methods aiohttp then tries once more, as RFC 9110 section 9.2.2 allows. A POST must not
be sent twice (a prompt would run twice), and must not fail only because an idle connection went stale either. So
methods that are not idempotent get a fresh connection each: nothing to go stale, nothing to repeat. If such a request
breaks off, it is unknown whether ComfyUI acted; that is for the caller to find out.
"""

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from proxy.errors import UpstreamError, UpstreamTimeout, UpstreamUnreachable
from proxy.wire.headers import HeaderList, response_headers

_AUTOMATIC_HEADERS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
_REUSES_CONNECTIONS = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
_HEAD_LIMIT = 1 << 20
"""Bytes of a status line or of one header: what ComfyUI and its nodes send is not for us to refuse."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response that was read to its end. `headers` are the end-to-end ones, `body` is as it came over the wire.

    `ours` is one that the proxy words in ComfyUI's place.
    """

    status: int
    reason: str
    headers: HeaderList
    body: bytes
    ours: bool = False

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300  # noqa: PLR2004 - the HTTP range of success

    def json(self) -> Any:
        """The body as JSON, NaN, Infinity and integers of any size included. Raises ValueError if it is none."""
        return json.loads(self.body)


class UpstreamClient:
    """One ComfyUI's HTTP side. Use it as an async context manager, or call `start` and `close`."""

    def __init__(self, base_url: str, *, connect_timeout: float = 5.0, control_timeout: float = 30.0) -> None:
        """`base_url` may have a path before ComfyUI's own. Timeouts are in seconds.

        `connect_timeout` bounds the TCP connection of every request, `control_timeout` the whole of a small call. What
        is passed on has no limit of its own: a client decides itself how long it waits.

        Raises ValueError if `base_url` is no http or https URL.
        """
        url = URL(base_url)
        if url.scheme not in {"http", "https"} or not url.host:
            raise ValueError(f"not an http or https URL: {base_url!r}")
        self.base_url = str(url.with_query(None).with_fragment(None)).rstrip("/")
        self._stream = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout)
        self._control = aiohttp.ClientTimeout(total=control_timeout, sock_connect=connect_timeout)
        self._kept: aiohttp.ClientSession | None = None
        self._fresh: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Make ready to send; must run inside the event loop that will be used."""
        self._kept = _session(keep_alive=True)
        self._fresh = _session(keep_alive=False)

    async def close(self) -> None:
        """Close all connections. May be called again."""
        for session in (self._kept, self._fresh):
            if session is not None:
                await session.close()

    def forward(
        self,
        method: str,
        target: str,
        headers: Iterable[tuple[str, str]],
        body: AsyncIterator[bytes] | None = None,
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Send a request on and give its response as a stream; leaving the context ends whatever is still under way.

        `target` is the raw path with its query, from the first slash on. `headers` are sent as given; Host is taken
        from them if it is there. A `body` without Content-Length among the headers goes out chunked.

        Raises UpstreamUnreachable or UpstreamTimeout until the response's head is there; reading the response's
        `content` may raise aiohttp.ClientError.
        """
        return self._exchange(method, target, headers, body, self._stream)

    async def get(self, path: str, headers: Iterable[tuple[str, str]] = ()) -> Answer:
        """GET `path` and read all of the answer, whatever its status."""
        return await self._call("GET", path, headers, None)

    async def post(self, path: str, body: bytes, headers: Iterable[tuple[str, str]] = ()) -> Answer:
        """POST `body` to `path`, once, and read all of the answer.

        Raises UpstreamTimeout or UpstreamUnreachable; after either it is unknown whether ComfyUI acted on it, unless
        `UpstreamUnreachable.sent` is false.
        """
        return await self._call("POST", path, headers, body)

    async def get_json(self, path: str) -> Any:
        """GET `path` and parse the answer. Raises UpstreamError if its status is not 2xx or it is no JSON."""
        answer = await self.get(path)
        if not answer.ok:
            raise self._unexpected(path, f"answered {answer.status} {answer.reason} to GET {path}")
        try:
            return answer.json()
        except ValueError as error:
            raise self._unexpected(path, f"answered GET {path} with something that is no JSON: {error}") from error

    async def post_json(self, path: str, payload: Any, headers: Iterable[tuple[str, str]] = ()) -> Answer:
        """POST `payload` as JSON to `path`, once. See `post` for the errors."""
        body = json.dumps(payload).encode()
        return await self.post(path, body, [("Content-Type", "application/json"), *headers])

    async def _call(self, method: str, path: str, headers: Iterable[tuple[str, str]], body: bytes | None) -> Answer:
        async with self._exchange(method, path, headers, body, self._control) as response:
            try:
                content = await response.read()
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise self._failed(path, error) from error
            return Answer(response.status, response.reason or "", response_headers(response.raw_headers), content)

    @asynccontextmanager
    async def _exchange(
        self,
        method: str,
        target: str,
        headers: Iterable[tuple[str, str]],
        body: AsyncIterator[bytes] | bytes | None,
        limits: aiohttp.ClientTimeout,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        session = self._kept if method in _REUSES_CONNECTIONS else self._fresh
        if session is None:
            raise RuntimeError("UpstreamClient is not started")
        url = URL(self.base_url + target, encoded=True)
        try:
            response = await session.request(
                method, url, headers=_spelled_alike(headers), data=body, allow_redirects=False, timeout=limits
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._failed(target, error) from error
        try:
            yield response
        finally:
            response.close()

    def _failed(self, target: str, error: Exception) -> UpstreamError:
        url = self.base_url + target.partition("?")[0]
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return UpstreamUnreachable(url, "the connection was not taken in time", _NOT_THERE, sent=False)
        if isinstance(error, aiohttp.ClientConnectorSSLError):
            return UpstreamUnreachable(url, _reason(error.os_error), _NO_TLS, sent=False)
        if isinstance(error, aiohttp.ClientConnectorError):
            return UpstreamUnreachable(url, _reason(error.os_error), _NOT_THERE, sent=False)
        if isinstance(error, TimeoutError):
            return UpstreamTimeout(url, "no complete answer in time", _BUSY)
        return UpstreamUnreachable(url, _reason(error), _BROKE_OFF)

    def _unexpected(self, path: str, why: str) -> UpstreamError:
        return UpstreamError(self.base_url + path.partition("?")[0], why, "Is this address a ComfyUI?")


_NOT_THERE = (
    "Start ComfyUI, or correct [upstream] url in the configuration. Requests are passed on again as soon as it answers."
)
_NO_TLS = "Use http:// in [upstream] url, unless ComfyUI was started with --tls-keyfile."
_BROKE_OFF = (
    "ComfyUI may have crashed or be restarting; look at its log. It is passed on to again as soon as it answers."
)
_BUSY = "ComfyUI is there but does not answer; it may be loading custom nodes, or hang. Look at its log."


def _spelled_alike(headers: Iterable[tuple[str, str]]) -> CIMultiDict[str]:
    """Give repeated headers one spelling: aiohttp's session keeps only the last of those that differ in case."""
    spelling: dict[str, str] = {}
    return CIMultiDict((spelling.setdefault(name.lower(), name), value) for name, value in headers)


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _session(*, keep_alive: bool) -> aiohttp.ClientSession:
    connector = (
        aiohttp.TCPConnector(limit=0, keepalive_timeout=15.0)
        if keep_alive
        else aiohttp.TCPConnector(limit=0, force_close=True)
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=_AUTOMATIC_HEADERS,
        auto_decompress=False,
        trust_env=False,
        raise_for_status=False,
        max_line_size=_HEAD_LIMIT,
        max_field_size=_HEAD_LIMIT,
    )
