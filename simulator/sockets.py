"""The WebSocket side: who is connected, and the one loop that sends.

Everything a client may trip over is kept. A second socket of a client id replaces the first, and when the first closes
after that, the second gets nothing more. A socket that does not read stops the events of all, because the loop awaits
each send. A client id that is no hashable value ends the loop, and with it the process. Behaviour from ComfyUI
server.py, `websocket_handler`, `send`, `publish_loop`.
"""

import asyncio
import json
import logging
import struct
import uuid
from collections.abc import Callable
from typing import Any

from aiohttp import ClientError, WSMsgType, web

from .events import Binary

_log = logging.getLogger(__name__)


class Sockets:
    """Connected clients and the events on their way to them.

    Args:
        features: what the server says of itself when a client tells its features.
        queue_info: the current `exec_info`.
    """

    def __init__(self, features: dict[str, Any], queue_info: Callable[[], dict[str, Any]]) -> None:
        self.client_id: Any = None
        self.last_node_id: str | None = None
        self.last_prompt_id: str | None = None
        self._features = features
        self._queue_info = queue_info
        self._sockets: dict[Any, web.WebSocketResponse] = {}
        self._metadata: dict[Any, dict[str, Any]] = {}
        self._messages: asyncio.Queue[tuple[str | Binary, Any, Any]] = asyncio.Queue()

    def send(self, event: str | Binary, data: Any, client_id: Any = None) -> None:
        """See Events."""
        self._messages.put_nowait((event, data, client_id))

    def supports(self, client_id: Any, feature: str) -> bool:
        """See Events."""
        return client_id in self._metadata and self._metadata[client_id]["feature_flags"].get(feature, False) is True

    def send_status(self) -> None:
        """Tell all clients how many prompts there are."""
        self.send("status", {"status": self._queue_info()})

    async def publish(self) -> None:
        """Send for ever.

        Raises:
            TypeError: a client id was no hashable value.
        """
        while True:
            await self._send(*await self._messages.get())

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        """Serve one socket until it closes."""
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        client_id = request.rel_url.query.get("clientId", "") or uuid.uuid4().hex
        self._sockets.pop(client_id, None)
        self._sockets[client_id] = socket
        self._metadata[client_id] = {"feature_flags": {}}
        try:
            await self._send("status", {"status": self._queue_info(), "sid": client_id}, client_id)
            if self.client_id == client_id and self.last_node_id is not None:
                await self._send("executing", {"node": self.last_node_id}, client_id)
            first = True
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    first = await self._received(client_id, message.data, first=first)
        finally:
            self._sockets.pop(client_id, None)
            self._metadata.pop(client_id, None)
        return socket

    async def _received(self, client_id: str, text: str, *, first: bool) -> bool:
        """Look at a text frame; returns whether the next one is still the first that counts."""
        try:
            data = json.loads(text)
            if first and data.get("type") == "feature_flags":
                self._metadata[client_id]["feature_flags"] = data.get("data", {})
                await self._send("feature_flags", self._features, client_id)
        except Exception as error:  # noqa: BLE001  # as broad as the original: a client's frame ends nothing
            _log.warning("message of client %s: %s", client_id, error)
            return first
        return False

    async def _send(self, event: str | Binary, data: Any, client_id: Any) -> None:
        if isinstance(event, Binary):
            await self._send_frame(_packed(event, data), client_id)
        else:
            await self._send_frame(json.dumps({"type": event, "data": data}), client_id)

    async def _send_frame(self, frame: str | bytes, client_id: Any) -> None:
        if client_id is None:
            targets = list(self._sockets.values())
        elif client_id in self._sockets:
            targets = [self._sockets[client_id]]
        else:
            return
        for socket in targets:
            try:
                if isinstance(frame, str):
                    await socket.send_str(frame)
                else:
                    await socket.send_bytes(frame)
            except (ClientError, ConnectionError) as error:
                _log.warning("send error: %s", error)


def _packed(event: Binary, data: Any) -> bytes:
    if event is Binary.UNENCODED_PREVIEW:
        return struct.pack(">II", Binary.PREVIEW, data.kind) + bytes(data.data)
    if event is Binary.PREVIEW_WITH_METADATA:
        image, metadata = data
        text = json.dumps({**metadata, "image_type": image.media_type}).encode()
        return struct.pack(">II", event, len(text)) + text + bytes(image.data)
    return struct.pack(">I", event) + bytes(data)
