"""What can become of one prompt, as data.

A prompt passes through many hands at once: its client may cancel it while ComfyUI still decides whether it is valid, it
may start while it is being called back, ComfyUI may die under it. Written as code, such cases hide in branches; here
they are a table of (state, trigger) pairs. Every pair is a transition, is ignored on purpose, or is impossible: a fault
of ours, and raises. What ComfyUI or a client does is never impossible. The docs' diagram is drawn from this table.

Triggers are not the scheduler's events: one event can mean different triggers (a lookup that finds nothing means one
thing for a prompt ComfyUI had confirmed, another for one it had not), and some triggers are decisions of the scheduler.
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum


class State(StrEnum):
    """Where a prompt is."""

    ARRIVED = "arrived"
    """Submitted; neither answered nor shown to ComfyUI yet."""
    PROBING = "probing"
    """At ComfyUI for validation only, far behind everything else, about to be taken out again."""
    WAITING = "waiting"
    """Held here."""
    DISPATCHING = "dispatching"
    """Sent to run; ComfyUI has not answered yet."""
    STAGED = "staged"
    """In ComfyUI's queue, to run."""
    RECALLING = "recalling"
    """Being taken out of ComfyUI's queue, to wait here again."""
    RUNNING = "running"
    UNCLEAR = "unclear"
    """May or may not be at ComfyUI; to be looked up."""
    WITHDRAWING = "withdrawing"
    """To be cancelled as soon as it is known where it is."""
    CANCELLING = "cancelling"
    """Being taken out of ComfyUI's queue for good."""
    INTERRUPTING = "interrupting"
    """Running, and ComfyUI has been asked to stop it."""
    DOUBTFUL = "doubtful"
    """Its run has failed, and whether that was its own fault is to be seen; its client does not know yet."""
    REFUSED = "refused"
    """Never accepted: ComfyUI's validation or a limit of ours said no."""
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Trigger(StrEnum):
    """What moves a prompt from one state to another."""

    # decisions of the scheduler
    HOLD = "hold"
    PROBE = "probe"
    DISPATCH = "dispatch"
    RECALL = "recall"
    # answers of ComfyUI
    PROBE_ACCEPTED = "probe accepted"
    PROBE_REFUSED = "probe refused"
    PROBE_SLIPPED = "probe slipped"
    PROBE_UNCLEAR = "probe unclear"
    DISPATCHED = "dispatched"
    DISPATCH_REFUSED = "dispatch refused"
    """Validation failed at dispatch, after the client had been told that the prompt was accepted."""
    TURNED_DOWN = "turned down"
    """Validation failed at dispatch, and the client still waits for its answer."""
    DISPATCH_UNCLEAR = "dispatch unclear"
    RECALLED = "recalled"
    RECALL_LATE = "recall late"
    # what a look at ComfyUI's queue and history shows
    FOUND_PENDING = "found pending"
    FOUND_PARKED = "found parked"
    """Found pending at the place of a probe: it would run, but after everything else."""
    FOUND_RUNNING = "found running"
    FOUND_ABSENT = "found absent"
    """Not there, and nothing says that it ever was."""
    VANISHED = "vanished"
    """Not there although it was, in a ComfyUI that lives on: somebody else removed it."""
    GONE = "gone"
    """Lost with the ComfyUI process that had it."""
    # its run
    STARTED = "started"
    SUCCEEDED = "succeeded"
    ERRED = "erred"
    INTERRUPTED = "interrupted"
    DOUBTED = "doubted"
    """Failed, perhaps for a cause outside the prompt."""
    SPOILED = "spoiled"
    """Failed for a cause outside the prompt; to be run again."""
    SPENT = "spent"
    """Spoiled or gone, and not to be run again."""
    # wishes of people, and the connection
    DELETE = "delete"
    """Take it out unless it runs."""
    CANCEL = "cancel"
    """Take it out, interrupt it if it runs."""
    LOST = "lost"
    """The connection to ComfyUI is gone."""


DECISIONS = frozenset({Trigger.HOLD, Trigger.PROBE, Trigger.DISPATCH, Trigger.RECALL})
"""Triggers that only the scheduler pulls: in a state without a transition for one, pulling it is a fault of ours."""

ENDED = frozenset({State.REFUSED, State.FINISHED, State.FAILED, State.CANCELLED})
HELD = frozenset({State.ARRIVED, State.WAITING})
"""Only here."""
UPSTREAM = frozenset(State) - ENDED - HELD - {State.DOUBTFUL}
"""At ComfyUI, or possibly so."""
RUNS = frozenset({State.RUNNING, State.INTERRUPTING})

_ENDINGS: Mapping[Trigger, State] = {
    Trigger.SUCCEEDED: State.FINISHED,
    Trigger.ERRED: State.FAILED,
    Trigger.DOUBTED: State.DOUBTFUL,
    Trigger.INTERRUPTED: State.CANCELLED,
    Trigger.SPENT: State.FAILED,
}
"""However a prompt got to run, its end is its end: events overtake answers."""
_RUN: Mapping[Trigger, State] = {
    **_ENDINGS,
    Trigger.STARTED: State.RUNNING,
    Trigger.FOUND_RUNNING: State.RUNNING,
    Trigger.SPOILED: State.WAITING,
}
_RUN_UNWANTED: Mapping[Trigger, State] = {
    **_RUN,
    Trigger.DOUBTED: State.FAILED,
    Trigger.SPOILED: State.CANCELLED,
}
"""As `_RUN`, for one that nobody wants any more."""

