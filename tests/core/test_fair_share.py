"""Fair share is a bound, not an alternation: scripts of clients beside each other, in virtual time."""

from itertools import pairwise

from proxy.core import commands as do
from proxy.core import events as ev
from proxy.core.jobs import State
from proxy.core.settings import Settings, Validate
from proxy.core.tiers import Tier
from tests.playbook import Playbook, ready, submit


class Shop:
    """A ComfyUI that does all it is told; every prompt runs 10 s, and its models are then in VRAM, nothing else is."""

    def __init__(self, settings: Settings) -> None:
        self.play = Playbook(settings)
        self.needs: dict[str, str] = {}
        self.queue: list[str] = []
        self.now = 0.0
        self.tell(ready())

    def tell(self, event: ev.Event) -> None:
        for command in self.play.scheduler.handle(event, self.now):
            if isinstance(command, do.Dispatch):
                self.queue.append(command.prompt_id)
                self.tell(ev.Dispatched(command.prompt_id))
            elif isinstance(command, do.Recall):
                self.queue.remove(command.prompt_id)
                self.tell(ev.RecallDone(command.prompt_id, started=False))

    def submit(self, prompt_id: str, needs: str, client: str) -> None:
        self.needs[prompt_id] = needs
        self.tell(submit(prompt_id, needs, client=client))

    def run(self) -> str:
        """The next prompt runs, and ends well."""
        prompt_id = self.queue.pop(0)
        self.tell(ev.Started(prompt_id))
        self.now += 10.0
        self.play.shelf.tiers.clear()
        self.play.shelf.put(Tier.HOT, self.needs[prompt_id])
        self.tell(ev.Finished(prompt_id, run_seconds=10.0))
        return prompt_id


def test_five_hundred_prompts_of_one_client_do_not_bury_two_of_another() -> None:
    shop = Shop(Settings(validate=Validate.DISPATCH, fair_quantum=60.0))
    for number in range(500):
        shop.submit(f"flood-{number}", "a", "flood")
    for _ in range(5):
        shop.run()
    shop.submit("two-1", "b", "small")
    shop.submit("two-2", "b", "small")
    ran = [shop.run() for _ in range(12)]
    # Six runs fill the quantum of 60 s; one more runs and one is staged already when the flood is held back.
    assert ran.index("two-1") <= 8
    assert ran.index("two-2") == ran.index("two-1") + 1


def test_two_clients_with_two_models_do_not_force_a_switch_at_every_prompt() -> None:
    shop = Shop(Settings(validate=Validate.DISPATCH, fair_quantum=60.0))
    for number in range(60):
        shop.submit(f"ann-{number}", "a", "ann")
        shop.submit(f"bob-{number}", "b", "bob")
    ran = [shop.run() for _ in range(120)]
    owners = [prompt_id.split("-")[0] for prompt_id in ran]
    switches = sum(one != other for one, other in pairwise(owners))
    assert switches <= 120 / 5
    # And neither is ever ahead by more than the quantum, the prompt at its edge and the one that was staged.
    lead = 0
    for owner in owners:
        lead += 10 if owner == "ann" else -10
        assert abs(lead) <= 60 + 2 * 10


def test_prompts_of_a_client_that_is_held_back_count_against_its_older_ones() -> None:
    """After a restart a runs and b is staged, both past `old`; that ann is held back for bob excuses neither."""
    play = Playbook(Settings(depth=2, validate=Validate.DISPATCH, max_bypass=2, fair_quantum=5.0))
    play.shelf.put(Tier.HOT, "m")
    states = {"a": State.RUNNING, "b": State.STAGED}
    journal = [("old", "n", "ann"), ("a", "m", "ann"), ("b", "m", "ann"), ("c", "m", "ann"), ("x", "m", "bob")]
    for number, (name, needs, client) in enumerate(journal):
        prompt = submit(name, needs, client=client)
        state = states.get(name, State.WAITING)
        play.when(ev.Restored(prompt=prompt, number=float(number), submitted=0.0, state=state)).then()
    play.when(ready(running=frozenset({"a"}), pending=("b",))).then()
    play.when(ev.Finished("a", run_seconds=10.0), after=10).then("End a, finished", "Dispatch x")
    play.when(ev.Dispatched("x")).then()
    play.run("b", "End b, finished", "Dispatch old [overdue]")
