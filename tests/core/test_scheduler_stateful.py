"""Whatever happens, in whatever order: nothing is lost, nothing runs twice, nobody waits longer than promised."""

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from proxy.core import events as ev
from proxy.core.jobs import State
from proxy.core.settings import Validate
from tests.core.world import Fate, World, small_settings
from tests.playbook import submit

ANSWERS = ["yes", "yes", "yes", "quick", "lost on the way", "lost on the way back"]


class Queue(RuleBasedStateMachine):
    """Clients, an operator, ComfyUI, the network and the clock, at random."""

    quantum = 1e9
    """By default nobody is ever ahead of anybody by more than a fair share."""

    world: World

    @initialize(
        validate=st.sampled_from(Validate),
        depth=st.integers(1, 3),
        bounds=st.sampled_from([(3, 1000.0), (1000, 8.0), (2, 12.0), (0, 0.0)]),
    )
    def begin(self, validate: Validate, depth: int, bounds: tuple[int, float]) -> None:
        self.world = World(small_settings(validate, depth, self.quantum, bounds))
        self.world.connect()

    @rule(
        needs=st.sampled_from(["a", "b", "c", "a b"]),
        client=st.sampled_from(["ann", "bob"]),
        priority=st.sampled_from([0, 0, 0, 1]),
        chain=st.sampled_from([None, None, "k"]),
        place=st.sampled_from([{}, {}, {}, {}, {"front": True}, {"number": 2.5}]),
        valid=st.sampled_from([True, True, True, False]),
    )
    def submit(
        self, needs: str, client: str, priority: int, chain: str | None, place: dict[str, object], valid: bool
    ) -> None:
        world = self.world
        prompt_id = f"p{len(world.fates)}"
        # One priority and no places in a chain: what these do to each other has scripts of its own.
        more = {"order_key": chain, "priority": 0} if chain else {"priority": priority, **place}
        prompt = submit(prompt_id, needs, client=client, **more)
        world.fates[prompt_id] = Fate(prompt, len(world.fates), valid, world.now)
        world.tell(prompt)

    @rule(needs=st.lists(st.sampled_from(["a", "b", "c"]), min_size=3, max_size=10))
    def submit_many(self, needs: list[str]) -> None:
        for need in needs:
            self.submit(need, "ann", 0, None, {}, valid=True)
            self.world.settle()

    @precondition(lambda self: self.world.connected and self.world.queue)
    @rule(seconds=st.lists(st.floats(0.5, 9.0), min_size=1, max_size=6))
    def work(self, seconds: list[float]) -> None:
        for spent in seconds:
            self.world.work(spent)
            self.holds()

    @precondition(lambda self: self.world.outstanding)
    @rule(data=st.data(), how=st.sampled_from(ANSWERS))
    def answer(self, data: st.DataObject, how: str) -> None:
        self.world.answer(data.draw(st.integers(0, len(self.world.outstanding) - 1)), how)

    @precondition(lambda self: self.world.running is None and self.world.queue)
    @rule()
    def start(self) -> None:
        self.world.start()

    @precondition(lambda self: self.world.running is not None)
    @rule(outcome=st.sampled_from([*[ev.Outcome.SUCCESS] * 4, *set(ev.Outcome) - {ev.Outcome.INTERRUPTED}]))
    def finish(self, outcome: ev.Outcome) -> None:
        self.world.finish(outcome)

    @precondition(lambda self: self.world.scheduler.context.ledger.doubtful)
    @rule(spoiled=st.booleans())
    def judge(self, spoiled: bool) -> None:
        self.world.judge(spoiled)

    @rule(seconds=st.floats(0.5, 12.0))
    def pass_time(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @precondition(lambda self: self.world.fates)
    @rule(data=st.data(), interrupt=st.booleans())
    def cancel(self, data: st.DataObject, interrupt: bool) -> None:
        prompt_id = data.draw(st.sampled_from(sorted(self.world.fates)))
        self.world.fates[prompt_id].unwanted = True
        self.world.tell(ev.CancelRequested(prompt_id, interrupt))

    @precondition(lambda self: self.world.running is not None)
    @rule()
    def interrupt(self) -> None:
        self.world.tell(ev.InterruptRequested())

    @precondition(lambda self: self.world.fates)
    @rule(data=st.data())
    def move_to_front(self, data: st.DataObject) -> None:
        prompt_id = data.draw(st.sampled_from(sorted(self.world.fates)))
        moved = self.world.fates[prompt_id]
        for fate in self.world.fates.values():
            in_chain = fate.prompt.order_key is not None and fate.prompt.order_key == moved.prompt.order_key
            fate.moved |= fate is moved or (in_chain and fate.prompt.client == moved.prompt.client)
        self.world.tell(ev.MoveToFront(prompt_id))

    @rule(paused=st.booleans())
    def pause(self, paused: bool) -> None:
        self.world.tell(ev.Paused() if paused else ev.Resumed())

    @rule(validate=st.sampled_from(Validate), depth=st.integers(1, 3), more=st.sampled_from([0, 0, 1]))
    def change_settings(self, validate: Validate, depth: int, more: int) -> None:
        """What was promised to those who wait is not taken back: the bounds only grow."""
        old = self.world.settings
        bounds = (old.max_bypass + more, old.max_wait + more)
        self.world.change(small_settings(validate, depth, self.quantum, bounds))

    @rule(present=st.booleans(), running=st.booleans())
    def foreign(self, present: bool, running: bool) -> None:
        self.world.tell(ev.ForeignSeen("stranger", running) if present else ev.ForeignGone("stranger"))

    @precondition(lambda self: self.world.connected)
    @rule(carried_out=st.booleans(), dies=st.booleans())
    def lose_comfyui(self, carried_out: bool, dies: bool) -> None:
        self.world.disconnect(carried_out)
        if dies:
            self.world.crash()

    @precondition(lambda self: not self.world.connected)
    @rule()
    def connect(self) -> None:
        self.world.connect()

    @precondition(lambda self: self.world.fates)
    @rule(carried_out=st.booleans())
    def restart_proxy(self, carried_out: bool) -> None:
        self.world.restart_proxy(carried_out)

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "world"):
            self.world.check()
            self.world.check_chains()
            self.check_bounds()

    def check_bounds(self) -> None:
        self.world.check_bounds(same_client_only=False)

    def teardown(self) -> None:
        """When the trouble is over, everything comes to an end."""
        if not hasattr(self, "world"):
            return
        world = self.world
        world.connect()
        world.tell(ev.ForeignGone("stranger"))
        world.tell(ev.Resumed())
        world.judge(spoiled=True)
        for _ in range(5 * len(world.fates) + 5):
            world.work(1.0)
        self.holds()
        for prompt_id, fate in world.fates.items():
            assert fate.answers or fate.orphan, f"never answered: {prompt_id}"
            if fate.accepted:
                assert len(fate.ends) == 1, f"lost: {prompt_id}, {world.scheduler.story(prompt_id)}"
                assert fate.ends[0].state is not State.FINISHED or fate.successes == 1


class FairQueue(Queue):
    """The same with shares that are soon used up: between clients fairness may pass over the bounds."""

    quantum = 5.0

    def check_bounds(self) -> None:
        self.world.check_bounds(same_client_only=True)


@pytest.mark.parametrize("machine", [Queue, FairQueue])
def test_nothing_is_lost_doubled_or_starved(machine: type[Queue]) -> None:
    case = machine.TestCase
    case.settings = settings(
        max_examples=150,
        stateful_step_count=60,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
        phases=[Phase.reuse, Phase.generate, Phase.shrink],
        report_multiple_bugs=False,
    )
    case().runTest()
