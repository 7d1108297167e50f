"""A small client that sees what any ComfyUI client could see, and changes nothing of it.

Ordinary HTTP clients hide what a contract is about: they decompress bodies, keep cookies, re-quote paths and
follow redirects. This one does none of that.
"""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp
from multidict import CIMultiDictProxy
from websockets.asyncio.client import connect
from yarl import URL

from tests.contract.sockets import PATIENCE, Event, Frame, Socket

Prompt = Mapping[str, Any]

_ENDS = {"execution_success", "execution_error", "execution_interrupted"}


@dataclass(frozen=True)
class Answer:
    """One HTTP answer, its body as it came over the wire."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Run:
    """One prompt from submission to its last event."""

    prompt_id: str
    answer: Any
    events: list[Event]
    frames: list[Frame]

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    @property
    def cached(self) -> list[str]:
        """Node ids of ``execution_cached``."""
        cached: list[str] = next(event.data["nodes"] for event in self.events if event.kind == "execution_cached")
        return cached

    @property
    def end(self) -> Event:
        """How it ended: ``execution_success``, ``_error`` or ``_interrupted``."""
        return next(event for event in self.events if event.kind in _ENDS)

    @property
    def outputs(self) -> dict[str, Any]:
        """What each node showed, by node id."""
        return {event.data["node"]: event.data["output"] for event in self.events if event.kind == "executed"}


class Client:
    """HTTP and sockets to one address.

    Attributes:
        url: the address without a trailing slash.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._session = aiohttp.ClientSession(
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers={"Accept-Encoding", "User-Agent", "Accept"},
            timeout=aiohttp.ClientTimeout(total=PATIENCE),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def request(
        self, method: str, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send one request; ``path`` goes out as it is written, ``body`` as bytes, a stream of them, a form or JSON."""
        sent: dict[str, str] = {}
        if body is not None and not isinstance(body, bytes | AsyncIterator | aiohttp.FormData):
            body = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        async with self._session.request(
            method,
            URL(self.url + path, encoded=True),
            data=body,
            headers=sent | dict(headers or {}),
            allow_redirects=False,
        ) as response:
            return Answer(response.status, response.headers, await response.read())

    async def get(self, path: str, **headers: str) -> Answer:
        """GET with headers given as keywords, ``_`` for ``-``."""
        return await self.request(
            "GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )

    async def post(self, path: str, body: Any = None) -> Answer:
        return await self.request("POST", path, body)

    async def get_json(self, path: str) -> Any:
        """The JSON body of a GET that must succeed."""
        answer = await self.get(path)
        if answer.status != 200:
            raise AssertionError(f"GET {path}: {answer.status} {answer.body[:500]!r}")
        return answer.json()

    async def submit(self, prompt: Prompt, client_id: str | None = None, **fields: Any) -> Any:
        """Submit a prompt that ComfyUI must take; the answer's JSON."""
        if client_id is not None:
            fields["client_id"] = client_id
        answer = await self.post("/prompt", {"prompt": prompt, **fields})
        if answer.status != 200:
            raise AssertionError(f"POST /prompt: {answer.status} {answer.body[:2000]!r}")
        return answer.json()

    async def refuse(self, prompt: Any, **fields: Any) -> Any:
        """Submit a prompt that ComfyUI must refuse with 400; the answer's JSON."""
        answer = await self.post("/prompt", {"prompt": prompt, **fields})
        if answer.status != 400:
            raise AssertionError(f"POST /prompt: {answer.status} {answer.body[:2000]!r}")
        return answer.json()

    @asynccontextmanager
    async def socket(self, client_id: str | None = None, *, anonymous: bool = False) -> AsyncIterator[Socket]:
        """An open socket whose first ``status`` has come; with an id of its own unless ``anonymous``."""
        if client_id is None and not anonymous:
            client_id = uuid.uuid4().hex
        socket = await self.open_socket(client_id)
        try:
            yield socket
        finally:
            await socket.close()

    async def open_socket(self, client_id: str | None) -> Socket:
        url = self.url.replace("http", "ws", 1) + "/ws" + (f"?clientId={client_id}" if client_id else "")
        connection = await connect(url, max_size=None, proxy=None, compression=None, ping_interval=None)
        socket = Socket(connection, client_id)
        await socket.until_event("status")
        return socket

    async def run(self, prompt: Prompt, socket: Socket, **fields: Any) -> Run:
        """Submit for an open socket and follow the prompt to its end."""
        before = len(socket.frames)
        answer = await self.submit(prompt, socket.client_id, **fields)
        prompt_id = answer["prompt_id"]
        frames = await socket.until_done(prompt_id)
        return Run(prompt_id, answer, socket.events(prompt_id), frames[before:])

    async def queue(self) -> tuple[list[list[Any]], list[list[Any]]]:
        """Running and pending items, each ``[number, id, prompt, extra_data, outputs]``."""
        queue = await self.get_json("/queue")
        return queue["queue_running"], queue["queue_pending"]

    async def history(self, prompt_id: str) -> Any:
        """The history entry of one prompt, waited for."""
        return await eventually(lambda: self._history_entry(prompt_id), f"history of {prompt_id}")

    async def _history_entry(self, prompt_id: str) -> Any:
        return (await self.get_json(f"/history/{prompt_id}")).get(prompt_id)

    async def idle(self) -> None:
        """Wait until nothing runs and nothing waits."""

        async def is_idle() -> bool:
            return not any(await self.queue())

        await eventually(is_idle, "an idle queue")


async def eventually(look: Callable[[], Awaitable[Any]], what: str) -> Any:
    """The first truthy result of awaiting ``look()``, asked again until it comes.

    Raises:
        AssertionError: it did not come in time.
    """
    try:
        async with asyncio.timeout(PATIENCE):
            while not (found := await look()):  # noqa: ASYNC110 - the condition lives in another process
                await asyncio.sleep(0.01)
            return found
    except TimeoutError:
        raise AssertionError(f"waited {PATIENCE} s for {what}") from None
