"""One client's five hundred prompts must not bury another's two.

Taking turns would be fair and slow: two clients with two models would force a switch at every prompt. So fairness is a
bound: each client is charged the seconds its prompts run, and only when one is ahead of another that waits by more than
`quantum` seconds is it held back, until the others have caught up. In between, residency is free to choose.

Who comes new, or comes back, starts level with the one who has had least: idleness earns no credit, so nobody can save
up for a flood.
"""

from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass, field

IDLE_KEPT = 1_000
"""So many clients may be remembered before those that would start like newcomers anyway are dropped."""


@dataclass(slots=True)
class _Group:
    """The clients that wait in one priority, by what they have had; and those of them that are held back."""

    clients: list[tuple[float, str]] = field(default_factory=list)
    held: set[str] = field(default_factory=set)


class Shares:
    """What each client has had of the GPU, in seconds."""

    def __init__(self) -> None:
        self._served: dict[str, float] = {}
        self._waits_in: dict[str, set[int]] = {}
        self._groups: dict[int, _Group] = {}
        self._least = 0.0
        """What the one who has had least of all that waited has had: where newcomers start. Never falls."""
        self._sweep_at = IDLE_KEPT

    def served(self, client: str) -> float:
        """Seconds this client has been charged, as far as they still count."""
        return self._served.get(client, self._least)

    def join(self, client: str, priority: int) -> None:
        """The client begins to wait in this priority."""
        if client not in self._waits_in:
            self._served[client] = max(self.served(client), self._least)
            self._waits_in[client] = set()
        self._waits_in[client].add(priority)
        insort(self._groups.setdefault(priority, _Group()).clients, (self._served[client], client))

    def leave(self, client: str, priority: int) -> None:
        """The client has nothing left that waits in this priority."""
        group = self._groups[priority]
        del group.clients[bisect_left(group.clients, (self._served[client], client))]
        group.held.discard(client)
        if not group.clients:
            del self._groups[priority]
        self._waits_in[client].discard(priority)
        if not self._waits_in[client]:
            del self._waits_in[client]
            self._sweep()

    def charge(self, client: str, seconds: float) -> None:
        """Add to what the client has had; negative to give back."""
        old = self.served(client)
        self._served[client] = new = old + seconds
        for priority in self._waits_in.get(client, ()):
            clients = self._groups[priority].clients
            del clients[bisect_left(clients, (old, client))]
            insort(clients, (new, client))

    def held_back(self, priority: int, quantum: float) -> frozenset[str]:
        """The clients that wait in this priority and have to let others catch up; until they have, they stay held."""
        held = self.would_hold_back(priority, quantum)
        group = self._groups.get(priority)
        if group is not None:
            self._least = max(self._least, group.clients[0][0])
            group.held = set(held)
        return held

    def would_hold_back(self, priority: int, quantum: float) -> frozenset[str]:
        """What `held_back` would say now; to be asked by whoever decides nothing."""
        group = self._groups.get(priority)
        if group is None:
            return frozenset()
        least = group.clients[0][0]
        ahead = bisect_right(group.clients, least + quantum, key=_seconds)
        held = group.held.union(client for _, client in group.clients[ahead:])
        return frozenset(client for client in held if self._served[client] > least)

    def _sweep(self) -> None:
        if len(self._served) > self._sweep_at:
            idle = [name for name, had in self._served.items() if had <= self._least and name not in self._waits_in]
            for client in idle:
                del self._served[client]
            self._sweep_at = 2 * len(self._served) + IDLE_KEPT


def _seconds(spot: tuple[float, str]) -> float:
    return spot[0]
