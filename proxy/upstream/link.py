"""One upstream socket, and what its owner must remember of it."""

import logging
from dataclasses import dataclass

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from proxy.upstream.attachment import Attachment
from proxy.upstream.dial import Knock
from proxy.wire.frames import Frame

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Link:
    """A socket to ComfyUI, opened for one client and handed from one to the next."""

    connection: ClientConnection
    knock: Knock
    opened_for: Attachment | None
    bridged: Attachment | None = None
    speaker: Attachment | None = None
    """Who has sent a text frame on it."""
    greeted: bool = False
    """Whether ComfyUI has sent something, and so knows the id for certain."""
    lost: bool = False

    async def transmit(self, attachment: Attachment, frame: Frame) -> None:
        """Pass a client's frame on to ComfyUI; dropped if ComfyUI is gone."""
        if isinstance(frame, str):
            self.speaker = attachment
        try:
            await self.connection.send(frame)
        except ConnectionClosed:
            log.debug("ComfyUI went away before a client's frame reached it")

    async def alive(self) -> bool:
        """Whether ComfyUI still answers on this very socket."""
        if self.lost:
            return False
        try:
            await (await self.connection.ping())
        except ConnectionClosed:
            return False
        return True
