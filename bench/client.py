"""A plain ComfyUI client for the benchmarks: submit over HTTP, follow over one WebSocket, no word with the proxy."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from bench.errors import BenchError

_ENDS = ("execution_success", "execution_error", "execution_interrupted")


@dataclass(slots=True)
class Run:
    """One prompt from submission to end, as a client sees it."""

    prompt_id: str
    submitted_at: float
    cached: frozenset[str] = frozenset()
    outcome: str | None = None
    seconds: float = 0.0
    _ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def ended(self) -> "Run":
        """Wait for the end and return the run."""
        await self._ended.wait()
        return self


class BenchClient:
    """Follows its prompts by one socket; `submit` returns at once, `Run.ended` waits."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url.rstrip("/")
        self._session = session
        self._client_id = uuid.uuid4().hex
        self._runs: dict[str, Run] = {}

    async def get(self, path: str) -> Any:
        """GET a JSON answer."""
        async with self._session.get(self.url + path) as response:
            response.raise_for_status()
            return json.loads(await response.text())

    async def free(self) -> None:
        """Let ComfyUI drop its models and its node cache: what a cold start looks like.

        Its worker does so when it has woken, or after the next prompt if that comes first; so one without models does.
        """
        body = {"unload_models": True, "free_memory": True}
        async with self._session.post(f"{self.url}/free", json=body) as response:
            response.raise_for_status()
        shown = {"class_type": "PreviewAny", "inputs": {"source": f"freed {uuid.uuid4()}"}}
        await (await self.submit({"1": shown})).ended()

    async def submit(self, prompt: Mapping[str, Any]) -> Run:
        """Queue one prompt.

        Raises:
            BenchError: when the server refuses it.
        """
        run = Run(str(uuid.uuid4()), time.monotonic())
        self._runs[run.prompt_id] = run
        body = {"prompt": prompt, "client_id": self._client_id, "prompt_id": run.prompt_id}
        async with self._session.post(f"{self.url}/prompt", json=body) as response:
            if response.status != 200:  # noqa: PLR2004 - HTTP OK
                raise BenchError(f"{self.url} refused a workflow ({response.status}): {await response.text()}")
        return run

    async def follow(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Read events until the socket closes; every unfinished run then ends as lost."""
        try:
            async for message in socket:
                if message.type is aiohttp.WSMsgType.TEXT:
                    event = json.loads(message.data)
                    self._take(event.get("type"), event.get("data") or {})
        finally:
            for run in self._runs.values():
                run.outcome = run.outcome or "connection lost"
                run._ended.set()  # noqa: SLF001 - a run and its client are one thing in two parts

    def _take(self, kind: str, data: Mapping[str, Any]) -> None:
        run = self._runs.get(str(data.get("prompt_id")))
        if run is None:
            return
        if kind == "execution_cached":
            run.cached = frozenset(data["nodes"])
        elif kind in _ENDS:
            run.outcome = kind.removeprefix("execution_")
            run.seconds = time.monotonic() - run.submitted_at
        elif kind == "executing" and data.get("node") is None and run.outcome:
            run._ended.set()  # noqa: SLF001 - as above

    @property
    def socket_url(self) -> str:
        """Where this client's events come from."""
        return f"{self.url}/ws?clientId={self._client_id}"


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[BenchClient]:
    """A client whose socket is open.

    Raises:
        BenchError: when nothing answers there, or not as ComfyUI does.
    """
    try:
        async with _connected(url) as client:
            yield client
    except aiohttp.ClientError as error:
        raise BenchError(f"No ComfyUI answers at {url}: {error}") from error


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[BenchClient]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as session:
        client = BenchClient(url, session)
        async with session.ws_connect(client.socket_url, max_msg_size=0) as socket:
            # no task group: it would wrap what goes wrong inside the context
            reader = asyncio.create_task(client.follow(socket))
            try:
                yield client
            finally:
                await socket.close()
                await reader
