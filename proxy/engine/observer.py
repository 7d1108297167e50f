"""Every frame that ComfyUI sends passes here: it tells what runs, and it goes on in the client's own terms.

A frame that needs no change is passed on as the bytes it came as, and the frequent ones (progress, previews) are not
even parsed then.

For a prompt without a client id ComfyUI broadcasts progress, previews, interruptions and what custom nodes send to its
client; the other events of its own it sends to nobody. Such a prompt runs under the proxy's own id here, so that its
events are seen; they are then broadcast or suppressed by the same rule. See `twins` for what comes on all sockets.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from normalizer import WayBack, mentions_sent_id
from proxy.core.events import Outcome
from proxy.engine.early_frames import EarlyFrames
from proxy.engine.records import Handling, Record, Records, Rerun
from proxy.engine.twins import Twins
from proxy.upstream.attachment import Delivery
from proxy.wire.frames import (
    BinaryFrame,
    BinaryType,
    Frame,
    Message,
    PreviewWithMetadata,
    ProgressText,
    build_text,
    parse_binary,
    parse_text,
)

_FOR_NOBODY = frozenset(
    {"execution_start", "execution_cached", "executing", "executed", "execution_success", "execution_error"}
)
"""Text events that ComfyUI does not send when the prompt has no client id."""

_FREQUENT = '{"type": "progress_state"'
"""How frames begin that say nothing which others do not, and come with every step."""


class FrameObserver:
    """Keeps the timelines of running prompts and restores frames. All methods return at once."""

    def __init__(
        self,
        records: Records,
        *,
        clock: Callable[[], float],
        on_event: Callable[[Record, str, Mapping[str, Any]], None],
        on_end: Callable[[Record, Outcome], None],
        on_status: Callable[[int], None],
        held_remaining: Callable[[], int],
        clients: Callable[[], Iterable[str]],
    ) -> None:
        """`on_status` is told ComfyUI's `queue_remaining` whenever it is broadcast; `clients` are connected now."""
        self.own_id = ""
        self.holds = False
        """The queue is held here: what clients read of its length comes from there, not from ComfyUI's `status`."""
        self.running: Record | None = None
        self.remaining = 0
        self.visible: Callable[[int], int] = int
        """How many of the prompts in ComfyUI's queue are clients'."""
        self.takes_again: Callable[[Record], bool] = lambda _: False
        """Whether a prompt whose run has just ended is to run once more, so that this is not its end."""
        self._records = records
        self._clock = clock
        self._on_event = on_event
        self._on_end = on_end
        self._on_status = on_status
        self._twins = Twins(clients)
        self._early = EarlyFrames()
        self._for_all = False
        """The prompt that ComfyUI took last has no client id."""
        self.held_remaining = held_remaining

    def observe(self, client_id: str, frame: Frame) -> Iterable[Delivery]:
        """Take in one frame from the socket of `client_id`; what shall go to whom."""
        if self._early.waits and self._early.keep(client_id, frame, unknown=self._is_unknown(frame)):
            return ()
        return self._observe(client_id, frame)

    def came_up(self) -> None:
        """ComfyUI answers; what it has in its queue is not known yet."""
        self._early.begin()

    def queue_read(self, running: Iterable[object]) -> Iterable[Delivery]:
        """What ComfyUI has is known now, these ids running; what waited for that, and to whom it goes."""
        for prompt_id in running:
            record = self._records.get(prompt_id)
            if record is not None and self.running is None:
                self.running, self._for_all = record, record.broadcast
        for client_id, frame in self._early.take():
            yield from self._observe(client_id, frame)

    def _is_unknown(self, frame: Frame) -> bool:
        """Whether ids of ours stand in it, and nobody can say of which prompt."""
        if isinstance(frame, bytes):
            return self.running is None and mentions_sent_id(_searched(frame))
        message = parse_text(frame) if mentions_sent_id(frame) else None
        if message is None:
            return False
        prompt_id = message.data.get("prompt_id") if isinstance(message.data, dict) else None
        return (self.running if prompt_id is None else self._records.get(prompt_id)) is None

    def _observe(self, client_id: str, frame: Frame) -> Iterable[Delivery]:
        if isinstance(frame, bytes):
            return self._route_binary(client_id, frame)
        if frame.startswith(_FREQUENT) and not mentions_sent_id(frame):
            return self._route_frequent(client_id, frame)
        message = parse_text(frame)
        if message is None:
            return () if client_id == self.own_id else (Delivery(frame, client_id),)
        if message.type == "status":
            return self._held_status(client_id, message) if self.holds else self._status(client_id, message)
        again = self._again(message)
        record = self._take_in(client_id, message)
        deliveries = self._deliveries(client_id, message, record)
        again = again or self._again(message)
        if again is None:
            return deliveries
        again.held_back += deliveries
        return ()

    def _again(self, message: Message) -> Rerun | None:
        """The second run of a prompt, as long as its client is to hear nothing of it."""
        data = message.data if isinstance(message.data, dict) else {}
        record = self._records.get(data.get("prompt_id"))
        return None if record is None or record.rerun is None or record.rerun.started else record.rerun

    def _deliveries(self, client_id: str, message: Message, record: Record | None) -> Iterable[Delivery]:
        restored = self._restored(message, record)
        if message.type in _FOR_NOBODY:
            return () if client_id == self.own_id or restored is None else (Delivery(restored, client_id),)
        return self._route(client_id, message.raw, restored)

    def executing(self, client_id: str) -> str | None:
        """The node that runs now for this client, in its own terms; None if none of its prompts runs."""
        record = self.running
        if record is None or record.client_id != client_id or record.timeline.current_node is None:
            return None
        node = record.timeline.current_node
        return record.way_back.node_id(node) if record.way_back else node

    def _route_frequent(self, client_id: str, frame: str) -> Iterable[Delivery]:
        if client_id != self.own_id:
            return (Delivery(frame, client_id),)
        return (Delivery(frame, None),) if self._for_all else ()

    def _route(self, client_id: str, frame: Frame, restored: Frame | None) -> Iterable[Delivery]:
        """What may have come on several sockets, to each client once; `restored` is None for what no client sees."""
        addressee = None if self.running is None else self.running.client_id
        if client_id == self.own_id:
            besides = self._twins.on_own(frame, addressee, given=self._for_all)
            return (Delivery(restored, None, besides),) if self._for_all and restored is not None else ()
        if client_id != addressee and self._twins.on_clients(client_id, frame):
            return ()
        return () if restored is None else (Delivery(restored, client_id),)

    def _take_in(self, client_id: str, message: Message) -> Record | None:
        data = message.data if isinstance(message.data, dict) else {}
        prompt_id = data.get("prompt_id")
        record = self._records.get(prompt_id)
        if record is None and message.type == "execution_start" and isinstance(prompt_id, str):
            # Passed on as it came, and faster than the answer to its submission.
            record = Record(prompt_id, Handling.OBSERVED, client_id=client_id)
            self._records.add(record)
        if record is None:
            return self.running
        ended = record.timeline.handle(message.type, data, self._clock())
        self._on_event(record, message.type, data)
        if message.type == "execution_start":
            self.running = record
            self._for_all = record.broadcast
            self._twins.forget(client_id)
            if record.rerun is not None:
                record.rerun.started = True
        elif ended:
            self.running = None if self.running is record else self.running
            if not self.takes_again(record):
                self._on_end(record, record.timeline.outcome or Outcome.ERROR)
        return record

    def _status(self, client_id: str, message: Message) -> Iterable[Delivery]:
        """As it came, but for warm-ups, which clients know nothing of."""
        data = message.data if isinstance(message.data, dict) else {}
        self._take_status(client_id, data)
        if client_id == self.own_id:
            return ()
        remaining = _remaining(data)
        if remaining is None or self.visible(remaining) == remaining:
            return (Delivery(message.raw, client_id),)
        info = {"exec_info": {"queue_remaining": self.visible(remaining)}}
        return (Delivery(build_text("status", {**data, "status": info}), client_id),)

    def _held_status(self, client_id: str, message: Message) -> Iterable[Delivery]:
        """Only the first `status` of a socket goes on, for the id in it; the queue tells the rest itself."""
        data = message.data if isinstance(message.data, dict) else {}
        self._take_status(client_id, data)
        if client_id == self.own_id or "sid" not in data:
            return ()
        info = {"exec_info": {"queue_remaining": self.held_remaining()}}
        return (Delivery(build_text("status", {**data, "status": info}), client_id),)

    def _take_status(self, client_id: str, data: dict[str, Any]) -> None:
        if client_id != self.own_id:
            return
        remaining = _remaining(data)
        if remaining is not None:
            self.remaining = remaining
            self._on_status(remaining)

    def _restored(self, message: Message, record: Record | None) -> str | None:
        if record is not None and record.muted:
            return None
        way_back = _way_back(record)
        if way_back is None or not mentions_sent_id(message.raw):
            return message.raw
        data = way_back.event(message.data)
        return None if data is None else build_text(message.type, data)

    def _route_binary(self, client_id: str, frame: bytes) -> Iterable[Delivery]:
        way_back = _way_back(self.running)
        if way_back is None or not mentions_sent_id(_searched(frame)):
            return self._route(client_id, frame, frame)
        return self._route(client_id, frame, restore_binary(parse_binary(frame), way_back))


