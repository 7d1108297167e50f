"""`due` and `next_due` under clock changes, clock jumps, failures and restarts, against an oracle of minutes."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.warmup.cron_oracle import CHANGES, Oracle
from warmup.entries import Entry, Trigger
from warmup.schedule import Planned, Schedule
from warmup.state import LONGEST_BACKOFF, RESETTLE, Outcome, Result, State

HOUR = 3600.0
T0 = datetime(2024, 3, 30, 12, tzinfo=UTC).timestamp()
LINES = st.sampled_from(["0 8 * * *", "30 2 * * *", "*/20 * * * *", "0 0 * * mon-fri", "15 1,2,3 * * *", "0 */6 * * *"])
DONE, FAILED = Result.WARMED, Result.FAILED


def schedule_of(*entries: dict[str, object]) -> Schedule:
    made = [Entry.model_validate({"loader": "VAELoader", **entry}) for entry in entries]
    return Schedule(Path("warmup.toml"), tuple(Planned(entry, None, entry.model_dump_json()) for entry in made))


def names(schedule: Schedule, state: State, now: float) -> list[str]:
    return [due.planned.name for due in schedule.due(state, now)]


def run(state: State, name: str, now: float, result: Result = DONE, seconds: float = 1.0) -> State:
    entry = state.entries[name]
    triggers = tuple(sorted(entry.pending)) or (Trigger.CRON,)
    return state.with_entry(
        name, entry.started(now).finished(Outcome(now + seconds, result, seconds, "because", triggers))
    )


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("pass"), st.integers(1, 40 * 60)),
        st.tuples(st.just("set back"), st.integers(1, 23 * 60)),
        st.tuples(st.just("restart"), st.just(0)),
        st.tuples(st.just("run"), st.just(0)),
    ),
    max_size=12,
)


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(CHANGES), LINES, st.integers(0, 4 * 60 * 60), STEPS)
def test_a_passed_time_runs_once_whatever_the_clock_does(
    change: tuple[str, datetime], line: str, seconds: int, steps: list[tuple[str, int]]
) -> None:
    """From some hours before a change of the clock on."""
    zone, moment = change
    schedule = schedule_of({"name": "a", "cron": line, "timezone": zone})
    oracle = Oracle(line, zone)
    now = moment.timestamp() - seconds
    state = State().known(schedule.definitions, now)
    done_until = now
    for step, minutes in steps:
        if step == "pass":
            now += minutes * 60
        elif step == "set back":
            now -= minutes * 60
        elif step == "restart":
            state = State.from_json(state.to_json()).known(schedule.definitions, now)
        elif names(schedule, state, now):
            state = run(state, "a", now, seconds=0)
            done_until = max(done_until, now)
        if done_until - now > 24 * HOUR:
            return  # further back than the rule covers
        passed = oracle.between(done_until, now)
        assert names(schedule, state, now) == (["a"] if passed else [])
        following = schedule.next_due(state, now)
        assert following is not None
        assert following >= now
        if passed:
            assert following == now
        else:
            assert oracle.between(done_until, following) == [following]
            assert names(schedule, state, following - 1) == []
            assert names(schedule, state, following) == ["a"]


def test_times_missed_while_asleep_run_once() -> None:
    schedule = schedule_of({"name": "a", "cron": "0 * * * *"})
    state = State().known(schedule.definitions, T0)
    now = T0 + 10 * HOUR + 5
    assert names(schedule, state, now) == ["a"]
    state = run(state, "a", now)
    assert names(schedule, state, now + 2) == []
    assert schedule.next_due(state, now + 2) == T0 + 11 * HOUR


def test_a_time_that_comes_while_the_entry_runs_is_not_lost() -> None:
    schedule = schedule_of({"name": "a", "cron": "0 * * * *"})
    state = State().known(schedule.definitions, T0)
    state = run(state, "a", T0 + HOUR, seconds=1.5 * HOUR)
    assert names(schedule, state, T0 + 2.5 * HOUR) == ["a"]


def test_a_clock_that_was_years_ahead_does_not_silence_an_entry() -> None:
    schedule = schedule_of({"name": "a", "cron": "0 * * * *"})
    state = State().known(schedule.definitions, T0 + 5 * 365 * 24 * HOUR)
    assert schedule.next_due(state, T0) == T0 + HOUR
    state = run(state, "a", T0 + HOUR)
    assert schedule.next_due(state, T0 + HOUR + 1) == T0 + 2 * HOUR


def test_a_run_for_another_reason_after_the_clock_was_set_back_runs_no_time_twice() -> None:
    schedule = schedule_of({"name": "a", "cron": "0 13 * * *"})
    state = run(State().known(schedule.definitions, T0), "a", T0 + HOUR)
    state = run(state.triggered(["a"], Trigger.START, T0), "a", T0)
    assert names(schedule, state, T0 + HOUR) == []
    assert schedule.next_due(state, T0 + HOUR) == T0 + 25 * HOUR


def test_a_new_or_changed_entry_has_missed_nothing() -> None:
    before = schedule_of({"name": "a", "cron": "0 8 * * *"})
    after = schedule_of({"name": "a", "cron": "0 11 * * *"}, {"name": "b", "cron": "0 11 * * *"})
    state = State().known(before.definitions, T0 - 5 * HOUR)
    assert names(before, state, T0) == ["a"]
    state = state.known(after.definitions, T0)
    assert names(after, state, T0) == []
    assert after.next_due(state, T0) == T0 + 23 * HOUR


def test_triggers_at_once_are_one_run() -> None:
    schedule = schedule_of({"name": "a", "on": ["start", "upstream-start"], "cron": "* * * * *"})
    state = State().known(schedule.definitions, T0)
    for trigger in (Trigger.START, Trigger.UPSTREAM_START, Trigger.START):
        state = state.triggered(["a"], trigger, T0)
    [due] = schedule.due(state, T0 + 60)
    assert due.triggers == (Trigger.CRON, Trigger.START, Trigger.UPSTREAM_START)
    state = run(state, "a", T0 + 60)
    assert schedule.due(state, T0 + 61) == ()


def test_a_trigger_during_the_run_counts_only_if_it_undoes_the_run() -> None:
    schedule = schedule_of({"name": "a"})
    running = State().known(schedule.definitions, T0)
    running = running.with_entry("a", running.entries["a"].started(T0))
    done = Outcome(T0 + 2, DONE, 2.0, "", (Trigger.START,))
    for trigger, again in ((Trigger.IDLE, False), (Trigger.MANUAL, False), (Trigger.UPSTREAM_START, True)):
        state = running.triggered(["a"], trigger, T0 + 1)
        assert names(schedule, state, T0 + 1) == [], "it runs already"
        assert schedule.next_due(state, T0 + 1) is None
        state = state.with_entry("a", state.entries["a"].finished(done))
        assert names(schedule, state, T0 + 3) == (["a"] if again else [])


def test_priority_then_order_in_the_file_and_people_first() -> None:
    schedule = schedule_of(
        {"name": "low", "priority": -1}, {"name": "a"}, {"name": "b"}, {"name": "high", "priority": 5}, {"name": "c"}
    )
    state = State().known(schedule.definitions, T0).triggered(["low", "a", "b", "high", "c"], Trigger.START, T0)
    assert names(schedule, state, T0) == ["high", "a", "b", "c", "low"]
    assert names(schedule, state.triggered(["low"], Trigger.MANUAL, T0), T0) == ["low", "high", "a", "b", "c"]


def test_failures_back_off_up_to_an_hour_and_a_success_ends_it() -> None:
    schedule = schedule_of({"name": "bad", "cron": "0 13 * * *"}, {"name": "good", "cron": "0 13 * * *"})
    now = T0 + HOUR
    state = State().known(schedule.definitions, T0)
    waits = []
    for _ in range(9):
        assert "bad" in names(schedule, state, now)
        state = run(state, "bad", now, FAILED, seconds=0)
        assert names(schedule, state, now) == ["good"], "one failing entry does not stop the others"
        following = schedule.next_for(schedule.entries[0], state, now)
        assert following is not None
        waits.append(following - now)
        now = following
    assert waits == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
    state = run(state, "bad", now)
    assert state.entries["bad"].failures == 0
    assert names(schedule, state, now) == ["good"]


def test_a_failed_trigger_is_tried_again_but_a_person_is_only_told() -> None:
    schedule = schedule_of({"name": "a"})
    state = State().known(schedule.definitions, T0)
    failed = run(state.triggered(["a"], Trigger.START, T0), "a", T0, FAILED)
    assert names(schedule, failed, T0 + 62) == ["a"]
    asked = failed.triggered(["a"], Trigger.MANUAL, T0 + 5)
    assert names(schedule, asked, T0 + 5) == ["a"], "a person does not wait for the back-off"
    told = run(state.triggered(["a"], Trigger.MANUAL, T0), "a", T0, FAILED)
    assert names(schedule, told, T0 + 10 * HOUR) == []


def test_a_back_off_outlives_a_restart_but_not_a_clock_set_back() -> None:
    schedule = schedule_of({"name": "a", "cron": "0 13 * * *"})
    now = T0 + HOUR
    state = run(State().known(schedule.definitions, T0), "a", now, FAILED, seconds=0)
    state = State.from_json(state.to_json()).known(schedule.definitions, now)
    assert names(schedule, state, now + 59) == []
    assert names(schedule, state, now + 60) == ["a"]
    entry = replace(state.entries["a"], retry_at=now + 2 * LONGEST_BACKOFF)
    assert names(schedule, state.with_entry("a", entry), now) == ["a"]


def test_models_that_evict_each_other_are_not_warmed_in_a_circle() -> None:
    schedule = schedule_of({"name": "a", "on": ["evicted"]})
    now = T0
    state = State().known(schedule.definitions, T0).triggered(["a"], Trigger.EVICTED, now)
    waits = []
    for _ in range(5):
        following = schedule.next_due(state, now)
        assert following is not None
        waits.append(following - now)
        state = run(state, "a", following)
        now = following + 20
        state = state.triggered(["a"], Trigger.EVICTED, now)
    assert waits == [0, 60, 120, 240, 480]
    state = run(state, "a", now + HOUR)
    state = state.triggered(["a"], Trigger.EVICTED, now + HOUR + RESETTLE + 2)
    assert names(schedule, state, now + HOUR + RESETTLE + 2) == ["a"], "it stayed for long enough: no wait"


def test_the_first_eviction_after_another_warm_up_waits_for_nothing() -> None:
    schedule = schedule_of({"name": "a", "on": ["start", "evicted"]})
    state = run(State().known(schedule.definitions, T0).triggered(["a"], Trigger.START, T0), "a", T0)
    state = state.triggered(["a"], Trigger.EVICTED, T0 + 20)
    assert names(schedule, state, T0 + 20) == ["a"], "whoever freed the memory did not do so for want of it"
    state = run(state, "a", T0 + 20).triggered(["a"], Trigger.EVICTED, T0 + 40)
    assert schedule.next_due(state, T0 + 40) == T0 + 100, "what made it go now was its coming back"


def test_the_state_survives_as_json_except_what_a_restart_makes_anew() -> None:
    schedule = schedule_of({"name": "a", "cron": "0 13 * * *"}, {"name": "b"})
    state = State().known(schedule.definitions, T0)
    state = run(state.triggered(["b"], Trigger.START, T0), "b", T0, Result.TIMED_OUT)
    read = State.from_json(state.to_json())
    assert read.entries["a"] == state.entries["a"]
    assert read.entries["b"] == replace(state.entries["b"], pending=frozenset())


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"version": 2, "entries": {}}', '{"version": 1, "entries": {"a": 1}}']
)
def test_what_is_no_state(text: str) -> None:
    with pytest.raises(ValueError, match="not a state"):
        State.from_json(text)
