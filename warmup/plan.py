"""What becomes of each entry that is due: run it, leave it, or let it wait; each decision with its reason.

A warm-up that is not needed costs a client's time for nothing, so what is resident as far as asked is skipped, whoever
asked for it; and an entry that may only run when nobody works waits until nobody does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from normalizer import ModelRef
from warmup.entries import Depth, Trigger
from warmup.faults import BadEntry
from warmup.prompts import Preparation, Step
from warmup.schedule import Due


class Tier(StrEnum):
    """Where a component's weights are: VRAM, RAM, disk, or nobody knows."""

    HOT = "hot"
    WARM = "warm"
    COLD = "cold"
    UNKNOWN = "unknown"


class Tiers(Protocol):
    """Whoever knows where components are."""

    def tier(self, ref: ModelRef) -> Tier:
        """Where this component's weights are now."""
        ...


class Action(StrEnum):
    """What becomes of an entry."""

    RUN = "run"
    SKIP = "skip"
    WAIT = "wait"
    REFUSE = "refuse"


@dataclass(frozen=True)
class Decision:
    """What becomes of one entry and why; `steps` are the prompts still to be run."""

    name: str
    action: Action
    reason: str
    triggers: tuple[Trigger, ...] = ()
    steps: tuple[Step, ...] = ()


_ENOUGH = {Depth.RAM: frozenset({Tier.WARM, Tier.HOT}), Depth.VRAM: frozenset({Tier.HOT})}
_PLACE = {Depth.RAM: "in RAM", Depth.VRAM: "in VRAM"}


def needed(step: Step, tiers: Tiers) -> bool:
    """Whether a step would bring something; one of which no component is known always might."""
    return not step.models or bool(_missing(step, tiers))


def _missing(step: Step, tiers: Tiers) -> list[ModelRef]:
    return [ref for ref in sorted(step.models) if tiers.tier(ref) not in _ENOUGH[step.depth]]


def plan(
    due: Sequence[Due], prepared: Mapping[str, Preparation | BadEntry], tiers: Tiers, *, clients_busy: bool
) -> tuple[Decision, ...]:
    """Decide on each due entry, in the order given. `prepared` holds each one's prompts, or why there are none."""
    return tuple(_decide(item, prepared[item.planned.name], tiers, clients_busy=clients_busy) for item in due)


def _decide(due: Due, prepared: Preparation | BadEntry, tiers: Tiers, *, clients_busy: bool) -> Decision:
    name, triggers = due.planned.name, due.triggers
    if isinstance(prepared, BadEntry):
        return Decision(name, Action.REFUSE, str(prepared), triggers)
    steps = tuple(step for step in prepared.steps if needed(step, tiers))
    if not steps:
        return Decision(name, Action.SKIP, resident(prepared.steps), triggers)
    if clients_busy and due.planned.entry.only_when_idle and Trigger.MANUAL not in triggers:
        return Decision(name, Action.WAIT, "clients' prompts come first (only_when_idle)", triggers)
    lacking = sorted({ref.label for step in steps for ref in _missing(step, tiers)})
    reason = f"{', '.join(triggers)}: {', '.join(lacking) or 'what it needs'} not known to be {_PLACE[steps[0].depth]}"
    return Decision(name, Action.RUN, reason, triggers, steps)


def resident(steps: Sequence[Step]) -> str:
    """Say that all of this is where it would be brought."""
    places = {
        depth: sorted({ref.label for step in steps if step.depth is depth for ref in step.models}) for depth in Depth
    }
    return "; ".join(f"{', '.join(labels)} already {_PLACE[depth]}" for depth, labels in places.items() if labels)
