"""Which pins make prompts start late, so that they are not carried any more.

ComfyUI asks every node of a prompt whether it changed (`IS_CHANGED`) before it says which results are cached; pins are
asked too, and some custom loaders read their whole file to answer. That would cost every prompt seconds for a model
that it does not use. How long it takes shows between `execution_start` and `execution_cached`.

A start tells about all pins at once. A quick one acquits them all. After slow ones, the pins that no quick start has
acquitted are left out, all together; then they are tried one at a time on prompts of a kind that has been seen to start
without them, so that a client's own slow nodes (a video that is hashed) are not held against a pin. What made the
difference alone is slow, until ComfyUI is another process.

Source: ComfyUI execution.py, `PromptExecutor.execute_async` and `IsChangedCache`.
"""

from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from normalizer import Chain, ModelSet

LATE = 0.25
"""Seconds of a start that are worth looking into; ComfyUI itself needs milliseconds."""

TWICE = 2
"""Slow starts before anything is done: one may be a machine that was busy."""

KINDS = 256
"""Kinds of prompts whose starts are remembered at most, and for each"""
PIN_SETS = 64
"""so many with different pins."""


@dataclass(frozen=True, slots=True)
class Start:
    """How one prompt began.

    `kind` tells the client's part of it apart from others' (see `kind_of`); `pins` are the chains it carried;
    `seconds` passed from `execution_start` to `execution_cached`.
    """

    kind: int
    pins: tuple[Chain, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class SlowPin:
    """A chain that delays every prompt that carries it, by so many seconds."""

    key: str
    models: ModelSet
    seconds: float


def kind_of(prompt: Mapping[str, Any], pins: AbstractSet[str]) -> int:
    """A name for what the client's own nodes have to say at a start: their classes, less the nodes named in `pins`."""
    nodes = (node for node_id, node in prompt.items() if node_id not in pins and isinstance(node, Mapping))
    return hash(frozenset(Counter(str(node.get("class_type")) for node in nodes).items()))


class StartDelays:
    """What the starts of one ComfyUI process have told about its pins."""

    def __init__(self) -> None:
        self._starts: OrderedDict[int, dict[frozenset[str], float]] = OrderedDict()
        self._acquitted: set[str] = set()
        self._suspected: Counter[str] = Counter()
        self._doubted: dict[str, None] = {}
        self._slow: dict[str, SlowPin] = {}

    @property
    def slow(self) -> Sequence[SlowPin]:
        """The chains that were found to be slow."""
        return tuple(self._slow.values())

    def objection(self, key: str, kind: int) -> str | None:
        """Why a chain is not to be carried by a prompt of this kind; None if nothing speaks against it."""
        found = self._slow.get(key)
        if found is not None:
            return f"its IS_CHANGED makes every prompt start {found.seconds:.2f} s later"
        if key not in self._doubted:
            return None
        if key == next(iter(self._doubted)) and self._own(kind) is not None:
            return None  # its turn to be tried
        return "prompts started late; left out until it is known whether it is to blame"

    def saw(self, start: Start) -> SlowPin | None:
        """Take in one start; the chain that is found to be slow by it."""
        keys = frozenset(chain.key for chain in start.pins)
        self._remember(start.kind, keys, start.seconds)
        suspects = self._unknown(keys)
        seconds = start.seconds - self._known_delay(keys)
        own = self._own(start.kind)
        if not suspects and own is not None:
            self._acquit_others(start.kind, own)
        elif seconds < LATE or (own is not None and seconds < own + LATE):
            self._acquit(suspects)
        else:
            self._suspected.update(suspects)
            guilty = {key for key in suspects if self._suspected[key] >= TWICE}
            if own is not None and len(suspects) == 1:
                return next((self._convict(chain, seconds - own) for chain in start.pins if chain.key in guilty), None)
            self._doubted.update(dict.fromkeys(sorted(guilty)))
        return None

    def _remember(self, kind: int, keys: frozenset[str], seconds: float) -> None:
        """Of starts with the same pins the quickest counts: what made another slower was something else."""
        starts = self._starts.setdefault(kind, {})
        self._starts.move_to_end(kind)
        starts[keys] = min(seconds, starts.get(keys, seconds))
        if len(self._starts) > KINDS:
            self._starts.popitem(last=False)
        if len(starts) > PIN_SETS:
            del starts[next(iter(starts))]

    def _own(self, kind: int) -> float | None:
        """What the client's own nodes take in prompts of this kind; None if none went without unknown pins."""
        starts = self._starts.get(kind, {})
        known = (seconds - self._known_delay(pins) for pins, seconds in starts.items() if not self._unknown(pins))
        return min(known, default=None)

    def _unknown(self, keys: frozenset[str]) -> frozenset[str]:
        return keys.difference(self._acquitted, self._slow)

    def _known_delay(self, keys: frozenset[str]) -> float:
        return sum(self._slow[key].seconds for key in keys.intersection(self._slow))

    def _acquit_others(self, kind: int, own: float) -> None:
        """It is known how slow these prompts are by themselves: pins that made none slower are innocent."""
        for pins, seconds in self._starts[kind].items():
            if seconds - self._known_delay(pins) < own + LATE:
                self._acquit(pins)

    def _acquit(self, keys: frozenset[str]) -> None:
        for key in self._unknown(keys):
            self._acquitted.add(key)
            self._suspected.pop(key, None)
            self._doubted.pop(key, None)

    def _convict(self, chain: Chain, seconds: float) -> SlowPin:
        self._doubted.pop(chain.key, None)
        self._suspected.pop(chain.key, None)
        found = self._slow[chain.key] = SlowPin(chain.key, chain.models, seconds)
        return found
