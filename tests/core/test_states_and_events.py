"""Every event in every state: what becomes of the prompt is what the table says, and its client is told once."""

import itertools
from collections.abc import Mapping
from typing import get_args

import pytest

from proxy.core import commands as do
from proxy.core import events as ev
from proxy.core.jobs import DECISIONS, ENDED, TRANSITIONS, UPSTREAM, State, Trigger
from proxy.core.scheduler import Scheduler
from proxy.core.settings import Settings
from tests.playbook import Shelf, costs, ready, submit

P = "p"
DISPATCHED = (ready(), submit(P), ev.Dispatched(P))
SHIELDED = (ready(), submit("r"), ev.Dispatched("r"), ev.Started("r"), submit("s"), ev.Dispatched("s"), submit(P))

WAYS: Mapping[State, tuple[ev.Event, ...]] = {
    State.ARRIVED: (ready(), submit("r"), submit(P)),
    State.PROBING: SHIELDED,
    State.WAITING: (*SHIELDED, ev.ProbeAccepted(P)),
    State.DISPATCHING: (ready(), submit(P)),
    State.STAGED: DISPATCHED,
    State.RECALLING: (*DISPATCHED, ev.Paused()),
    State.RUNNING: (*DISPATCHED, ev.Started(P)),
    State.UNCLEAR: (ready(), submit(P), ev.DispatchUnclear(P)),
    State.WITHDRAWING: (ready(), submit(P), ev.CancelRequested(P)),
    State.CANCELLING: (*DISPATCHED, ev.CancelRequested(P)),
    State.INTERRUPTING: (*DISPATCHED, ev.Started(P), ev.CancelRequested(P, interrupt=True)),
    State.DOUBTFUL: (*DISPATCHED, ev.Finished(P, ev.Outcome.DOUBTED, 1.0)),
    State.REFUSED: (ready(), submit(P), ev.DispatchRefused(P)),
    State.FINISHED: (*DISPATCHED, ev.Finished(P, run_seconds=1.0)),
    State.FAILED: (*DISPATCHED, ev.Finished(P, ev.Outcome.ERROR, 1.0)),
    State.CANCELLED: (*SHIELDED, ev.ProbeAccepted(P), ev.CancelRequested(P)),
}
"""How a prompt gets into each state."""

NOTHING: frozenset[Trigger] = frozenset()
EVENTS: Mapping[str, tuple[ev.Event, frozenset[Trigger]]] = {
    "submitted again": (submit(P), NOTHING),
    "probe accepted": (ev.ProbeAccepted(P), frozenset({Trigger.PROBE_ACCEPTED})),
    "probe refused": (ev.ProbeRefused(P), frozenset({Trigger.PROBE_REFUSED})),
    "probe slipped": (ev.ProbeSlipped(P), frozenset({Trigger.PROBE_SLIPPED})),
    "probe unclear": (ev.ProbeUnclear(P), frozenset({Trigger.PROBE_UNCLEAR})),
    "dispatched": (ev.Dispatched(P), frozenset({Trigger.DISPATCHED})),
    "dispatch refused": (ev.DispatchRefused(P), frozenset({Trigger.DISPATCH_REFUSED, Trigger.TURNED_DOWN})),
    "dispatch unclear": (ev.DispatchUnclear(P), frozenset({Trigger.DISPATCH_UNCLEAR})),
    "started": (ev.Started(P), frozenset({Trigger.STARTED})),
    "found pending": (ev.Located(P, ev.Where.PENDING), frozenset({Trigger.FOUND_PENDING, Trigger.FOUND_PARKED})),
    "found running": (ev.Located(P, ev.Where.RUNNING), frozenset({Trigger.FOUND_RUNNING})),
    "found absent": (ev.Located(P, ev.Where.ABSENT), frozenset({Trigger.FOUND_ABSENT, Trigger.VANISHED})),
    "recalled": (ev.RecallDone(P, started=False), frozenset({Trigger.RECALLED})),
    "recalled late": (ev.RecallDone(P, started=True), frozenset({Trigger.RECALL_LATE})),
    "succeeded": (ev.Finished(P, run_seconds=1.0), frozenset({Trigger.SUCCEEDED})),
    "erred": (ev.Finished(P, ev.Outcome.ERROR, 1.0), frozenset({Trigger.ERRED})),
    "interrupted": (ev.Finished(P, ev.Outcome.INTERRUPTED, 1.0), frozenset({Trigger.INTERRUPTED})),
    "doubted": (ev.Finished(P, ev.Outcome.DOUBTED, 1.0), frozenset({Trigger.DOUBTED})),
    "spoiled": (ev.Finished(P, ev.Outcome.SPOILED, 1.0), frozenset({Trigger.SPOILED})),
    "its own fault": (ev.Judged(P, spoiled=False), frozenset({Trigger.ERRED})),
    "not its own fault": (ev.Judged(P, spoiled=True), frozenset({Trigger.SPOILED})),
    "delete": (ev.CancelRequested(P), frozenset({Trigger.DELETE})),
    "cancel": (ev.CancelRequested(P, interrupt=True), frozenset({Trigger.CANCEL})),
    "clear": (ev.ClearRequested((P,)), frozenset({Trigger.DELETE})),
    "interrupt": (ev.InterruptRequested(P), frozenset({Trigger.CANCEL})),
    "lost": (ev.UpstreamLost(), frozenset({Trigger.LOST})),
    "ready again": (ready(), NOTHING),
    "foreign seen": (ev.ForeignSeen("stranger", running=False), NOTHING),
    "foreign gone": (ev.ForeignGone("stranger"), NOTHING),
    "paused": (ev.Paused(), NOTHING),
    "resumed": (ev.Resumed(), NOTHING),
    "moved": (ev.MoveToFront(P), NOTHING),
    "tick": (ev.Tick(), NOTHING),
    "settings": (ev.SettingsChanged(Settings(max_wait=1.0)), NOTHING),
}
"""Every event, with what it may mean for the prompt."""


