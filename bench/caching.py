"""What an eviction rule costs, in loads, on traces of prompts.

Each prompt needs one of several equally large models, of which memory holds a few; a model that is not there is loaded
and takes the place of another. For equally large models the least possible number of loads is known: let go what is
needed last (Belady, 1966). Against that stand the rules of caches that do not see the queue, and ours, which sees as
much of it as is visible.
"""

import random
from collections.abc import Callable, Sequence

from normalizer import Chain, ModelRef, ModelSet
from proxy.core.budget import Budget
from proxy.core.chain_book import ChainBook
from proxy.core.eviction import plan

Trace = Sequence[int]
"""The model that each prompt needs."""

SECONDS_APART = 30.0
"""Between two prompts."""


def optimal_loads(trace: Trace, room: int) -> int:
    """The least number of loads, by Belady's rule, with `room` models in memory at once."""
    held: set[int] = set()
    loads = 0
    for place, model in enumerate(trace):
        if model in held:
            continue
        loads += 1
        if len(held) >= room:
            held.remove(max(held, key=lambda other: _next_use(trace, place, other)))
        held.add(model)
    return loads


def _next_use(trace: Trace, place: int, model: int) -> int:
    return next((later for later in range(place, len(trace)) if trace[later] == model), len(trace))


def lru_loads(trace: Trace, room: int) -> int:
    """Let go what was used longest ago."""
    held: list[int] = []
    loads = 0
    for model in trace:
        if model in held:
            held.remove(model)
        else:
            loads += 1
            del held[: max(0, len(held) - room + 1)]
        held.append(model)
    return loads


def greedy_dual_loads(trace: Trace, room: int) -> int:
    """GreedyDual-Size-Frequency (Cherkasova, 1998): a model's value is its uses, raised by what was let go before."""
    value: dict[int, float] = {}
    uses: dict[int, int] = {}
    age = 0.0
    loads = 0
    for model in trace:
        uses[model] = uses.get(model, 0) + 1
        if model not in value:
            loads += 1
            if len(value) >= room:
                victim = min(value, key=lambda other: (value[other], other))
                age = value.pop(victim)
        value[model] = age + uses[model]
    return loads


def our_loads(trace: Trace, room: int, visible: int) -> int:
    """The pin planner, which sees the next `visible` prompts, in a ComfyUI that forgets what is not carried."""
    book = ChainBook()
    held: set[int] = set()
    loads = 0
    for place, model in enumerate(trace):
        now = place * SECONDS_APART
        loads += model not in held
        own = _chain(model)
        alive = [candidate for candidate in book.candidates() if int(candidate.chain.key) in held]
        foresight = [_models(later) for later in trace[place + 1 : place + 1 + visible]]
        budget = Budget(chains=room, pins=room - 1, ram=room)
        planned = plan(alive, [own], budget, foresight, (), lambda _: 1, now)
        held = {model, *(int(chain.key) for chain in planned.chosen)}
        book.used([own], now)
    return loads


def _models(model: int) -> ModelSet:
    return frozenset({ModelRef("UNETLoader", (f"model-{model}",))})


def _chain(model: int) -> Chain:
    node = {"class_type": "UNETLoader", "inputs": {"unet_name": f"model-{model}"}}
    return Chain(key=str(model), signature=str(model), nodes={str(model): node}, models=_models(model))


def popular(rng: random.Random, models: int, prompts: int) -> Trace:
    """Each prompt by itself, some models far more popular than others (Zipf)."""
    return rng.choices(range(models), [1 / (rank + 1) for rank in range(models)], k=prompts)


def sessions(rng: random.Random, models: int, prompts: int) -> Trace:
    """Three people at once, each trying one model for a while, then another."""
    trace: list[int] = []
    working_on = [rng.randrange(models) for _ in range(3)]
    while len(trace) < prompts:
        person = rng.randrange(len(working_on))
        if rng.random() < 0.1:  # noqa: PLR2004 - ten prompts with one model on average
            working_on[person] = rng.randrange(models)
        trace.append(working_on[person])
    return trace


def rounds(rng: random.Random, models: int, prompts: int) -> Trace:
    """A batch over one model more than usually fits, again and again: what LRU is worst at."""
    order = rng.sample(range(models), min(models, 5))
    return [order[place % len(order)] for place in range(prompts)]


def shifts(rng: random.Random, models: int, prompts: int) -> Trace:
    """Favourites that change: in each fifth of the time three models are asked for nine times in ten."""
    trace: list[int] = []
    favourites: list[int] = []
    for place in range(prompts):
        if place % max(1, prompts // 5) == 0:
            favourites = rng.sample(range(models), 3)
        trace.append(rng.choice(favourites) if rng.random() < 0.9 else rng.randrange(models))  # noqa: PLR2004
    return trace


TRACES: dict[str, Callable[[random.Random, int, int], Trace]] = {
    "popular": popular,
    "sessions": sessions,
    "rounds": rounds,
    "shifts": shifts,
}
