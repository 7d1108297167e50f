"""One ``/ws`` connection as a client sees it: every frame kept, in the order of arrival."""

import asyncio
import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

PATIENCE = 30.0
"""Seconds until a wait gives up. Only a failing test ever waits that long."""

PREVIEW, TEXT, PREVIEW_WITH_METADATA = 1, 3, 4
"""Kinds of binary frames (ComfyUI protocol.py)."""


@dataclass(frozen=True)
class Event:
    """One text frame: ``{"type": kind, "data": data}``."""

    kind: str
    data: dict[str, Any]


@dataclass(frozen=True)
class Binary:
    """One binary frame: four bytes of kind, then the payload."""

    kind: int
    payload: bytes

    def split(self) -> tuple[bytes, bytes]:
        """Take a length-prefixed head off the payload (kinds TEXT and PREVIEW_WITH_METADATA)."""
        (length,) = struct.unpack(">I", self.payload[:4])
        return self.payload[4 : 4 + length], self.payload[4 + length :]


Frame = Event | Binary


def parse_frame(message: str | bytes) -> Frame:
    if isinstance(message, str):
        body = json.loads(message)
        return Event(body["type"], body["data"])
    (kind,) = struct.unpack(">I", message[:4])
    return Binary(kind, message[4:])


class Socket:
    """One ``/ws`` connection; ``frames`` holds everything that came, oldest first."""

    def __init__(self, connection: ClientConnection, client_id: str | None) -> None:
        self.connection = connection
        self.client_id = client_id
        self.frames: list[Frame] = []
        self._arrived = asyncio.Condition()
        self._closed = False
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            async for message in self.connection:
                await self._note(parse_frame(message))
        except ConnectionClosed:
            pass
        finally:
            await self._note(None)

    async def _note(self, frame: Frame | None) -> None:
        async with self._arrived:
            if frame is None:
                self._closed = True
            else:
                self.frames.append(frame)
            self._arrived.notify_all()

    async def send(self, message: object) -> None:
        await self.connection.send(json.dumps(message))

    async def until(self, wanted: Callable[[Sequence[Frame]], bool]) -> list[Frame]:
        """All frames so far, as soon as ``wanted`` is true of them.

        Raises:
            AssertionError: it did not become true in time, or the socket closed first.
        """
        try:
            async with asyncio.timeout(PATIENCE), self._arrived:
                await self._arrived.wait_for(lambda: wanted(self.frames) or self._closed)
        except TimeoutError:
            raise AssertionError(f"waited {PATIENCE} s, got only {self.frames}") from None
        if not wanted(self.frames):
            raise AssertionError(f"the socket closed after {self.frames}")
        return list(self.frames)

    async def until_event(self, kind: str, **data: Any) -> Event:
        """The first event of a kind whose data contains these items, waiting for it when it has not come yet."""

        def fits(frame: Frame) -> bool:
            return isinstance(frame, Event) and frame.kind == kind and data.items() <= frame.data.items()

        frames = await self.until(lambda frames: any(map(fits, frames)))
        return next(frame for frame in frames if isinstance(frame, Event) and fits(frame))

    async def until_done(self, prompt_id: str) -> list[Frame]:
        """All frames up to the one that ends a prompt: ``executing`` with no node, sent last by ComfyUI's worker."""
        await self.until_event("executing", node=None, prompt_id=prompt_id)
        return list(self.frames)

    def events(self, prompt_id: str) -> list[Event]:
        """The events that name this prompt, so far."""
        return [f for f in self.frames if isinstance(f, Event) and f.data.get("prompt_id") == prompt_id]

    def named(self, kind: str) -> list[Event]:
        """The events of one kind, so far."""
        return [f for f in self.frames if isinstance(f, Event) and f.kind == kind]

    def binaries(self) -> list[Binary]:
        return [f for f in self.frames if isinstance(f, Binary)]

    async def close(self) -> None:
        await self.connection.close()
        await self._reader
