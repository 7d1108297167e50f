"""What to do next, after every event: send, call back, validate, or wait.

One thing at a time is under way that changes what ComfyUI will run (a dispatch, a recall, a search), so that the order
in ComfyUI's queue is always known. Probes may be under way together: they stand behind everything. But a prompt that
shields probes from being run is not called back before they are answered.
"""

from normalizer.models import ModelSet
from proxy.core.commands import Code, Reason
from proxy.core.context import Context
from proxy.core.job import Job
from proxy.core.jobs import State, Trigger
from proxy.core.overrun import deadlines
from proxy.core.policy import Choice, choose
from proxy.core.settings import Validate
from proxy.core.turns import WINDOW, Bounds, Turn, next_turn, steps

_UNSETTLED = frozenset({State.DISPATCHING, State.RECALLING, State.CANCELLING, State.UNCLEAR, State.WITHDRAWING})
"""Until these are answered, what ComfyUI will run is not certain."""


def decide(context: Context) -> None:
    """Whatever can be done now."""
    if not context.ready:
        _hold_arrived(context, Code.NO_UPSTREAM, "ComfyUI does not answer; it is checked when it is sent")
        return
    wanted = None if _unsettled(context) else _overrun(context)
    if wanted is None:
        _send(context)
        wanted = None if _unsettled(context) else _recall_wanted(context)
    if wanted is not None and not _probing(context):
        staged, reason = wanted
        context.pull(staged, Trigger.RECALL, reason)
    _validate_arrived(context, recall_wanted=wanted is not None)


def next_wakeup(context: Context) -> float | None:
    """When time alone may change a decision."""
    if not context.ready:
        return None
    settings, waiting = context.settings, context.ledger.waiting
    times = [
        context.now + deadline.left
        for deadline in deadlines(context.ledger, settings, context.now)
        if deadline.runs and not deadline.over
    ]
    staged = _last_staged(context)
    if len(waiting.levels) > 1 or (waiting and staged is not None and staged.priority not in waiting.levels):
        for level in waiting.levels.values():
            gained = steps(level.oldest_submitted, settings, context.now)
            times.append(level.oldest_submitted + (gained + 1) * settings.age_step)
    return min(times, default=None)


def _overrun(context: Context) -> tuple[Job, Reason] | None:
    """What is to be called back because something staged must not begin any more.

    That is always the last that is staged, so that whatever is called back is behind what it has passed so far.
    """
    over = next((found for found in deadlines(context.ledger, context.settings, context.now) if found.over), None)
    staged = _last_staged(context)
    if over is None or staged is None:
        return None
    first = "" if staged is over.staged else f"before {over.staged.prompt_id}: "
    text = f"called back: {first}{over.passed.prompt_id} must not be passed any more"
    return staged, context.reason(Code.TIME_IS_UP, text)


def _send(context: Context) -> None:
    if context.pauses or _unsettled(context):
        return
    if not _room(context):
        return
    turn = next_turn(context.ledger, context.settings, context.now)
    if turn is None:
        return
    choice = _promised(context, turn)
    if choice is None:
        choice = choose(turn, context.costs, [job.models for job in context.ledger.at_comfyui()])
    context.recalled_for = None
    reason = context.reason(choice.code, f"sent: {choice.text}", **choice.numbers)
    context.send(choice.job, turn.held_back, reason)


def _promised(context: Context, turn: Turn) -> Choice | None:
    """The prompt for which another was called back a moment ago, if it may still go."""
    for job in turn.candidates:
        if job.prompt_id == context.recalled_for:
            seconds = context.load_seconds(job)
            return Choice(job, Code.SAVES_LOADING, "what was staged was called back for it", {"load_seconds": seconds})
    return None


def _recall_wanted(context: Context) -> tuple[Job, Reason] | None:
    staged = _last_staged(context)
    if staged is None:
        return None
    if context.pauses:
        return staged, context.reason(Code.PAUSED, f"called back: paused by {', '.join(sorted(context.pauses))}")
    if not context.ledger.waiting:
        return None
    before = [job.models for job in context.ledger.at_comfyui() if job is not staged]
    with context.ledger.supposing_it_waits(staged):
        turn = next_turn(context.ledger, context.settings, context.now)
        choice = None if turn is None else choose(turn, context.costs, before)
    if turn is None or choice is None or choice.job is staged:
        return None
    reason = _worth_it(context, staged, choice, turn.barrier, before)
    if reason is None:
        return None
    context.recalled_for = choice.job.prompt_id
    return staged, reason


