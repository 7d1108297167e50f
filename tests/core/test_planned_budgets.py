"""Whatever happens, a prompt with its pins leaves the reserve free, or goes without pins.

The machine of this test is counted by hand: what others take is chosen by the test and known to the planner only
through readings, as on a real machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from normalizer import Chain
from normalizer.models import ModelRef, ModelSet
from proxy.core import pinning
from proxy.core.budget import Budget, Limits, Machine
from proxy.core.costs import LoadCosts
from proxy.core.eviction import Candidate
from proxy.core.evidence import (
    Ending,
    MemoryRead,
    NodesCached,
    PromptEnded,
    PromptSent,
    PromptStarted,
    SizesRead,
    UpstreamDied,
    UpstreamStarted,
)
from proxy.core.flags import GB, CacheMode, UpstreamFlags, VramMode
from proxy.core.groups import Group, Keep
from proxy.core.pinning import PinPlanner
from proxy.core.residency import Residency
from proxy.core.sizes import Sizes

NAMES = "abcdefgh"
SIZES = {name: size * GB for name, size in zip(NAMES, (1, 2, 3, 5, 7, 8, 11, 13), strict=True)}
RAM = 48 * GB
LEAST_FREE = 7 * GB
"""The reserve: 15 % of the RAM, which is more than 4 GB and than ComfyUI's first threshold; rounded down."""
MOST_PINS = RAM // 2
MODES = [
    UpstreamFlags(version=(0, 33, 0), cache=CacheMode.CLASSIC, vram=VramMode.CPU),
    UpstreamFlags(version=(0, 33, 0), cache=CacheMode.RAM_PRESSURE, vram=VramMode.CPU),
]


def ref(name: str) -> ModelRef:
    return ModelRef("UNETLoader", (name,))


def chain(name: str) -> Chain:
    nodes = {name: {"class_type": "UNETLoader", "inputs": {"name": name}}}
    return Chain(key=name, signature=name, nodes=nodes, models=frozenset({ref(name)}))


def size_of(names: Sequence[str] | set[str]) -> int:
    return sum(SIZES[name] for name in set(names))


@dataclass(frozen=True)
class Prompt:
    own: str
    queue: tuple[str, ...]
    ending: Ending | None
    """None: ComfyUI dies while it runs, as it also does when more is needed than there is."""


@dataclass(frozen=True)
class Others:
    """From now on other programs take so much, or all that is left, and ComfyUI's machine is read."""

    bytes: int


@dataclass
class World:
    """One ComfyUI that forgets what a prompt does not carry, and its planner."""

    flags: UpstreamFlags
    groups: tuple[Group, ...] = ()
    others: int = 2 * GB
    held: set[str] = field(default_factory=set)
    uses: dict[str, float] = field(default_factory=dict)
    most_pins: int = MOST_PINS
    """What pins may take after trouble, as the rules say."""
    count: int = 0

    def __post_init__(self) -> None:
        self.planner = PinPlanner(Residency(Sizes(), LoadCosts()), Limits(), self.groups)
        self._boot()

    def _boot(self) -> None:
        self.held.clear()
        self.planner.handle(UpstreamStarted(self.flags, Machine(RAM, RAM), fresh=True), self.count)
        self.planner.handle(SizesRead(SIZES), self.count)
        self.read()

    def read(self) -> None:
        free = max(0, RAM - self.others - size_of(self.held))
        self.planner.handle(MemoryRead(ram_free=free, host_ram_free=free), self.count)

    def do(self, steps: Sequence[Prompt | Others]) -> None:
        for step in steps:
            self.count += 1
            if isinstance(step, Others):
                self.others = min(step.bytes, RAM - size_of(self.held))
                self.read()
            else:
                self.run(step)

    def run(self, prompt: Prompt) -> None:
        candidates = [Candidate(chain(name), used) for name, used in self.uses.items()]
        foresight: list[ModelSet] = [frozenset(map(ref, needs)) for needs in prompt.queue]
        own = tuple(map(chain, prompt.own))
        pins = self.planner.plan(candidates, own, foresight, self.count).chosen
        names = {item.key for item in pins}
        self.check(names, prompt)
        prompt_id = str(self.count)
        nodes = {node: inputs for item in (*own, *pins) for node, inputs in item.nodes.items()}
        sent = PromptSent(prompt_id, own, pins, {name: ref(name) for name in prompt.own}, nodes)
        cached = frozenset(self.held & (names | set(prompt.own)))
        seconds = dict.fromkeys(set(prompt.own) - self.held, 3.0)
        for event in (sent, PromptStarted(prompt_id), NodesCached(prompt_id, cached)):
            self.planner.handle(event, self.count)
        pinned = size_of(names - set(prompt.own))
        self.held = (self.held & names) | set(prompt.own)
        if prompt.ending is None or self.others + size_of(self.held) > RAM:
            self.planner.handle(UpstreamDied(), self.count)
            self.most_pins = self.most_pins // 2 if pins else self.most_pins
            self._boot()
            return
        self.planner.handle(PromptEnded(prompt_id, prompt.ending, seconds), self.count)
        self.uses |= dict.fromkeys(prompt.own, float(self.count))
        if prompt.ending in {Ending.OUT_OF_VRAM, Ending.OUT_OF_RAM} and pinned:
            self.most_pins = min(self.most_pins, pinned) * 3 // 4
        self.read()

    def check(self, pins: set[str], prompt: Prompt) -> None:
        """The claim: all of it fits, or nothing is pinned."""
        if not pins:
            return
        assert size_of(pins - set(prompt.own)) <= self.most_pins
        there = pins | set(prompt.own)
        later = {name for needs in prompt.queue for name in needs} - there
        first = max((SIZES[name] for name in later), default=0)
        arriving = first if self.flags.cache is CacheMode.RAM_PRESSURE else 0
        assert self.others + size_of(there) + arriving + LEAST_FREE <= RAM


SOME = st.sets(st.sampled_from(NAMES), min_size=1, max_size=3).map(lambda names: "".join(sorted(names)))
ENDINGS = st.sampled_from(
    [Ending.SUCCESS, Ending.SUCCESS, Ending.SUCCESS, Ending.FAILURE, Ending.OUT_OF_VRAM, Ending.OUT_OF_RAM, None]
)
STEPS = st.lists(
    st.builds(Prompt, SOME, st.lists(SOME, max_size=4).map(tuple), ENDINGS)
    | st.builds(Others, st.integers(0, 40 * GB)),
    max_size=30,
)
GROUPS = st.lists(
    st.builds(
        partial(Group, "g"), st.sampled_from([("*",), ("[abc]",), ("h",)]), st.sampled_from(Keep), st.integers(-1, 1)
    ),
    max_size=2,
).map(tuple)


@given(st.sampled_from(MODES), GROUPS, STEPS)
def test_what_is_planned_leaves_the_reserve(
    flags: UpstreamFlags, groups: tuple[Group, ...], steps: Sequence[Prompt | Others]
) -> None:
    World(flags, groups).do(steps)


ROUND = [Prompt(name, (), Ending.SUCCESS) for name in NAMES]


def test_a_round_of_models_does_get_pins() -> None:
    world = World(MODES[0])
    world.do(ROUND)
    assert len(world.held) > 1


@pytest.mark.parametrize("budget", [Budget(1000, MOST_PINS, None), Budget(1000, 1000 * GB, 30 * GB)])
def test_the_claim_fails_for_a_budget_without_bounds(budget: Budget, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pinning, "make_budget", lambda *_: budget)
    world = World(MODES[0], others=10 * GB)
    with pytest.raises(AssertionError):
        world.do(ROUND * 2)