TRANSITIONS: Mapping[State, Mapping[Trigger, State]] = {
    State.ARRIVED: {
        Trigger.PROBE: State.PROBING,
        Trigger.HOLD: State.WAITING,
        Trigger.DISPATCH: State.DISPATCHING,
        Trigger.DELETE: State.CANCELLED,
        Trigger.CANCEL: State.CANCELLED,
    },
    State.PROBING: {
        **_RUN,
        Trigger.PROBE_ACCEPTED: State.WAITING,
        Trigger.PROBE_REFUSED: State.REFUSED,
        Trigger.PROBE_SLIPPED: State.RUNNING,
        Trigger.PROBE_UNCLEAR: State.UNCLEAR,
        Trigger.DELETE: State.WITHDRAWING,
        Trigger.CANCEL: State.WITHDRAWING,
        Trigger.LOST: State.UNCLEAR,
    },
    State.WAITING: {
        # A submission given up for lost may still reach ComfyUI: then it runs, and must not be sent again.
        **_RUN,
        Trigger.FOUND_PENDING: State.STAGED,
        Trigger.FOUND_PARKED: State.RECALLING,
        Trigger.DISPATCH: State.DISPATCHING,
        Trigger.DELETE: State.CANCELLED,
        Trigger.CANCEL: State.CANCELLED,
    },
    State.DISPATCHING: {
        **_RUN,
        Trigger.DISPATCHED: State.STAGED,
        Trigger.DISPATCH_REFUSED: State.FAILED,
        Trigger.TURNED_DOWN: State.REFUSED,
        Trigger.DISPATCH_UNCLEAR: State.UNCLEAR,
        Trigger.DELETE: State.WITHDRAWING,
        Trigger.CANCEL: State.WITHDRAWING,
        Trigger.LOST: State.UNCLEAR,
    },
    State.STAGED: {
        **_RUN,
        Trigger.RECALL: State.RECALLING,
        Trigger.VANISHED: State.FAILED,
        Trigger.DELETE: State.CANCELLING,
        Trigger.CANCEL: State.CANCELLING,
        Trigger.LOST: State.UNCLEAR,
    },
    State.RECALLING: {
        **_RUN,
        Trigger.RECALLED: State.WAITING,
        Trigger.RECALL_LATE: State.RUNNING,
        Trigger.DELETE: State.CANCELLING,
        Trigger.CANCEL: State.CANCELLING,
        Trigger.LOST: State.UNCLEAR,
    },
    State.RUNNING: {
        **_ENDINGS,
        Trigger.SPOILED: State.WAITING,
        Trigger.VANISHED: State.FAILED,
        Trigger.CANCEL: State.INTERRUPTING,
        Trigger.LOST: State.UNCLEAR,
    },
    State.UNCLEAR: {
        **_RUN,
        Trigger.FOUND_PENDING: State.STAGED,
        Trigger.FOUND_PARKED: State.RECALLING,
        Trigger.FOUND_ABSENT: State.WAITING,
        Trigger.GONE: State.WAITING,
        Trigger.VANISHED: State.FAILED,
        Trigger.DELETE: State.WITHDRAWING,
        Trigger.CANCEL: State.WITHDRAWING,
    },
    State.WITHDRAWING: {
        **_RUN_UNWANTED,
        Trigger.PROBE_ACCEPTED: State.CANCELLED,
        Trigger.PROBE_REFUSED: State.REFUSED,
        Trigger.PROBE_SLIPPED: State.RUNNING,
        Trigger.PROBE_UNCLEAR: State.WITHDRAWING,
        Trigger.DISPATCHED: State.CANCELLING,
        Trigger.DISPATCH_REFUSED: State.CANCELLED,
        Trigger.TURNED_DOWN: State.REFUSED,
        Trigger.DISPATCH_UNCLEAR: State.WITHDRAWING,
        Trigger.FOUND_PENDING: State.CANCELLING,
        Trigger.FOUND_PARKED: State.CANCELLING,
        Trigger.FOUND_ABSENT: State.CANCELLED,
        Trigger.GONE: State.CANCELLED,
        Trigger.VANISHED: State.CANCELLED,
        Trigger.CANCEL: State.WITHDRAWING,
    },
    State.CANCELLING: {
        **_RUN_UNWANTED,
        Trigger.RECALLED: State.CANCELLED,
        Trigger.RECALL_LATE: State.RUNNING,
        Trigger.CANCEL: State.CANCELLING,
        Trigger.LOST: State.WITHDRAWING,
    },
    State.INTERRUPTING: {
        **_ENDINGS,
        Trigger.DOUBTED: State.FAILED,
        Trigger.SPOILED: State.CANCELLED,
        Trigger.VANISHED: State.CANCELLED,
        Trigger.LOST: State.WITHDRAWING,
    },
    State.DOUBTFUL: {
        Trigger.ERRED: State.FAILED,
        Trigger.SPOILED: State.WAITING,
        Trigger.SPENT: State.FAILED,
        # It has run: nothing is taken out any more, and its client hears at once how it ended.
        Trigger.DELETE: State.FAILED,
        Trigger.CANCEL: State.FAILED,
    },
    State.REFUSED: {},
    State.FINISHED: {},
    State.FAILED: {},
    State.CANCELLED: {},
}


