"""How others order such a queue: pure functions from what waits to what runs next.

Each is told when the one before has ended, so it chooses with everything known that can be known; ours has to stage
its choice while the one before still runs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.memory import Cache, Memory
from bench.traces import Prompt
from normalizer.models import ModelSet

LOOKAHEAD = 8
"""Prompts at the head of the queue that positional lookahead may choose from."""
PATIENCE = 1.5
"""Seconds that resident-first waits for a prompt whose models are loaded, before it takes another."""
PRESSURE_PER_PROMPT = 10.0
"""What one waiting prompt adds to its models' pressure; a second of age adds 1."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Choose nothing before `until`, in seconds, or the next arrival."""

    until: float


Choice = int | Wait
Choose = Callable[[Sequence[Prompt], float, float, Memory], Choice]
"""From the waiting prompts in order of arrival, the time, since when nothing runs, and the memory: the index of one."""


@dataclass(frozen=True, slots=True)
class Rival:
    """A policy with the cache it runs with."""

    name: str
    cache: Cache
    choose: Choose


def fifo(_waiting: Sequence[Prompt], _now: float, _idle_since: float, _memory: Memory) -> Choice:
    """First come, first served."""
    return 0


def collate(waiting: Sequence[Prompt], _now: float, _idle_since: float, memory: Memory) -> Choice:
    """All that the loaded models can serve, then the oldest: llama-swap's FIFO with collation."""
    return next((index for index, prompt in enumerate(waiting) if memory.cost(prompt.models) == 0), 0)


def pressure(waiting: Sequence[Prompt], now: float, _idle_since: float, _memory: Memory) -> Choice:
    """The models with the highest pressure, ten for each waiting prompt and one for each second: SwarmUI's rule."""
    count: dict[ModelSet, int] = {}
    oldest: dict[ModelSet, int] = {}
    for index, prompt in enumerate(waiting):
        count[prompt.models] = count.get(prompt.models, 0) + 1
        oldest.setdefault(prompt.models, index)
    return max(
        oldest.values(),
        key=lambda index: PRESSURE_PER_PROMPT * count[waiting[index].models] + now - waiting[index].at,
    )


def lookahead(waiting: Sequence[Prompt], _now: float, _idle_since: float, memory: Memory) -> Choice:
    """The cheapest of the first few."""
    return min(range(min(LOOKAHEAD, len(waiting))), key=lambda index: (memory.cost(waiting[index].models), index))


def resident_first(waiting: Sequence[Prompt], now: float, idle_since: float, memory: Memory) -> Choice:
    """What is loaded; failing that, wait a moment for such a prompt, then take the oldest: Ray Serve's multiplexing."""
    for index, prompt in enumerate(waiting):
        if memory.cost(prompt.models) == 0:
            return index
    patience_ends = max(idle_since, waiting[0].at) + PATIENCE
    return 0 if now >= patience_ends else Wait(patience_ends)


RIVALS: Sequence[Rival] = (
    Rival("fifo, default cache", Cache.DEFAULT, fifo),
    Rival("fifo, --cache-lru 50", Cache.LRU, fifo),
    Rival("fifo, --cache-ram 2 2", Cache.LOW_RAM_THRESHOLDS, fifo),
    Rival("fifo, pins", Cache.PINNED, fifo),
    Rival("collate, pins", Cache.PINNED, collate),
    Rival("pressure, pins", Cache.PINNED, pressure),
    Rival("lookahead, pins", Cache.PINNED, lookahead),
    Rival("resident-first, pins", Cache.PINNED, resident_first),
)
