"""What the feed and the two sides of it agree on: frames go to sinks, an observer sees them first."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from proxy.upstream.dial import Knock
from proxy.wire.frames import Frame, parse_text
from proxy.wire.headers import HeaderList

_BACKLOG_LIMIT = 1 << 20
"""Bytes kept for ComfyUI while it is away. It reads a client's first frame only; the rest is courtesy."""


class Sink(Protocol):
    """Where frames for one client go. No method blocks: nobody waits for a client that does not read."""

    def put(self, frame: Frame) -> None:
        """Take a frame for the client, or drop the client if it is too far behind."""

    def close(self, code: int, reason: str) -> None:
        """Close with a WebSocket close code when all frames taken so far have been written."""

    def abort(self) -> None:
        """Drop the client at once."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A frame for the client with this id, or for every connected client but those `besides` if there is none."""

    frame: Frame
    client_id: str | None
    besides: frozenset[str] = frozenset()


class Observer(Protocol):
    """The engine's side. Every method is called from the reader and must return at once."""

    def on_frame(self, client_id: str, frame: Frame) -> Iterable[Delivery]:
        """A frame came on the socket of `client_id`: what shall go to whom."""

    def greeting(self, client_id: str) -> Iterable[Frame]:
        """What ComfyUI would send first on a new socket of `client_id`: `status` with `sid`, `executing` if it runs."""

    def on_upstream(self, up: bool) -> None:
        """ComfyUI's WebSocket answers, or has stopped to."""


class Timer(Protocol):
    """What `call_later` gives back."""

    def cancel(self) -> None:
        """Do not call."""


CallLater = Callable[[float, Callable[[], None]], Timer]
"""As `loop.call_later`, seconds."""


class Attachment:
    """One client's WebSocket, as the feed knows it. `gone` is set when the feed has let go of it."""

    def __init__(self, knock: Knock, sink: Sink) -> None:
        self.knock = knock
        self.sink = sink
        self.gone = asyncio.Event()
        self.answer: asyncio.Future[HeaderList] = asyncio.get_running_loop().create_future()
        """Set when the client's handshake may be answered: with the headers of ComfyUI's 101, or its refusal."""
        self.flags: str | None = None
        """The client's opening `feature_flags`, said again on each new socket."""
        self._spoke = False
        self._backlog: deque[Frame] = deque()
        self._backlog_size = 0

    @property
    def is_page(self) -> bool:
        """Whether the client negotiated features, as ComfyUI's web page does."""
        return self.flags is not None

    def admit(self, headers: HeaderList) -> None:
        """Let the handshake be answered, if it is not yet."""
        if not self.answer.done():
            self.answer.set_result(headers)

    def refuse(self, error: Exception) -> bool:
        """Let the handshake be refused; false if it was answered before."""
        if self.answer.done():
            return False
        self.answer.set_exception(error)
        return True

    def is_flags(self, frame: Frame) -> bool:
        """Note what the client says; true for `feature_flags`, which ComfyUI heeds only as the first text frame."""
        if self._spoke or not isinstance(frame, str):
            return False
        self._spoke = True
        message = parse_text(frame)
        if message is None or message.type != "feature_flags":
            return False
        self.flags = frame
        return True

    def keep(self, frame: Frame) -> None:
        """Keep a frame for ComfyUI until there is a socket to it. Too much of it is dropped."""
        if self._backlog_size + len(frame) <= _BACKLOG_LIMIT:
            self._backlog.append(frame)
            self._backlog_size += len(frame)

    def kept(self) -> Frame | None:
        """The oldest frame kept, taken out."""
        if not self._backlog:
            return None
        frame = self._backlog.popleft()
        self._backlog_size -= len(frame)
        return frame
