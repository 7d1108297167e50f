"""Frames about prompts that an earlier proxy sent, before this one has read how to put them into the client's terms.

A client that reconnects is told by ComfyUI which node runs, at once, and the next events follow. What they need to be
restored rides in ComfyUI's queue, which is read first of all; until then they wait, and what comes behind them.
"""

from proxy.wire.frames import Frame

_LIMIT = 16 << 20
"""Bytes that are kept; what is beyond them is lost to a client, as it is while nobody listens."""


class EarlyFrames:
    """What waits, by client, in the order in which it came."""

    def __init__(self) -> None:
        self._kept: list[tuple[str, Frame]] = []
        self._clients: set[str] = set()
        self._size = 0
        self.waits = True
        """ComfyUI's queue has not been read yet."""

    def keep(self, client_id: str, frame: Frame, *, unknown: bool) -> bool:
        """Keep a frame that is `unknown`, or comes behind one for this client; whether it is to wait."""
        if not self.waits or not (unknown or client_id in self._clients):
            return False
        self._clients.add(client_id)
        if self._size + len(frame) <= _LIMIT:
            self._size += len(frame)
            self._kept.append((client_id, frame))
        return True

    def begin(self) -> None:
        """ComfyUI has come up."""
        self.take()
        self.waits = True

    def take(self) -> list[tuple[str, Frame]]:
        """ComfyUI's queue has been read: all that was kept, with the clients for whom it came."""
        kept, self._kept = self._kept, []
        self._clients.clear()
        self._size = 0
        self.waits = False
        return kept