def _but(*states: State) -> frozenset[State]:
    return frozenset(State) - frozenset(states)


_NOT_TO_RUN = frozenset({State.ARRIVED, State.DOUBTFUL}) | ENDED
"""No news of a run is expected of these."""

IGNORED: Mapping[Trigger, frozenset[State]] = {
    # Answers to a question that is no longer open: an event overtook them, or the connection was lost in between.
    Trigger.PROBE_ACCEPTED: _but(State.PROBING, State.WITHDRAWING),
    Trigger.PROBE_REFUSED: _but(State.PROBING, State.WITHDRAWING),
    Trigger.PROBE_SLIPPED: _but(State.PROBING, State.WITHDRAWING),
    Trigger.PROBE_UNCLEAR: _but(State.PROBING, State.WITHDRAWING),
    Trigger.DISPATCHED: _but(State.DISPATCHING, State.WITHDRAWING),
    Trigger.DISPATCH_REFUSED: _but(State.DISPATCHING, State.WITHDRAWING),
    Trigger.TURNED_DOWN: _but(State.DISPATCHING, State.WITHDRAWING),
    Trigger.DISPATCH_UNCLEAR: _but(State.DISPATCHING, State.WITHDRAWING),
    Trigger.RECALLED: _but(State.RECALLING, State.CANCELLING),
    Trigger.RECALL_LATE: _but(State.RECALLING, State.CANCELLING),
    # A look that tells nothing new, or that was taken before an answer which has come since.
    Trigger.FOUND_PENDING: _but(State.WAITING, State.UNCLEAR, State.WITHDRAWING),
    Trigger.FOUND_PARKED: _but(State.WAITING, State.UNCLEAR, State.WITHDRAWING),
    Trigger.FOUND_RUNNING: _NOT_TO_RUN | RUNS,
    Trigger.FOUND_ABSENT: _but(State.UNCLEAR, State.WITHDRAWING),
    Trigger.VANISHED: _but(State.STAGED, State.UNCLEAR, State.WITHDRAWING, *RUNS),
    Trigger.GONE: _but(State.UNCLEAR, State.WITHDRAWING),
    # Told twice, or told of somebody else's prompt with the same id.
    Trigger.STARTED: _NOT_TO_RUN | RUNS,
    Trigger.SUCCEEDED: _NOT_TO_RUN,
    Trigger.ERRED: _NOT_TO_RUN - {State.DOUBTFUL},
    Trigger.DOUBTED: _NOT_TO_RUN,
    Trigger.INTERRUPTED: _NOT_TO_RUN,
    Trigger.SPOILED: _NOT_TO_RUN - {State.DOUBTFUL},
    Trigger.SPENT: _NOT_TO_RUN - {State.DOUBTFUL},
    # ComfyUI's own /queue delete leaves the running prompt alone, and so does ours.
    Trigger.DELETE: ENDED | RUNS | {State.WITHDRAWING, State.CANCELLING},
    Trigger.CANCEL: ENDED | {State.INTERRUPTING},
    # Nothing of it is at ComfyUI, or it is in doubt already.
    Trigger.LOST: ENDED | HELD | {State.UNCLEAR, State.WITHDRAWING, State.DOUBTFUL},
}
"""What leaves a prompt as it is, on purpose."""


class IllegalTransitionError(Exception):
    """A decision that does not fit the state of its prompt: a fault in the scheduler."""


def next_state(state: State, trigger: Trigger) -> State | None:
    """The state after `trigger`, or None where it is ignored.

    Raises:
        IllegalTransitionError: for a decision of ours that is impossible in this state.
    """
    target = TRANSITIONS[state].get(trigger)
    if target is None and state not in IGNORED.get(trigger, frozenset()):
        raise IllegalTransitionError(f"a prompt that is {state} cannot be affected by {trigger!s}")
    return target


def state_diagram() -> str:
    """The table as a Mermaid state diagram, one arrow for each pair of states."""
    return "\n".join(_diagram_lines())


def _diagram_lines() -> Iterator[str]:
    yield "stateDiagram-v2"
    yield f"    [*] --> {State.ARRIVED}"
    for state, moves in TRANSITIONS.items():
        triggers: dict[State, list[str]] = {}
        for trigger, target in moves.items():
            triggers.setdefault(target, []).append(trigger)
        for target, names in triggers.items():
            if target is not state:
                yield f"    {state} --> {target}: {', '.join(names)}"
    for state in TRANSITIONS:
        if state in ENDED:
            yield f"    {state} --> [*]"
