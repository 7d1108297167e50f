"""How few seconds of loading a trace can be served with, whatever the order and whatever is kept.

Both bounds hold for every schedule, bounded or not, that loads as `bench.memory.Memory` does: it may wait until all
prompts have arrived, and let any pass any. So a policy that keeps its promises, or does not wait, may be unable to
reach them; nobody can be below.
"""

import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

from bench.traces import Trace
from normalizer.models import ModelRef, ModelSet

EXACT_SETS = 8
EXACT_COMPONENTS = 8
"""Up to so many different sets of components, and so many components, the optimum is searched."""


@dataclass(frozen=True, slots=True)
class Bound:
    """Seconds of loading that no schedule can do without; `exact` when one does with just that."""

    load_seconds: float
    exact: bool


def lower_bound(trace: Trace) -> Bound:
    """Give the optimum where it can be searched, else the relaxation."""
    sets = {prompt.models for prompt in trace.prompts}
    if len(sets) <= EXACT_SETS and len(frozenset().union(*sets)) <= EXACT_COMPONENTS:
        return Bound(optimum(trace), exact=True)
    return Bound(relaxation(trace), exact=False)


def relaxation(trace: Trace) -> float:
    """Load every component once.

    Proof that no schedule has less: at the beginning nothing is in memory. A component that a prompt needs is not in
    VRAM until it has been loaded there; its first load therefore starts from disk, and costs reading and crossing the
    bus. First loads of different components are different loads, so their costs add up; further loads cost no less
    than nothing. What is relaxed is memory: this is the cost on a machine where everything fits into VRAM.
    """
    used = frozenset[ModelRef]().union(*(prompt.models for prompt in trace.prompts))
    return sum(_cold(trace, ref) for ref in sorted(used))


def optimum(trace: Trace) -> float:
    """The least seconds of loading, found by Dijkstra's search over which sets are still to come and what is where.

    Prompts with equal sets run one after the other: the others of them load nothing then, and moving them there makes
    nothing else dearer. After each prompt whatever fits beside its own components may stay. Only the largest parts are
    tried, for more in memory never costs more: it can be let go later.
    """
    sets = tuple(sorted({prompt.models for prompt in trace.prompts}, key=sorted))
    start = _State(frozenset(sets), frozenset(), frozenset())
    best: dict[_State, float] = {start: 0.0}
    queue = [(0.0, 0, start)]
    count = 0
    while queue:
        spent, _, state = heapq.heappop(queue)
        if spent > best[state]:
            continue
        if not state.to_come:
            return spent
        for models in _worth_trying(trace, state):
            total = spent + sum(_seconds(trace, ref, state) for ref in models)
            for after in _afterwards(trace, state, models):
                if total < best.get(after, float("inf")):
                    best[after] = total
                    count += 1
                    heapq.heappush(queue, (total, count, after))
    raise AssertionError("every state leads to one with nothing to come")


@dataclass(frozen=True, slots=True)
class _State:
    """The sets still to come, what is in VRAM, and what is in memory at all."""

    to_come: frozenset[ModelSet]
    hot: ModelSet
    alive: ModelSet


def _worth_trying(trace: Trace, state: _State) -> Iterable[ModelSet]:
    """What loads nothing is run at once: that cannot be wrong, as long as nothing has to go for it.

    A set too large for memory leaves more there than may stay beside another.
    """
    if _bytes(trace, state.alive) > trace.machine.model_ram or _bytes(trace, state.hot) > trace.machine.model_vram:
        return state.to_come
    free = next((models for models in state.to_come if models <= state.hot), None)
    return state.to_come if free is None else (free,)


def _afterwards(trace: Trace, state: _State, models: ModelSet) -> Iterator[_State]:
    to_come = state.to_come - {models}
    for alive in _largest_parts(state.alive | models, trace.machine.model_ram, trace.sizes, models):
        hot_before = (state.hot | models) & alive
        for hot in _largest_parts(hot_before, trace.machine.model_vram, trace.sizes, models):
            yield _State(to_come, hot, alive)


def _largest_parts(
    whole: ModelSet, limit: int, sizes: Mapping[ModelRef, int], own: ModelSet
) -> Iterator[frozenset[ModelRef]]:
    """What a prompt needs, with each part of the rest that fits beside it and would not with one more."""
    room = limit - sum(map(sizes.__getitem__, own))
    rest = sorted(whole - own)
    found: list[frozenset[ModelRef]] = []
    for count in range(len(rest), -1, -1):
        for part in map(frozenset, combinations(rest, count)):
            fits = not part or sum(map(sizes.__getitem__, part)) <= room
            if fits and not any(part <= other for other in found):
                found.append(part)
                yield own | part


def _bytes(trace: Trace, models: ModelSet) -> int:
    return sum(map(trace.sizes.__getitem__, models))


def _seconds(trace: Trace, ref: ModelRef, state: _State) -> float:
    if ref in state.hot:
        return 0.0
    return trace.machine.crossing_seconds(trace.sizes[ref]) if ref in state.alive else _cold(trace, ref)


def _cold(trace: Trace, ref: ModelRef) -> float:
    size = trace.sizes[ref]
    return trace.machine.crossing_seconds(size) + trace.machine.reading_seconds(size)
