"""What becomes of entries that are due: run, skipped, made to wait or refused, always with a reason."""

from collections.abc import Mapping

from normalizer import ModelRef
from tests.warmup.test_warmup_due import schedule_of
from warmup.entries import Depth, Trigger
from warmup.faults import BadEntry, Complaint
from warmup.plan import Action, Decision, Tier, needed, plan
from warmup.prompts import Preparation, Step
from warmup.schedule import Due

A, B = ModelRef("VAELoader", ("a",)), ModelRef("UNETLoader", ("b",))


class Shelf:
    def __init__(self, tiers: Mapping[ModelRef, Tier]) -> None:
        self.tiers = tiers

    def tier(self, ref: ModelRef) -> Tier:
        return self.tiers.get(ref, Tier.COLD)


def step(*refs: ModelRef, depth: Depth = Depth.VRAM) -> Step:
    return Step("+".join(ref.label for ref in refs), {}, frozenset(refs), depth)


def decide(
    *steps: Step,
    tiers: Mapping[ModelRef, Tier] | None = None,
    busy: bool = False,
    only_when_idle: bool = False,
    triggers: tuple[Trigger, ...] = (Trigger.START,),
    prepared: BadEntry | None = None,
) -> Decision:
    [planned] = schedule_of({"name": "e", "only_when_idle": only_when_idle}).entries
    ready = {"e": prepared or Preparation(steps)}
    [decision] = plan([Due(planned, triggers)], ready, Shelf(tiers or {}), clients_busy=busy)
    return decision


def test_what_is_hot_is_skipped_and_said_to_be() -> None:
    decision = decide(step(A, B), tiers={A: Tier.HOT, B: Tier.HOT})
    assert (decision.action, decision.reason) == (Action.SKIP, "a, b already in VRAM")


def test_warm_is_enough_for_ram_only() -> None:
    tiers = {A: Tier.WARM}
    assert decide(step(A, depth=Depth.RAM), tiers=tiers).action is Action.SKIP
    assert decide(step(A, depth=Depth.VRAM), tiers=tiers).action is Action.RUN
    assert decide(step(A, depth=Depth.RAM), tiers={A: Tier.HOT}).action is Action.SKIP


def test_unknown_is_not_there() -> None:
    for depth in Depth:
        assert decide(step(A, depth=depth), tiers={A: Tier.UNKNOWN}).action is Action.RUN


def test_only_what_is_missing_runs() -> None:
    decision = decide(step(A), step(B), tiers={A: Tier.HOT})
    assert decision.steps == (step(B),)
    assert decision.reason == "start: b not known to be in VRAM"


def test_a_step_without_known_models_always_runs() -> None:
    assert needed(step(), Shelf({}))
    assert decide(step()).action is Action.RUN


def test_only_when_idle_waits_for_clients_but_not_for_people() -> None:
    assert decide(step(A), busy=True).action is Action.RUN, "it queues behind clients by itself"
    waiting = decide(step(A), busy=True, only_when_idle=True)
    assert (waiting.action, waiting.reason) == (Action.WAIT, "clients' prompts come first (only_when_idle)")
    assert decide(step(A), only_when_idle=True).action is Action.RUN
    asked = decide(step(A), busy=True, only_when_idle=True, triggers=(Trigger.CRON, Trigger.MANUAL))
    assert asked.action is Action.RUN
    assert decide(step(A), tiers={A: Tier.HOT}, busy=True, only_when_idle=True).action is Action.SKIP


def test_what_cannot_be_prepared_is_refused_with_the_reason() -> None:
    bad = BadEntry(Complaint("prompt", "node 1 calls a paid service", "do without"))
    decision = decide(prepared=bad)
    assert (decision.action, decision.reason) == (Action.REFUSE, "prompt: node 1 calls a paid service; do without")