_TEXT = BinaryType.TEXT.to_bytes(4, "big")

_HEADER_SEARCHED = 4096
"""Bytes at the head of a preview in which node ids stand; the rest is an image."""


def _searched(frame: bytes) -> bytes:
    """The part of a binary frame in which node ids can stand."""
    return frame if frame.startswith(_TEXT) else frame[:_HEADER_SEARCHED]


def restore_binary(frame: BinaryFrame, way_back: WayBack) -> bytes | None:
    """A binary frame in the client's terms; None if it is about a pin."""
    if isinstance(frame, ProgressText):
        if way_back.is_pin(frame.node_id):
            return None
        text = way_back.text(frame.text.decode(errors="surrogateescape")).encode(errors="surrogateescape")
        return ProgressText(way_back.node_id(frame.node_id), text).build()
    if isinstance(frame, PreviewWithMetadata):
        metadata = way_back.event(frame.metadata)
        return None if metadata is None else replace(frame, metadata=metadata).build()
    return frame.build()


def _remaining(data: Mapping[str, Any]) -> int | None:
    """`queue_remaining` in the data of a `status`."""
    status = data.get("status")
    info = status.get("exec_info") if isinstance(status, dict) else None
    remaining = info.get("queue_remaining") if isinstance(info, dict) else None
    return remaining if isinstance(remaining, int) else None


def _way_back(record: Record | None) -> WayBack | None:
    return None if record is None else record.way_back
