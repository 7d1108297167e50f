"""The choice among those whose turn it may be: who passes the oldest, and how much is looked at for it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from normalizer.models import ModelSet
from proxy.core import events as ev
from proxy.core.commands import Code
from proxy.core.job import Job
from proxy.core.policy import SETS, choose
from proxy.core.scheduler import Scheduler
from proxy.core.settings import Settings, Validate
from proxy.core.tiers import Tier
from proxy.core.turns import WINDOW, Turn
from tests.playbook import Shelf, costs, models, ready, submit


def turn(*needs: str) -> Turn:
    jobs = [
        Job(
            prompt_id=f"p{place}",
            client="",
            models=models(need),
            sequence=place,
            number=place,
            place=place,
            fixed=False,
            priority=0,
            submitted=0.0,
        )
        for place, need in enumerate(needs)
    ]
    return Turn(tuple(jobs), frozenset())


def chosen(shelf: Shelf, *needs: str, upstream: Sequence[str] = ()) -> tuple[str, Code]:
    choice = choose(turn(*needs), costs(shelf), [models(names) for names in upstream])
    return choice.job.prompt_id, choice.code


def test_what_is_loaded_passes_what_would_displace_it() -> None:
    shelf = Shelf()
    shelf.put(Tier.HOT, "b")
    assert chosen(shelf, "a", "b", "b") == ("p1", Code.RESIDENT)


def test_what_will_be_loaded_by_then_passes() -> None:
    assert chosen(Shelf(), "a", "b", upstream=["b"]) == ("p1", Code.RESIDENT)


def test_a_cheap_one_that_stays_as_cheap_does_not_pass() -> None:
    """It costs 1 s now and 1 s behind the oldest: passing would spare nothing, and delay the oldest."""
    shelf = Shelf()
    shelf.put(Tier.WARM, "b")
    assert chosen(shelf, "a", "b") == ("p0", Code.OLDEST)


def test_the_greatest_saving_passes_even_if_something_has_to_be_loaded_for_it() -> None:
    """VRAM has room for one component; c is loaded, and so needs less in company of d than after the oldest."""
    shelf = Shelf()
    shelf.put(Tier.HOT, "c")
    choice = choose(turn("a", "c d"), costs(shelf), [models("c")])
    assert choice.job.prompt_id == "p1"
    assert choice.code is Code.CHEAPER
    assert choice.numbers["saved_seconds"] == pytest.approx(1.0)


def test_of_equal_savings_the_oldest_is_taken() -> None:
    shelf = Shelf()
    shelf.put(Tier.HOT, "b")
    assert chosen(shelf, "a", "b", "b", "b")[0] == "p1"


def test_only_one_is_no_choice() -> None:
    assert chosen(Shelf(), "a") == ("p0", Code.ONLY_ONE)


@dataclass
class Asked:
    """Costs that count how often they are asked."""

    times: int = 0
    after: list[int] = field(default_factory=list)

    def load_seconds(self, models: ModelSet, after: Sequence[ModelSet] = ()) -> float:
        self.times += 1
        self.after.append(len(after))
        return float(len(models) + len(after))


def test_the_work_of_a_choice_is_bounded() -> None:
    asked = Asked()
    choose(turn(*(f"m{place}" for place in range(WINDOW))), asked, [])
    assert asked.times <= 3 * SETS + 3


@pytest.mark.parametrize("waiting", [100, 3000])
def test_the_work_of_a_decision_does_not_grow_with_the_queue(waiting: int) -> None:
    """Prices asked for, and prompts at ComfyUI that each price looks at: the same bound for any length."""
    asked = Asked()
    scheduler = Scheduler(asked, Settings(validate=Validate.DISPATCH))
    scheduler.handle(ready(), 0.0)
    for number in range(waiting):
        scheduler.handle(submit(f"p{number}", f"m{number % 97}", client=f"c{number % 5}"), 0.0)
        if number < 2:
            scheduler.handle(ev.Dispatched(f"p{number}"), 0.0)
    scheduler.handle(ev.Started("p0"), 0.0)
    asked.times = 0
    scheduler.handle(ev.Finished("p0", run_seconds=1.0), 1.0)
    assert 0 < asked.times <= 2 * (3 * SETS + 3) + 2
    assert max(asked.after) <= 3
