"""What to carry along with the next prompt, by all that is known about one upstream.

Ties together what the pin planner needs: which chains are still there to be kept, what the machine can take now, what
was learned from trouble, and what the operator wants. Whoever sends prompts asks `plan` just before each.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from normalizer import Chain
from normalizer.models import ModelRef, ModelSet
from proxy.core.budget import Budget, Lesson, Limits, Machine, allowed_pins, make_budget, most_bytes, ram_reserve
from proxy.core.eviction import Candidate, PinPlan, outlived, plan
from proxy.core.evidence import Ending, PromptEnded, ResidencyEvent, UpstreamDied, UpstreamStarted
from proxy.core.flags import Overlap, UpstreamFlags
from proxy.core.groups import Group, group_of
from proxy.core.letting_go import LetGo, keys_to_let_go
from proxy.core.residency import Residency


class PinPlanner:
    """Plans the pins of one upstream. It hands every event on to its `residency`."""

    def __init__(self, residency: Residency, limits: Limits, groups: Sequence[Group]) -> None:
        self.residency = residency
        self.limits = limits
        """What the operator allows; may be set anew."""
        self.groups = groups
        """What the operator says of models that belong together; may be set anew."""
        self._flags = UpstreamFlags()
        self._machine = Machine(0, 0)
        self._lesson = Lesson()
        self._kept: dict[ModelSet, float] = {}
        self._since = 0.0
        """When this ComfyUI was first seen, in monotonic seconds."""
        self._gone_with_pins = False
        """ComfyUI was lost while it ran a prompt with pins; it is not known yet whether it has died."""
        self.last_plan = PinPlan()
        """What was chosen last, and why."""

    def keep(self, models: ModelSet, until: float) -> None:
        """Carry the chains of these components along until then (monotonic seconds), however little they are used."""
        self._kept[models] = max(until, self._kept.get(models, until))

    @property
    def budget(self) -> Budget:
        """What one prompt and its pins may take now."""
        budget = make_budget(self._machine, self._flags, self.limits, self.residency.usage(), self._lesson)
        return replace(budget, lingering=self.residency.lingering)

    def handle(self, event: ResidencyEvent, now: float) -> None:
        """Take in one event: learn from trouble, then let the residency see it."""
        allowed = allowed_pins(self._machine, self._flags, self.limits)
        match event:
            case UpstreamStarted(flags=flags, machine=machine, fresh=fresh):
                if fresh and self._gone_with_pins:
                    self._lesson = self._lesson.died(allowed)
                self._gone_with_pins = False
                self._flags, self._machine, self._since = flags, machine, now
            case UpstreamDied():
                self._gone_with_pins = self.residency.running_with_pins
            case PromptEnded(ending=Ending.SUCCESS):
                self._lesson = self._lesson.prompt_done(allowed)
            case PromptEnded(ending=Ending.OUT_OF_VRAM | Ending.OUT_OF_RAM, prompt_id=prompt_id):
                self._lesson = self._lesson.ran_out(self.residency.pinned_bytes(prompt_id), allowed)
            case _:
                pass
        self.residency.handle(event, now)

    @property
    def ram_reserve(self) -> int:
        """Bytes of RAM that stay free."""
        return ram_reserve(self._machine, self.limits)

    def plan(
        self,
        candidates: Iterable[Candidate],
        own: Sequence[Chain],
        foresight: Sequence[ModelSet],
        now: float,
        behind: Collection[str] = (),
    ) -> PinPlan:
        """The chains to carry along with a prompt that is sent now.

        Args:
            candidates: the chains seen lately; whether ComfyUI can still hold them is filled in here.
            own: the chains of the prompt itself.
            foresight: the components of the prompts expected after it, the next one first.
            now: monotonic seconds.
            behind: the prompts that were sent before, and will run after it all the same.
        """
        known = [self._judged(item, now, alive=self.residency.will_hold(item.chain, behind)) for item in candidates]
        size_of = self.residency.sizes.bytes_of
        self.last_plan = plan(known, own, self.budget, foresight, self.groups, size_of, now)
        return self.last_plan

    def overdue(self, candidates: Iterable[Candidate], now: float) -> ModelSet:
        """What ComfyUI still holds though its group keeps it no longer; it goes when any prompt runs without it."""
        if not self.residency.forgets_uncarried:
            return frozenset()
        goes, stays = set[ModelRef](), set[ModelRef]()
        for item in candidates:
            judged = self._judged(item, now, alive=True)
            over = outlived(judged, group_of(item.chain.models, self.groups), now)
            (goes if over else stays).update(item.chain.models)
        return self.residency.there_then & (goes - stays)

    def _judged(self, item: Candidate, now: float, *, alive: bool) -> Candidate:
        self._kept = {models: until for models, until in self._kept.items() if until > now}
        kept = any(item.chain.models and item.chain.models <= models for models in self._kept)
        return replace(item, alive=alive, kept=kept)

    def let_go(self, candidates: Iterable[Candidate], now: float) -> tuple[LetGo, ...]:
        """The keys of shared loaders to take out while nothing runs or waits: what a plan made now would not keep."""
        store = self.residency.shared
        there = store.refs()
        known = [self._judged(item, now, alive=not there.isdisjoint(item.chain.models)) for item in candidates]
        budget = replace(self.budget, chains=self.limits.max_chains, lingering=frozenset())
        made = plan(known, (), budget, (), self.groups, self.residency.sizes.bytes_of, now)
        why_not = {ref: reason.text for reason in made.reasons if not reason.kept for ref in reason.models}
        return keys_to_let_go(store, made.chosen, why_not, self._since, now)

    def must_free(self, own: Sequence[Chain]) -> bool:
        """Whether ComfyUI has to be told to free its memory before it gets a prompt with these chains.

        Where it lets go of old models only after new ones have come, a prompt that nobody foresaw may not fit beside
        what is kept. `POST /free` with `free_memory`, sent before the prompt, takes effect before it.
        """
        overlap = self._flags.overlap
        if self.residency.coming:
            return False  # it would be freed before those that wait there run, and not before this one
        there = self.residency.there_then
        wanted = frozenset[ModelRef]().union(*(chain.models for chain in own))
        size_of = self.residency.sizes.bytes_of
        missing = [size_of(ref) for ref in wanted - there]
        if overlap is Overlap.NOTHING or not missing or there <= wanted:
            return False
        arriving = max(missing) if overlap is Overlap.FIRST else sum(missing)
        total = sum(map(size_of, there)) + arriving
        most = most_bytes(self._machine, self._flags, self.residency.usage())
        return any(limit is not None and total > limit for limit in most)
