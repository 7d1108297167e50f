"""A feed with a clock that stands still, an observer that passes everything on, and sinks that remember."""

import heapq
import itertools
import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from proxy.upstream.attachment import Attachment, Delivery
from proxy.upstream.dial import Knock
from proxy.upstream.feed import Feed
from proxy.wire.frames import Frame
from tests.rawhttp import until


class Clock:
    """`call_later` by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Alarm]] = []
        self._order = itertools.count()

    def call_later(self, delay: float, callback: Callable[[], None]) -> "Alarm":
        alarm = Alarm(callback)
        heapq.heappush(self._due, (self.now + delay, next(self._order), alarm))
        return alarm

    def pending(self) -> int:
        return sum(not alarm.cancelled for _, _, alarm in self._due)

    def until_next(self) -> float:
        """Seconds until the next callback."""
        return min(due for due, _, alarm in self._due if not alarm.cancelled) - self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds
        while self._due and self._due[0][0] <= self.now:
            _, _, alarm = heapq.heappop(self._due)
            if not alarm.cancelled:
                alarm.callback()


@dataclass
class Alarm:
    callback: Callable[[], None]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class Memory:
    """A sink that remembers. Told to close or abort, it leaves, as a client would."""

    feed: "Feed | None" = None
    attachment: Attachment | None = None
    frames: list[Frame] = field(default_factory=list)
    code: int | None = None
    aborted: bool = False

    def put(self, frame: Frame) -> None:
        self.frames.append(frame)

    def close(self, code: int, _reason: str) -> None:
        if self.code is None:
            self.code = code
            self._leave()

    def abort(self) -> None:
        self.aborted = True
        self._leave()

    def _leave(self) -> None:
        if self.feed is not None and self.attachment is not None:
            self.feed.detach(self.attachment)

    def kinds(self) -> list[str]:
        return [json.loads(frame)["type"] for frame in self.frames if isinstance(frame, str)]


@dataclass
class Witness:
    """An observer that passes everything on to the client it came for."""

    seen: list[tuple[str, Frame]] = field(default_factory=list)
    ups: list[bool] = field(default_factory=list)
    greetings: list[str] = field(default_factory=list)
    rule: Callable[[str, Frame], Iterable[Delivery]] | None = None

    def on_frame(self, client_id: str, frame: Frame) -> Iterable[Delivery]:
        self.seen.append((client_id, frame))
        return self.rule(client_id, frame) if self.rule else [Delivery(frame, client_id)]

    def greeting(self, client_id: str) -> Iterable[Frame]:
        self.greetings.append(client_id)
        return [json.dumps({"type": "status", "data": {"sid": client_id, "ours": True}})]

    def on_upstream(self, up: bool) -> None:
        self.ups.append(up)

    def kinds(self, client_id: str) -> list[str]:
        return [json.loads(frame)["type"] for seen, frame in self.seen if seen == client_id and isinstance(frame, str)]


async def connect(feed: Feed, knock: Knock) -> tuple[Memory, list[tuple[str, str]]]:
    """A client connects; with the headers of its 101."""
    sink = Memory(feed)
    sink.attachment, headers = await feed.attach(knock, sink)
    return sink, headers


@dataclass
class Rig:
    feed: Feed
    clock: Clock
    witness: Witness

    async def come(self, client_id: str = "", *headers: tuple[str, str], query: str = "") -> Memory:
        """A client connects."""
        parts = [part for part in (f"clientId={client_id}" if client_id else "", query) if part]
        knock = Knock("/ws" + ("?" + "&".join(parts) if parts else ""), headers)
        return (await connect(self.feed, knock))[0]

    def go(self, sink: Memory) -> None:
        """A client leaves."""
        assert sink.attachment is not None
        self.feed.detach(sink.attachment)

    async def say(self, sink: Memory, kind: str, **data: Any) -> None:
        assert sink.attachment is not None
        await self.feed.send(sink.attachment, json.dumps({"type": kind, "data": data}))

    async def hears(self, sink: Memory, kind: str, times: int = 1) -> None:
        await until(lambda: sink.kinds().count(kind) >= times)

    async def retries_until(self, condition: Callable[[], bool]) -> None:
        """Let time pass, in steps, until the condition holds."""

        def tick() -> bool:
            self.clock.advance(1.0)
            return condition()

        await until(tick)


@asynccontextmanager
async def feeding(url: str, *, start: bool = True) -> AsyncIterator[Rig]:
    clock, witness = Clock(), Witness()
    feed = Feed(url, witness, linger=30.0, patience=10.0, call_later=clock.call_later, rng=lambda: 0.5)
    rig = Rig(feed, clock, witness)
    if start:
        await feed.start()
    try:
        yield rig
    finally:
        await feed.close(grace=1.0)
