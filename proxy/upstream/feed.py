"""All WebSockets to one ComfyUI, one for each client id, and one of the proxy's own.

Events matter twice: to the client, and to the engine that must know what runs, what was cached and what has ended.
Both get them from the same socket, the engine first: each frame passes through its observer, which says what goes to
whom. See `bridge` for why there must be one socket per id, and who owns it.

The proxy's own socket stands in for clients without an id, sees what is broadcast, and tells whether ComfyUI is there.
"""

import asyncio
import logging
import random
import secrets
from collections.abc import Awaitable, Callable, Iterable

from proxy.errors import ShuttingDown
from proxy.tasks import Tasks
from proxy.upstream.attachment import Attachment, CallLater, Delivery, Observer, Sink
from proxy.upstream.bridge import Bridge, Surroundings
from proxy.upstream.dial import Knock, dial
from proxy.wire.frames import Frame

log = logging.getLogger(__name__)

_GOING_AWAY = 1001
_SERVICE_RESTART = 1012

OWN_PREFIX = "comfykeep-"
"""How the proxy's own client ids begin."""


class Feed:
    """The registry of bridges. `start` it inside the running loop, `close` it once."""

    def __init__(
        self,
        base_url: str,
        observer: Observer,
        *,
        linger: float = 30.0,
        patience: float = 10.0,
        call_later: CallLater | None = None,
        rng: Callable[[], float] = random.random,
        own_headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        """`base_url` is ComfyUI's, http or https.

        `linger` is how long (seconds) a client's socket outlives its last prompt, `patience` how long a client waits
        for ComfyUI's answer to its handshake before it is let in to wait inside. `own_headers` go with the proxy's
        own handshake, for a ComfyUI that asks for credentials.
        """
        self.own_id = OWN_PREFIX + secrets.token_hex(8)
        self._observer = observer
        self._own_headers = own_headers
        self._tasks = Tasks()
        self._named: dict[str, Bridge] = {}
        self._running: dict[Bridge, asyncio.Task[None]] = {}
        self._where: dict[Attachment, Bridge] = {}
        self._closing = False
        self._up = False
        self._around = Surroundings(
            dial=lambda knock: dial(base_url, knock),
            observer=observer,
            deliver=self.deliver,
            named=self._on_named,
            ended=self._on_ended,
            call_later=call_later or (lambda delay, callback: asyncio.get_running_loop().call_later(delay, callback)),
            random=rng,
            linger=linger,
            patience=patience,
        )

    @property
    def up(self) -> bool:
        """Whether the proxy's own socket to ComfyUI stands."""
        return self._up

    def connected(self) -> frozenset[str]:
        """The ids of all clients that are connected here."""
        return frozenset(client_id for client_id, bridge in self._named.items() if bridge.attachments)

    async def start(self) -> None:
        """Open the proxy's own socket, and keep it open from now on. Does not wait for it."""
        knock = Knock("/ws", self._own_headers).under(self.own_id)
        self._launch(Bridge(self._around, knock, permanent=True, on_link=self._on_own_link))

    async def attach(self, knock: Knock, sink: Sink) -> tuple[Attachment, list[tuple[str, str]]]:
        """A client opens a WebSocket. Returns when it may be told so, with the headers of ComfyUI's 101, if any.

        Frames may be put into `sink` before this returns. The caller must `detach` in the end.

        Raises RefusedError if ComfyUI refuses the client, ShuttingDown after `close`. If ComfyUI is not there the
        client is let in and bridged later.
        """
        if self._closing:
            raise ShuttingDown
        attachment = Attachment(knock, sink)
        bridge = self._bridge(knock)
        self._where[attachment] = bridge
        bridge.attach(attachment)
        try:
            return attachment, await attachment.answer
        except BaseException:
            self.detach(attachment)
            raise

    def detach(self, attachment: Attachment) -> None:
        """The client has gone. May be called again."""
        bridge = self._where.pop(attachment, None)
        if bridge is not None:
            bridge.detach(attachment)

    async def send(self, attachment: Attachment, frame: Frame) -> None:
        """Pass a client's frame on to ComfyUI."""
        bridge = self._where.get(attachment)
        if bridge is not None:
            await bridge.send(attachment, frame)

    def hold(self, client_id: str, knock: Knock | None = None) -> asyncio.Future[bool]:
        """A prompt of this client is outstanding: its events must be seen although no client may be connected.

        To be paired with `release`. `knock` carries the credentials of the submission (target `/ws` with the query of
        the submission, and its Host, Cookie and Authorization headers). The result tells whether the socket is ready,
        so that no event of a prompt submitted after it is missed; false means that ComfyUI is away or has refused, or
        that the id is empty, for which ComfyUI sends nothing.
        """
        if not client_id:
            never: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            never.set_result(False)
            return never
        knock = (knock or Knock("/ws")).under(client_id)
        return self._bridge(knock).hold(knock)

    def release(self, client_id: str) -> None:
        """A prompt of this client has come to its end."""
        bridge = self._named.get(client_id)
        if bridge is not None:
            bridge.release()

    def deliver(self, deliveries: Iterable[Delivery]) -> None:
        """Give frames to clients. Those whose client is not connected are dropped, as ComfyUI drops them."""
        for delivery in deliveries:
            if delivery.client_id is None:
                for bridge in self._bridges():
                    if bridge.client_id not in delivery.besides:
                        bridge.put(delivery.frame)
            elif (addressee := self._named.get(delivery.client_id)) is not None:
                addressee.put(delivery.frame)

    def witness(self) -> Callable[[], Awaitable[bool]]:
        """A question to ask later: has ComfyUI been one and the same process since now? In doubt it has not."""
        return self._named[self.own_id].witness()

    def upstream_restarted(self) -> None:
        """A new ComfyUI process has taken the place of one that crashed.

        Pages are closed with 1012, so that they reload their node definitions; other clients stay and are bridged anew.
        """
        for attachment in list(self._where):
            if attachment.is_page:
                attachment.sink.close(_SERVICE_RESTART, "ComfyUI has been restarted")

    async def close(self, grace: float = 5.0) -> None:
        """Deliver what is buffered, close clients with 1001 and the sockets to ComfyUI. May be called again.

        Clients get `grace` seconds to take their last frames, ComfyUI gets as long to close.
        """
        self._closing = True
        for bridge in self._bridges():
            for attachment in bridge.attachments:
                if not attachment.refuse(ShuttingDown()):
                    attachment.sink.close(_GOING_AWAY, "comfykeep is shutting down")
        await self._all_gone(grace)
        for attachment in list(self._where):
            attachment.sink.abort()
        for bridge in self._bridges():
            bridge.stop()
        if self._running:
            await asyncio.wait(self._running.values(), timeout=grace)
        await self._tasks.close()

    async def _all_gone(self, grace: float) -> None:
        try:
            async with asyncio.timeout(grace):
                for attachment in list(self._where):
                    await attachment.gone.wait()
        except TimeoutError:
            log.warning("%d clients did not take their last frames", len(self._where))

    def _bridge(self, knock: Knock) -> Bridge:
        bridge = self._named.get(knock.client_id)
        return bridge if bridge is not None else self._launch(Bridge(self._around, knock))

    def _launch(self, bridge: Bridge) -> Bridge:
        if bridge.client_id is not None:
            self._named[bridge.client_id] = bridge
        self._running[bridge] = self._tasks.spawn(bridge.run(), f"bridge {bridge.client_id or 'without id'}")
        return bridge

    def _bridges(self) -> list[Bridge]:
        return list(self._running)

    def _on_named(self, bridge: Bridge, client_id: str) -> None:
        self._named.setdefault(client_id, bridge)

    def _on_ended(self, bridge: Bridge) -> None:
        self._running.pop(bridge, None)
        if bridge.client_id is not None and self._named.get(bridge.client_id) is bridge:
            del self._named[bridge.client_id]

    def _on_own_link(self, up: bool) -> None:
        self._up = up
        if up:
            for bridge in self._bridges():
                bridge.wake()
        try:
            self._observer.on_upstream(up)
        except Exception:
            # the socket that tells must outlive whoever is told
            log.exception("a change of ComfyUI's presence could not be handled")
