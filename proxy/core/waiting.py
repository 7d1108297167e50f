"""Ten thousand prompts may wait, and the next one has to be found at once.

Every decision looks at a window: the oldest prompts of one priority, of those clients whose turn it may be. So the
prompts of each priority are kept by client, in order of submission, with the clients in the order of their oldest
prompt. A window of n prompts then costs about n steps, however many wait behind it, and whatever one client floods.

Prompts with a place of their own (`Job.fixed`) are apart; they belong to no client's turn. Of equal places the one with
the lesser id comes first, as in ComfyUI's heap.
"""

import heapq
import math
from bisect import bisect_left, insort
from collections.abc import Collection, Iterator
from itertools import islice
from operator import attrgetter

from proxy.core.job import Job

_sequence = attrgetter("sequence")
_place = attrgetter("place", "prompt_id")
_age = attrgetter("submitted", "sequence")


class Level:
    """The waiting prompts of one priority."""

    def __init__(self, priority: int) -> None:
        self.priority = priority
        self._queues: dict[str, list[Job]] = {}
        self._heads: list[tuple[int, str]] = []
        self._fixed: list[Job] = []
        self._fixed_by_age: list[Job] = []
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Job]:
        """All of them, in the order in which they would run if loading cost nothing."""
        autos = heapq.merge(*self._queues.values(), key=_sequence)
        return heapq.merge(autos, self._fixed, key=_place)

    @property
    def clients(self) -> Collection[str]:
        """The clients that have prompts here whose place is not fixed."""
        return self._queues.keys()

    @property
    def oldest_submitted(self) -> float:
        """When the oldest of them was submitted."""
        return self.oldest_but(())

    def oldest_but(self, without: Collection[str]) -> float:
        """When the oldest was submitted of those that do not belong to some clients; infinity if there is none."""
        times = [job.submitted for job in self._fixed_by_age[:1]]
        client = next((client for _, client in self._heads if client not in without), None)
        if client is not None:
            times.append(self._queues[client][0].submitted)
        return min(times, default=math.inf)

    @property
    def oldest_sequence(self) -> int | None:
        """The first in the order of submission of those whose place is not fixed."""
        return self._heads[0][0] if self._heads else None

    def heads_before(self, sequence: int) -> Iterator[Job]:
        """The oldest of each client that was submitted before another, without those whose place is fixed."""
        for first, client in self._heads:
            if first >= sequence:
                return
            yield self._queues[client][0]

    def add(self, job: Job) -> bool:
        """Take it in; whether it is now the only one of its client that has no fixed place."""
        self._size += 1
        if job.fixed:
            insort(self._fixed, job, key=_place)
            insort(self._fixed_by_age, job, key=_age)
            return False
        queue = self._queues.get(job.client)
        if queue is None:
            self._queues[job.client] = [job]
            insort(self._heads, (job.sequence, job.client))
            return True
        if job.sequence < queue[0].sequence:
            self._move_head((queue[0].sequence, job.client), (job.sequence, job.client))
        insort(queue, job, key=_sequence)
        return False

    def remove(self, job: Job) -> bool:
        """Take it out; whether it was the last one of its client that has no fixed place."""
        self._size -= 1
        if job.fixed:
            del self._fixed[bisect_left(self._fixed, _place(job), key=_place)]
            del self._fixed_by_age[bisect_left(self._fixed_by_age, _age(job), key=_age)]
            return False
        queue = self._queues[job.client]
        index = bisect_left(queue, job.sequence, key=_sequence)
        del queue[index]
        if index == 0:
            self._move_head((job.sequence, job.client), (queue[0].sequence, job.client) if queue else None)
        if not queue:
            del self._queues[job.client]
        return not queue

    def window(self, limit: int, without: Collection[str]) -> list[Job]:
        """The first `limit` prompts of all clients but some, fixed places included."""
        clients = [client for _, client in islice((h for h in self._heads if h[1] not in without), limit)]
        queues = [islice(self._queues[client], limit) for client in clients]
        autos = queues[0] if len(queues) == 1 else heapq.merge(*queues, key=_sequence)
        if self._fixed:
            return list(islice(heapq.merge(autos, self._fixed, key=_place), limit))
        return list(islice(autos, limit))

    def _move_head(self, old: tuple[int, str], new: tuple[int, str] | None) -> None:
        del self._heads[bisect_left(self._heads, old)]
        if new is not None:
            insort(self._heads, new)


class Waiting:
    """All waiting prompts, by priority."""

    def __init__(self) -> None:
        self.levels: dict[int, Level] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Job]:
        """All of them, higher priority first."""
        for priority in sorted(self.levels, reverse=True):
            yield from self.levels[priority]

    def add(self, job: Job) -> bool:
        """Take it in; whether its client had nothing in this level before."""
        self._size += 1
        level = self.levels.get(job.priority)
        if level is None:
            level = self.levels[job.priority] = Level(job.priority)
        return level.add(job)

    def remove(self, job: Job) -> bool:
        """Take it out; whether its client has nothing left in this level."""
        self._size -= 1
        level = self.levels[job.priority]
        last = level.remove(job)
        if not level:
            del self.levels[job.priority]
        return last
