"""What ComfyUI broadcasts comes on every socket, and shall reach each client once.

An event for the client of a prompt that has none goes to everybody. Here such a prompt runs under the proxy's own id,
so the event comes on the proxy's socket alone and has to be given to all from there. An event that was broadcast comes
there too, and on each client's own socket besides; the two cannot be told apart. So the first copy is delivered,
whichever it is, and its twin is not.
"""

from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from proxy.wire.frames import Frame

_REMEMBERED = 64
"""Frames per client whose twin may still come; copies arrive within moments of each other."""


@dataclass(slots=True)
class _Unmatched:
    """Copies of one frame, for one client, whose twin has not come."""

    own: deque[bool] = field(default_factory=deque)
    """Those that came on the proxy's socket, oldest first: whether the client was given it."""
    clients: int = 0
    """How many came on the client's own socket."""


class Twins:
    """Tells, for each client, which of the frames that come on both sockets were delivered already."""

    def __init__(self, clients: Callable[[], Iterable[str]]) -> None:
        """`clients` gives the ids of those that are connected now."""
        self._clients = clients
        self._unmatched: defaultdict[str, OrderedDict[Frame, _Unmatched]] = defaultdict(OrderedDict)

    def on_own(self, frame: Frame, addressee: str | None, *, given: bool) -> frozenset[str]:
        """A frame came on the proxy's socket; who has got it from a socket of their own.

        `given` says that all others get it now. The `addressee` of the running prompt is left out: what it is sent
        mostly has no twin.
        """
        clients = frozenset(self._clients())
        for gone in self._unmatched.keys() - clients:
            del self._unmatched[gone]
        return frozenset(client for client in clients - {addressee} if self._on_own(client, frame, given=given))

    def _on_own(self, client_id: str, frame: Frame, *, given: bool) -> bool:
        copies = self._copies(client_id, frame)
        if copies.clients:
            copies.clients -= 1
            return True
        copies.own.append(given)
        return False

    def on_clients(self, client_id: str, frame: Frame) -> bool:
        """A frame came on this client's socket; whether the client was given its twin."""
        copies = self._copies(client_id, frame)
        if copies.own:
            return copies.own.popleft()
        copies.clients += 1
        return False

    def forget(self, client_id: str) -> None:
        """A prompt of this client's own begins: what is addressed to it has no twin."""
        self._unmatched.pop(client_id, None)

    def _copies(self, client_id: str, frame: Frame) -> _Unmatched:
        frames = self._unmatched[client_id]
        copies = frames.setdefault(frame, _Unmatched())
        frames.move_to_end(frame)
        while len(frames) > _REMEMBERED:
            frames.popitem(last=False)
        return copies
