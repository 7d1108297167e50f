"""What is foretold is what happens, when everything goes as expected; and asking changes nothing."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from normalizer.models import ModelSet
from proxy.core import commands as do
from proxy.core import events as ev
from proxy.core.costs import ResidentCosts
from proxy.core.outlook import LOOK_AHEAD, Expected, outlook
from proxy.core.scheduler import Scheduler
from proxy.core.settings import Settings
from tests.playbook import Shelf, costs, ready, submit

STEADY = Settings(max_bypass=4, max_wait=60.0, fair_quantum=1e9, recall_gain=1e9, age_step=1e9)
"""Bounds that are met within a few prompts; nothing staged is called back, which the outlook does not foresee."""
FAIR = replace(STEADY, fair_quantum=25.0)


class Course:
    """A ComfyUI in which every prompt takes exactly as long as the scheduler expects."""

    def __init__(self, settings: Settings = STEADY) -> None:
        self.resident: ResidentCosts = costs(Shelf())
        self.ran: list[ModelSet] = []
        self.asked = 0
        self.scheduler = Scheduler(self, settings)
        self.now = 0.0
        self.started: list[tuple[str, float]] = []
        self.log: list[list[do.Command]] = []

    def load_seconds(self, needed: ModelSet, after: Sequence[ModelSet] = ()) -> float:
        self.asked += 1
        return self.resident.load_seconds(needed, (*self.ran, *after))

    def tell(self, event: ev.Event) -> None:
        commands = self.scheduler.handle(event, self.now)
        self.log.append(commands)
        for command in commands:
            if isinstance(command, do.Dispatch):
                self.tell(ev.Dispatched(command.prompt_id))
            elif isinstance(command, do.Probe):
                self.tell(ev.ProbeAccepted(command.prompt_id))
            elif isinstance(command, do.Recall):
                self.tell(ev.RecallDone(command.prompt_id, started=False))
        upstream = self.scheduler.context.ledger
        if upstream.running() is None and (staged := upstream.at_comfyui()):
            self.started.append((staged[0].prompt_id, self.now))
            self.tell(ev.Started(staged[0].prompt_id))

    def finish(self) -> bool:
        """The running prompt ends; False when none runs."""
        job = self.scheduler.context.ledger.running()
        if job is None or job.started is None:
            return False
        self.now = job.started + job.estimate
        work = self.scheduler.context.ledger.durations.estimate(job.workload, job.models)
        self.ran.append(job.models)
        self.tell(ev.Finished(job.prompt_id, run_seconds=job.estimate, load_seconds=job.estimate - work))
        return True

    def ask(self) -> list[Expected]:
        return list(outlook(self.scheduler.context, self.now))


PROMPTS: st.SearchStrategy[list[dict[str, Any]]] = st.lists(
    st.builds(
        dict,
        needs=st.sampled_from(["a", "b", "c", "a t", "b t", "c u"]),
        client=st.sampled_from(["x", "y", "z"]),
        priority=st.sampled_from([0, 0, 0, 1, -1]),
        order_key=st.sampled_from([None, None, "k"]),
        front=st.sampled_from([False, False, False, True]),
    ),
    max_size=25,
)


def submitted(prompts: Sequence[dict[str, Any]], course: Course, name: str = "p") -> None:
    for index, prompt in enumerate(prompts):
        course.tell(submit(f"{name}{index}", **prompt))


@given(PROMPTS, st.integers(0, 5), PROMPTS)
def test_what_is_foretold_is_what_happens(first: list[dict[str, Any]], ends: int, then: list[dict[str, Any]]) -> None:
    course = Course()
    course.tell(ready())
    submitted(first, course)
    for _ in range(ends):
        course.finish()
    submitted(then, course, "q")
    foretold = course.ask()
    running = course.scheduler.context.ledger.running()
    course.started = [] if running is None or running.started is None else [(running.prompt_id, running.started)]
    while course.finish():
        pass
    assert [item.prompt_id for item in foretold] == [prompt_id for prompt_id, _ in course.started]
    assert [item.start for item in foretold] == pytest.approx([at for _, at in course.started])


def foretold_and_seen(course: Course, ends: int) -> tuple[list[str], list[str]]:
    """What is foretold after some ends, and what came from then on."""
    for _ in range(ends):
        course.finish()
    foretold = [item.prompt_id for item in course.ask()]
    already = len(course.started) - 1
    while course.finish():
        pass
    return foretold, [prompt_id for prompt_id, _ in course.started][already:]


@pytest.mark.parametrize("ends", range(12))
def test_a_client_that_is_held_back_is_foretold_to_be(ends: int) -> None:
    course = Course(FAIR)
    course.tell(ready())
    submitted([{"needs": "a", "client": "flood"}] * 12, course)
    submitted([{"needs": "a", "client": "small"}] * 8, course, "q")
    foretold, seen = foretold_and_seen(course, ends)
    assert foretold == seen
    assert foretold[-1].startswith("p")


@pytest.mark.parametrize("ends", range(5))
def test_a_prompt_that_has_been_passed_often_is_foretold_to_be_next(ends: int) -> None:
    course = Course()
    course.tell(ready())
    submitted([{"needs": need} for need in "aabaaaaaa"], course)
    foretold, seen = foretold_and_seen(course, ends)
    assert foretold == seen
    assert course.started[5][0] == "p2"


@given(PROMPTS, st.lists(st.sampled_from(["submit", "finish", "pause", "resume"]), max_size=40))
def test_asking_changes_nothing(prompts: list[dict[str, Any]], steps: list[str]) -> None:
    asked, unasked = Course(FAIR), Course(FAIR)
    facts: dict[str, ev.Event] = {"ready": ready(), "pause": ev.Paused(), "resume": ev.Resumed()}
    left = {course: iter(enumerate(prompts)) for course in (asked, unasked)}
    for step in ["ready", *steps, "resume"]:
        for course in (asked, unasked):
            if step == "submit":
                for index, prompt in islice(left[course], 1):
                    course.tell(submit(f"p{index}", **prompt))
            elif step == "finish":
                course.finish()
            else:
                course.tell(facts[step])
        asked.ask()
        assert asked.log == unasked.log


@given(PROMPTS, st.booleans())
def test_every_prompt_is_foretold_once_whatever_the_queue_waits_for(
    prompts: list[dict[str, Any]], paused: bool
) -> None:
    course = Course()
    if paused:
        course.tell(ready())
        course.tell(ev.Paused())
    submitted(prompts, course)
    foretold = course.ask()
    assert sorted(item.prompt_id for item in foretold) == sorted(f"p{index}" for index in range(len(prompts)))
    assert all(before.end <= after.start + 1e-6 for before, after in pairwise(foretold))
    chains: dict[object, list[int]] = {}
    for item in foretold:
        index = int(item.prompt_id[1:])
        if prompts[index]["order_key"] is not None:
            chains.setdefault(prompts[index]["client"], []).append(index)
    assert all(chain == sorted(chain) for chain in chains.values())


def test_a_prompt_that_takes_longer_than_expected_is_about_to_end() -> None:
    course = Course()
    course.tell(ready())
    submitted([{"needs": "a"}, {"needs": "a"}], course)
    course.now = 1000.0
    running, staged = course.ask()
    assert (running.start, running.end) == (0.0, 1000.0)
    assert staged.start == 1000.0


def test_prompts_of_others_come_first() -> None:
    course = Course()
    course.tell(ready())
    course.tell(ev.ForeignSeen("theirs", running=True))
    course.tell(ev.ForeignSeen("theirs too", running=False))
    course.tell(submit("ours", "a"))
    assert course.ask() == [Expected("ours", 20.0, 40.0)]


def test_what_is_called_back_still_counts() -> None:
    scheduler = Scheduler(costs(Shelf()))
    for event in (ready(), submit("r"), ev.Dispatched("r"), ev.Started("r"), submit("s"), ev.Dispatched("s")):
        scheduler.handle(event, 0.0)
    assert [type(command) for command in scheduler.handle(ev.Paused(), 0.0)] == [do.Recall]
    assert [item.prompt_id for item in outlook(scheduler.context, 0.0)] == ["r", "s"]


def test_ten_thousand_prompts_cost_no_more_questions_than_a_thousand() -> None:
    asked = []
    for count in (1_000, 10_000):
        course = Course()
        for index in range(count):
            restored = submit(f"p{index}", f"m{index % 7}", client=f"c{index % 5}")
            course.tell(ev.Restored(prompt=restored, number=float(index), submitted=0.0))
        course.tell(ready())
        course.asked = 0
        assert len(course.ask()) == count
        asked.append(course.asked)
    assert asked[0] == asked[1]


def test_behind_the_look_ahead_the_order_is_plain() -> None:
    course = Course()
    needs = ["a", "b"] * LOOK_AHEAD
    for index, need in enumerate(needs):
        course.tell(ev.Restored(prompt=submit(f"p{index}", need), number=float(index), submitted=0.0))
    course.tell(ready())
    places = [int(item.prompt_id[1:]) for item in course.ask()]
    assert places[: LOOK_AHEAD + 2] != sorted(places[: LOOK_AHEAD + 2])
    assert places[LOOK_AHEAD + 2 :] == sorted(places[LOOK_AHEAD + 2 :])


def test_whoever_asks_for_less_gets_the_rest_plainly() -> None:
    course = Course()
    for index in range(10):
        course.tell(ev.Restored(prompt=submit(f"p{index}", "ab"[index % 2]), number=float(index), submitted=0.0))
    plain = [item.prompt_id for item in outlook(course.scheduler.context, 0.0, look_ahead=0)]
    assert plain == [f"p{index}" for index in range(10)]


def test_what_is_expected_while_nothing_may_be_sent() -> None:
    course = Course()
    course.tell(ready())
    for prompt_id in ("a", "b", "c"):
        course.tell(submit(prompt_id, "a"))
    course.tell(ev.SettingsChanged(replace(STEADY, depth=0)))
    assert [item.prompt_id for item in outlook(course.scheduler.context, course.now)] == ["a", "b", "c"]
