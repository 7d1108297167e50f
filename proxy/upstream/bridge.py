"""One client id's socket to ComfyUI, and who listens to it.

ComfyUI keeps one socket per client id. A second one takes its place, and when the first closes after that, ComfyUI
forgets the *second*: it goes deaf (server.py, `websocket_handler`: both handlers pop the same key). Clients reload
pages, open a second tab, submit before they connect, go away while their prompt runs. So there is one owner for each
id's socket, the `run` loop below: it opens the socket when somebody needs it, hands it from client to client, and
before it opens another it closes the old one to the end. Nothing else opens or closes.

Who needs a socket: a client that is attached (the newest of several listens, as in ComfyUI), a prompt that is
outstanding, and for a while after that. What decides between keeping and reopening when a client comes:

* ComfyUI reads `feature_flags` only as a socket's first text frame. If an earlier client has said something on it, the
  newcomer needs a new one.
* A socket opened with other credentials was judged for somebody else. The newcomer must be judged itself.
* Otherwise it is handed over, with the greeting that ComfyUI would have sent.

A handshake is never given up while ComfyUI's side of the connection is alive, however long it takes: ComfyUI would
carry it out later, and its end would make the next socket deaf. Who waits for it stops waiting after `patience`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from proxy.errors import ShuttingDown, UpstreamUnreachable
from proxy.upstream.attachment import Attachment, CallLater, Delivery, Observer
from proxy.upstream.backoff import Backoff
from proxy.upstream.dial import Knock, RefusedError, answer_headers
from proxy.upstream.hold import Hold
from proxy.upstream.link import Link
from proxy.wire.frames import Frame, parse_text
from proxy.wire.headers import HeaderList

log = logging.getLogger(__name__)

_POLICY_VIOLATION = 1008
_INTERNAL_ERROR = 1011


@dataclass
class Surroundings:
    """What all bridges share. Times are in seconds."""

    dial: Callable[[Knock], Awaitable[ClientConnection]]
    observer: Observer
    deliver: Callable[[Iterable[Delivery]], None]
    named: Callable[["Bridge", str], None]
    """Told when ComfyUI has invented an id for a client that came without."""
    ended: Callable[["Bridge"], None]
    call_later: CallLater
    random: Callable[[], float]
    linger: float
    patience: float


class Bridge:
    """The owner of one client id's upstream socket."""

    def __init__(
        self,
        around: Surroundings,
        knock: Knock,
        *,
        permanent: bool = False,
        on_link: Callable[[bool], None] | None = None,
    ) -> None:
        """`knock` serves when no client is there. A `permanent` bridge is kept without anybody needing it."""
        self._around = around
        self.client_id: str | None = knock.client_id or None
        self._permanent = permanent
        self._on_link = on_link
        self._attachments: list[Attachment] = []
        self._listener: Attachment | None = None
        self._hold = Hold(knock, around.call_later, self.wake)
        self._link: Link | None = None
        self._wake = asyncio.Event()
        self._stopped = False
        self._backoff = Backoff(around.random)

    # what the feed asks for

    @property
    def attachments(self) -> tuple[Attachment, ...]:
        """All clients that are attached, oldest first."""
        return tuple(self._attachments)

    def attach(self, attachment: Attachment) -> None:
        """A client has come. `attachment.answer` tells when its handshake may be answered."""
        self._attachments.append(attachment)
        timer = self._around.call_later(self._around.patience, lambda: self._admit(attachment, []))
        attachment.answer.add_done_callback(lambda _: timer.cancel())
        self._wake.set()

    def detach(self, attachment: Attachment) -> None:
        """A client has gone, or was refused. May be called again."""
        if attachment in self._attachments:
            self._attachments.remove(attachment)
        if self._listener is attachment:
            self._listener = None
        attachment.gone.set()
        self._wake.set()

    def hold(self, knock: Knock) -> asyncio.Future[bool]:
        """A prompt is outstanding: keep or open a socket. The result tells whether events will be seen on it."""
        self._hold.take()
        if not self._permanent:
            self._hold.knock = knock
        ready = self._hold.wait(self._around.patience)
        if self._link is not None and self._link.greeted and not self._link.lost:
            self._hold.answer(ready=True)
        self._wake.set()
        return ready

    def release(self) -> None:
        """A prompt has come to its end. The last one's socket stays for `linger` seconds."""
        self._hold.give(self._around.linger)

    def put(self, frame: Frame) -> None:
        """Give a frame to the client that listens, if one does."""
        if self._listener is not None:
            self._listener.sink.put(frame)

    async def send(self, attachment: Attachment, frame: Frame) -> None:
        """Pass a client's frame on to ComfyUI; kept until it can be, dropped if another client has taken over."""
        is_flags = attachment.is_flags(frame)
        link = self._link
        if link is not None and link.bridged is attachment:
            await link.transmit(attachment, frame)
        elif not is_flags and attachment in (self._listener, self._candidate()):
            attachment.keep(frame)

    def witness(self) -> Callable[[], Awaitable[bool]]:
        """A question to ask later: has ComfyUI been one and the same process since now, as its socket still answers?"""
        link = self._link

        async def same() -> bool:
            return link is not None and await link.alive()

        return same

    def wake(self) -> None:
        """Try again now, if it is waiting to."""
        self._wake.set()

    def stop(self) -> None:
        """Nobody needs it any more, whatever they said."""
        self._stopped = True
        for attachment in self._attachments:
            attachment.refuse(ShuttingDown())
        self._wake.set()

    # the owner

    async def run(self) -> None:
        """Keep the socket as long as somebody needs it."""
        try:
            while self._needed():
                link = await self._open()
                if link is None:
                    continue
                await self._serve(link)
                if link.lost and self._needed():
                    await self._pause("closed it")
        finally:
            self._hold.end()
            for attachment in self.attachments:
                if not attachment.refuse(ShuttingDown()):
                    attachment.sink.close(_INTERNAL_ERROR, "the bridge to ComfyUI has ended")
            self._around.ended(self)

    def _needed(self) -> bool:
        wanted = self._permanent or self._attachments or self._hold.needed
        return bool(wanted) and not self._stopped

    def _candidate(self) -> Attachment | None:
        """Who the socket is for: the first whose handshake is not answered, else the newest."""
        pending = next((attachment for attachment in self._attachments if not attachment.answer.done()), None)
        return pending or self._listener or (self._attachments[-1] if self._attachments else None)

    def _admit(self, attachment: Attachment, headers: HeaderList) -> None:
        if attachment in self._attachments:
            attachment.admit(headers)
            self._listener = attachment

    async def _open(self) -> Link | None:
        """Open a socket for whoever is next; None if that failed, after a pause where one is due."""
        self._wake.clear()
        attachment = self._candidate()
        knock = attachment.knock if attachment is not None else self._hold.knock
        if self.client_id is not None:
            knock = knock.under(self.client_id)
        try:
            connection = await self._around.dial(knock)
        except RefusedError as error:
            if not self._refused(attachment, error):
                await self._pause(f"refused it with {error}")
            return None
        except UpstreamUnreachable as error:
            for waiting in [each for each in self._attachments if not each.answer.done()]:
                self._admit(waiting, [])
            self._hold.answer(ready=False)
            await self._pause(error.why)
            return None
        return Link(connection, knock, attachment)

    def _refused(self, attachment: Attachment | None, error: RefusedError) -> bool:
        """Tell whom it concerns; whether that settles it, so that others may be served without a pause."""
        if attachment is None:
            self._hold.answer(ready=False)
            return False
        if not attachment.refuse(error):
            if error.refusal.temporary:
                return False
            attachment.sink.close(_POLICY_VIOLATION, f"ComfyUI refused the connection: {error}")
        self.detach(attachment)
        return True

    async def _pause(self, why: str) -> None:
        delay = self._backoff.next()
        log.debug("no socket to ComfyUI for %s (%s); trying again in %.2f s", self.client_id, why, delay)
        timer = self._around.call_later(delay, self._wake.set)
        await self._wake.wait()
        timer.cancel()

    async def _serve(self, link: Link) -> None:
        """Use a socket until it is lost, not needed, or of no use to who is next. It is closed to the end then."""
        self._link = link
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read(link))
                self._report(up=True)
                while True:
                    self._wake.clear()
                    if not await self._settle(link):
                        break
                    await self._wake.wait()
                await link.connection.close()
        finally:
            link.connection.transport.abort()
            self._link = None
            self._report(up=False)

    def _report(self, *, up: bool) -> None:
        if self._on_link is not None:
            self._on_link(up)

    async def _settle(self, link: Link) -> bool:
        """Connect whoever is next to the socket; false if the socket cannot stay."""
        while self._needed() and not link.lost:
            attachment = self._candidate()
            if attachment is None or attachment is link.bridged:
                return True
            if link.bridged in self._attachments and not link.greeted:
                return True  # its `status` is still on the way, and nobody else's
            if link.speaker not in (None, attachment):
                return False
            if attachment is link.opened_for:
                self._admit(attachment, answer_headers(link.connection))
            elif attachment.knock.credentials != link.knock.credentials:
                return False
            else:
                self._hand_over(link, attachment)
            await self._catch_up(link, attachment)
        return False

    def _hand_over(self, link: Link, attachment: Attachment) -> None:
        """Admit with a greeting; not needed where the client was admitted before or ComfyUI's own is on its way."""
        if link.greeted and not attachment.answer.done() and self.client_id is not None:
            try:
                for frame in self._around.observer.greeting(self.client_id):
                    attachment.sink.put(frame)
            except Exception:
                log.exception("no greeting for %s", self.client_id)
        self._admit(attachment, [])

    async def _catch_up(self, link: Link, attachment: Attachment) -> None:
        """Say what the client said while there was no socket, or on an earlier one if it was `feature_flags`."""
        if attachment.flags is not None:
            await link.transmit(attachment, attachment.flags)
        while (frame := attachment.kept()) is not None:
            await link.transmit(attachment, frame)
        link.bridged = attachment

    async def _read(self, link: Link) -> None:
        try:
            while True:
                self._take(link, await link.connection.recv())
        except ConnectionClosed as error:
            log.debug("socket to ComfyUI for %s closed: %s", self.client_id, error)
        finally:
            link.lost = True
            self._wake.set()

    def _take(self, link: Link, frame: Frame) -> None:
        if self.client_id is None:
            self._learn_id(frame)
        if not link.greeted:
            link.greeted = True
            self._backoff.reset()
            self._hold.answer(ready=True)
            self._wake.set()
        if self.client_id is None:
            self.put(frame)
            return
        try:
            deliveries = self._around.observer.on_frame(self.client_id, frame)
        except Exception:
            # what is not understood passes; a reader that stops would leave the client deaf
            log.exception("a frame for %s could not be handled", self.client_id)
            deliveries = [Delivery(frame, self.client_id)]
        self._around.deliver(deliveries)

    def _learn_id(self, frame: Frame) -> None:
        message = parse_text(frame) if isinstance(frame, str) else None
        if message is None or message.type != "status" or not isinstance(message.data, dict):
            return
        sid = message.data.get("sid")
        if isinstance(sid, str) and sid:
            self.client_id = sid
            self._around.named(self, sid)