def _worth_it(
    context: Context, staged: Job, choice: Choice, barrier: Job | None, before: list[ModelSet]
) -> Reason | None:
    better = choice.job
    name = better.prompt_id
    if better.priority != staged.priority:
        return context.reason(Code.PRIORITY, f"called back: {name} has the higher priority")
    if barrier is not None and _stands_behind(staged, barrier):
        if barrier.fixed:
            return context.reason(Code.PLACE, f"called back: {barrier.prompt_id} stands before it by its number")
        return context.reason(Code.TIME_IS_UP, f"called back: {barrier.prompt_id} must not be passed any more")
    load = context.costs.load_seconds
    as_is = load(staged.models, before) + load(better.models, [*before, staged.models])
    swapped = load(better.models, before) + load(staged.models, [*before, better.models])
    if as_is - swapped < context.settings.recall_gain:
        return None
    text = f"called back: with {name} first, {as_is - swapped:.1f} s of loading are saved"
    return context.reason(Code.SAVES_LOADING, text, saved_seconds=as_is - swapped)


def _stands_behind(staged: Job, barrier: Job) -> bool:
    if barrier.fixed:
        return (staged.place, staged.prompt_id) > (barrier.place, barrier.prompt_id)
    return not staged.fixed and staged.sequence > barrier.sequence


def _validate_arrived(context: Context, *, recall_wanted: bool) -> None:
    if not context.ledger.arrived:
        return
    if context.settings.validate is Validate.DISPATCH:
        _hold_arrived(context, Code.UNCHECKED, "taken; ComfyUI checks it when it is sent")
        return
    if _unsettled(context) or recall_wanted:
        return
    if not _shielded(context):
        _hold_arrived(context, Code.UNCHECKED, "taken without a probe: ComfyUI is idle, so a probe would run at once")
        return
    for job in list(context.ledger.arrived.values()):
        if _may_probe(context, job):
            context.probe(job, context.reason(Code.CHECK, "shown to ComfyUI, to be checked"))
        elif _probing(context):
            return
        else:
            _hold(context, job, Code.UNCHECKED, "taken; a probe of it might pass a prompt that must not be passed")


def _may_probe(context: Context, job: Job) -> bool:
    """Should its probe slip through and run, nobody is passed more often than allowed."""
    others = [other for other in context.ledger.behind_doubtful() if other.priority == job.priority]
    level = context.ledger.waiting.levels.get(job.priority)
    if level is not None:
        held_back = context.ledger.shares.held_back(job.priority, context.settings.fair_quantum)
        others += level.window(WINDOW, held_back)
    bounds = Bounds(context.ledger, context.settings, context.now)
    return all(bounds.bears_a_probe(other) for other in others if other is not job and not other.fixed)


def _hold_arrived(context: Context, code: Code, text: str) -> None:
    for job in list(context.ledger.arrived.values()):
        _hold(context, job, code, text)


def _hold(context: Context, job: Job, code: Code, text: str) -> None:
    context.pull(job, Trigger.HOLD, context.reason(code, text))


def _shielded(context: Context) -> bool:
    """A probe would not be run at once: something else comes first, or the next prompt is about to be sent."""
    if _last_staged(context) is not None or not all(context.foreign.values()):
        return True
    return not context.pauses and not _room(context)


def _room(context: Context) -> bool:
    return len(context.ledger.at_comfyui()) + len(context.foreign) < context.settings.depth


def _unsettled(context: Context) -> bool:
    return any(job.state in _UNSETTLED for job in context.ledger.upstream.values())


def _probing(context: Context) -> bool:
    return any(job.state is State.PROBING for job in context.ledger.upstream.values())


def _last_staged(context: Context) -> Job | None:
    staged = [job for job in context.ledger.upstream.values() if job.state is State.STAGED]
    return staged[-1] if staged else None