class Told:
    """A scheduler, and how often the client of the prompt was answered, and its end told."""

    def __init__(self, way: tuple[ev.Event, ...]) -> None:
        self.scheduler = Scheduler(costs(Shelf()))
        self.answers = self.ends = 0
        for event in way:
            self.tell(event)

    def tell(self, event: ev.Event) -> None:
        for command in self.scheduler.handle(event, 0.0):
            if command.prompt_id == P:
                self.answers += isinstance(command, do.Accept | do.Refuse)
                self.ends += isinstance(command, do.End)

    @property
    def state(self) -> State:
        state = self.scheduler.state(P)
        assert state is not None
        return state


def after(state: State, triggers: frozenset[Trigger]) -> set[State]:
    """What the table makes of it, and what the scheduler may decide, or had been asked for, at once."""
    targets = {TRANSITIONS[state].get(trigger, state) for trigger in triggers} or {state}
    at_once = (*DECISIONS, Trigger.CANCEL)
    moves = [TRANSITIONS[target] for target in targets]
    return targets | {move[trigger] for move in moves for trigger in at_once if trigger in move}


def test_every_event_and_every_state_is_here() -> None:
    # `Restored` comes before everything else, never to a prompt that is known.
    assert {type(event) for event, _ in EVENTS.values()} == set(get_args(ev.Event)) - {ev.Restored}
    assert WAYS.keys() == set(State)


@pytest.mark.parametrize("state", State)
def test_the_ways_lead_there(state: State) -> None:
    assert Told(WAYS[state]).state is state


@pytest.mark.parametrize(("state", "name"), list(itertools.product(State, EVENTS)))
def test_an_event_does_what_the_table_says(state: State, name: str) -> None:
    event, triggers = EVENTS[name]
    told = Told(WAYS[state])
    told.tell(event)
    if name == "submitted again" and state in ENDED:
        assert told.state not in ENDED
        return
    if name == "ready again":
        assert told.state not in UPSTREAM - {State.DISPATCHING, State.PROBING}
    elif (name == "interrupt" and state is not State.RUNNING) or ("own fault" in name and state is not State.DOUBTFUL):
        assert told.state is state
    else:
        assert told.state in after(state, triggers)
    if state in ENDED:
        assert told.state is state
    assert told.answers <= 1
    assert told.ends == (told.state in ENDED - {State.REFUSED})
    no_orphan_is_left(told)


def no_orphan_is_left(told: Told) -> None:
    """A new ComfyUI comes: nothing stays in a state that waits for an answer of the old one."""
    told.tell(ev.UpstreamLost())
    told.tell(ready(new_process=True))
    assert told.state in ENDED | {State.WAITING, State.DISPATCHING}
    assert told.answers + told.ends >= 1
