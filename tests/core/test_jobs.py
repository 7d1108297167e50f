"""The job table: every pair of state and trigger has exactly one meaning."""

import itertools
from pathlib import Path

import pytest

from proxy.core.jobs import (
    DECISIONS,
    ENDED,
    IGNORED,
    TRANSITIONS,
    UPSTREAM,
    IllegalTransitionError,
    State,
    Trigger,
    next_state,
    state_diagram,
)

PAIRS = list(itertools.product(State, Trigger))


@pytest.mark.parametrize(("state", "trigger"), PAIRS)
def test_every_pair_is_a_transition_or_ignored_or_impossible(state: State, trigger: Trigger) -> None:
    moves = trigger in TRANSITIONS[state]
    ignored = state in IGNORED.get(trigger, frozenset())
    impossible = trigger in DECISIONS and not moves
    assert [moves, ignored, impossible].count(True) == 1
    if impossible:
        with pytest.raises(IllegalTransitionError, match=state):
            next_state(state, trigger)
    else:
        assert next_state(state, trigger) == TRANSITIONS[state].get(trigger)


def test_no_decision_is_ever_ignored() -> None:
    assert not DECISIONS & IGNORED.keys()


def test_what_has_ended_stays_ended() -> None:
    assert all(not TRANSITIONS[state] for state in ENDED)


def test_an_end_is_reached_from_everywhere_whatever_the_route() -> None:
    for state in UPSTREAM:
        assert TRANSITIONS[state][Trigger.SUCCEEDED] is State.FINISHED
        assert TRANSITIONS[state][Trigger.ERRED] is State.FAILED


def test_every_state_can_be_reached_and_left() -> None:
    targets = {target for moves in TRANSITIONS.values() for target in moves.values()}
    assert targets | {State.ARRIVED} == set(State)
    assert all(TRANSITIONS[state] for state in State if state not in ENDED)


def test_a_cancelled_prompt_never_waits_again() -> None:
    unwanted = {State.WITHDRAWING, State.CANCELLING, State.INTERRUPTING}
    reachable = {target for state in unwanted for target in TRANSITIONS[state].values()}
    assert not reachable & {State.WAITING, State.ARRIVED, State.DISPATCHING, State.RECALLING}


def test_the_diagram_shows_every_arrow_once() -> None:
    lines = state_diagram().splitlines()
    assert lines[0] == "stateDiagram-v2"
    assert len(lines) == len(set(lines))
    arrows = {(a, b) for a, moves in TRANSITIONS.items() for b in moves.values() if a is not b}
    assert sum(" --> " in line and "[*]" not in line for line in lines) == len(arrows)


def test_the_page_shows_the_diagram() -> None:
    page = (Path(__file__).parents[2] / "docs" / "scheduling.md").read_text(encoding="utf-8")
    assert f"```mermaid\n{state_diagram()}\n```" in page
