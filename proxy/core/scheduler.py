"""The queue: events in, commands out; no clock, no I/O.

ComfyUI is given a shallow queue, so that everything behind it can still be put in a better order. The price is that
each prompt passes through several hands, any of which may be interrupted at any time. All of that is here as a function
of events: `handle(event, now)` returns what is to be done, and the same events always give the same commands.

After each event three questions are asked, in this order: is there room at ComfyUI and something to send; is what is
staged there still the right one; and what is to become of those who have just arrived?
"""

from collections.abc import Callable, Mapping
from typing import Any

from proxy.core import commands as do
from proxy.core import decisions, stories
from proxy.core import events as ev
from proxy.core.admission import move_to_front, new_job, restored_job
from proxy.core.commands import Code, Command, Reason
from proxy.core.context import Context
from proxy.core.costs import Costs
from proxy.core.job import Job
from proxy.core.jobs import ENDED, RUNS, State, Trigger
from proxy.core.settings import Settings
from proxy.core.suspicion import suspect

_ANSWERS: Mapping[type[Any], tuple[Trigger, Code, str]] = {
    ev.ProbeAccepted: (Trigger.PROBE_ACCEPTED, Code.VALID, "ComfyUI found it valid; it waits here"),
    ev.ProbeRefused: (Trigger.PROBE_REFUSED, Code.INVALID, "ComfyUI found it invalid"),
    ev.ProbeSlipped: (Trigger.PROBE_SLIPPED, Code.SLIPPED, "ComfyUI started it before it could be taken out again"),
    ev.ProbeUnclear: (Trigger.PROBE_UNCLEAR, Code.NO_ANSWER, "ComfyUI did not answer; it is looked for"),
    ev.Dispatched: (Trigger.DISPATCHED, Code.VALID, "ComfyUI has taken it"),
    ev.DispatchUnclear: (Trigger.DISPATCH_UNCLEAR, Code.NO_ANSWER, "ComfyUI did not answer; it is looked for"),
}
"""What the answers to our questions do to a prompt, whatever state it is in."""

_OUTCOMES: Mapping[ev.Outcome, tuple[Trigger, Code, str]] = {
    ev.Outcome.SUCCESS: (Trigger.SUCCEEDED, Code.DONE, "it has run"),
    ev.Outcome.ERROR: (Trigger.ERRED, Code.RUN_FAILED, "its run failed"),
    ev.Outcome.DOUBTED: (Trigger.DOUBTED, Code.RUN_FAILED, "its run failed; whether for its own fault is to be seen"),
    ev.Outcome.INTERRUPTED: (Trigger.INTERRUPTED, Code.INTERRUPTED, "its run was interrupted"),
    ev.Outcome.SPOILED: (Trigger.SPOILED, Code.SPOILED, "its run failed for a cause outside of it"),
}


class Scheduler:
    """The queue in front of one ComfyUI.

    ComfyUI counts as not ready until the first `UpstreamReady`. `costs` is asked again at every decision.
    """

    def __init__(self, costs: Costs, settings: Settings | None = None) -> None:
        self.context = Context(settings=settings or Settings(), costs=costs)
        self._handlers: Mapping[type[Any], Callable[[Any], None]] = {
            ev.Submitted: self._submitted,
            ev.Restored: self._restored,
            **dict.fromkeys(_ANSWERS, self._answered),
            ev.DispatchRefused: self._dispatch_refused,
            ev.Started: self._started,
            ev.Located: self._located,
            ev.RecallDone: self._recall_done,
            ev.Finished: self._finished,
            ev.Judged: self._judged,
            ev.CancelRequested: self._cancel,
            ev.ClearRequested: self._clear,
            ev.InterruptRequested: self._interrupt,
            ev.UpstreamLost: self._lost,
            ev.UpstreamReady: self._ready,
            ev.ForeignSeen: self._foreign_seen,
            ev.ForeignGone: self._foreign_gone,
            ev.Paused: self._paused,
            ev.Resumed: self._resumed,
            ev.MoveToFront: self._move_to_front,
            ev.Tick: self._tick,
            ev.SettingsChanged: self._settings_changed,
        }

    def handle(self, event: ev.Event, now: float) -> list[Command]:
        """Take note of an event and decide what to do; `now` in seconds, on any clock that does not go back."""
        self.context.now = max(self.context.now, now)
        self._handlers[type(event)](event)
        if not isinstance(event, ev.Restored):
            decisions.decide(self.context)
        out, self.context.out = self.context.out, []
        return out

    def next_wakeup(self) -> float | None:
        """When to send a `Tick` if nothing happens before; None: no need."""
        return decisions.next_wakeup(self.context)

    def state(self, prompt_id: str) -> State | None:
        """Where a prompt is; None for an unknown one, or one that ended long ago."""
        job = self._job(prompt_id)
        return None if job is None else job.state

    def story(self, prompt_id: str) -> list[Reason]:
        """Why a prompt waits, or when and why it was sent, passed, called back, ended; empty if it is not known."""
        return stories.story(self.context, prompt_id)

    def _job(self, prompt_id: str) -> Job | None:
        return self.context.ledger.jobs.get(prompt_id)

    # what clients and the operator want

    def _submitted(self, event: ev.Submitted) -> None:
        context = self.context
        context.ledger.forget_ended(event.prompt_id)
        if event.prompt_id in context.ledger.jobs:
            return
        if context.ledger.held >= context.settings.max_waiting:
            text = f"{context.ledger.held} prompts wait already, and no more are held"
            reason = context.reason(Code.QUEUE_FULL, text, waiting=context.ledger.held)
            context.out.append(do.Refuse(event.prompt_id, reason))
            return
        job = new_job(context, event)
        job.note(context.reason(Code.SUBMITTED, "submitted", number=job.number, priority=job.priority))

    def _restored(self, event: ev.Restored) -> None:
        job = restored_job(self.context, event)
        job.note(self.context.reason(Code.SUBMITTED, "accepted by an earlier process", attempts=job.attempts))

    def _cancel(self, event: ev.CancelRequested) -> None:
        job = self._job(event.prompt_id)
        if job is not None:
            self._take_out(job, interrupt=event.interrupt)

    def _clear(self, event: ev.ClearRequested) -> None:
        for prompt_id in event.prompt_ids:
            if (job := self._job(prompt_id)) is not None:
                self._take_out(job, interrupt=False)

    def _take_out(self, job: Job, *, interrupt: bool) -> None:
        job.interrupt = job.interrupt or interrupt
        trigger = Trigger.CANCEL if interrupt else Trigger.DELETE
        reason = self.context.reason(Code.CANCELLED, "cancelled")
        if job.state is State.DOUBTFUL:
            reason = self.context.reason(Code.RUN_FAILED, "its run failed, and it is not wanted any more")
        self.context.pull(job, trigger, reason)

    def _interrupt(self, event: ev.InterruptRequested) -> None:
        running = self.context.ledger.running()
        reason = self.context.reason(Code.INTERRUPTED, "interrupted by a client")
        if running is not None and event.prompt_id in {None, running.prompt_id}:
            running.interrupt = True
            self.context.pull(running, Trigger.CANCEL, reason)
        elif event.prompt_id is None and any(self.context.foreign.values()):
            self.context.out.append(do.Interrupt(None, reason))

    def _paused(self, event: ev.Paused) -> None:
        self.context.pauses.add(event.by)

    def _resumed(self, event: ev.Resumed) -> None:
        self.context.pauses.discard(event.by)

    def _move_to_front(self, event: ev.MoveToFront) -> None:
        job = self._job(event.prompt_id)
        if job is not None and job.state not in ENDED:
            move_to_front(self.context, job)

    def _tick(self, _: ev.Tick) -> None:
        """Only time has passed."""

    def _settings_changed(self, event: ev.SettingsChanged) -> None:
        self.context.settings = event.settings

    # what ComfyUI says about one prompt

    def _answered(self, event: ev.ProbeAccepted | ev.ProbeUnclear | ev.DispatchUnclear) -> None:
        job = self._job(event.prompt_id)
        if job is None:
            return
        if isinstance(event, ev.ProbeUnclear | ev.DispatchUnclear):
            job.reached = event.sent
        trigger, code, text = _ANSWERS[type(event)]
        self._tell_answer(job, trigger, self.context.reason(code, text))

    def _dispatch_refused(self, event: ev.DispatchRefused) -> None:
        job = self._job(event.prompt_id)
        if job is not None:
            trigger = Trigger.DISPATCH_REFUSED if job.answered else Trigger.TURNED_DOWN
            self._tell_answer(job, trigger, self.context.reason(Code.INVALID, "ComfyUI found it invalid"))

    def _tell_answer(self, job: Job, trigger: Trigger, reason: Reason) -> None:
        """ComfyUI has answered a submission, or never will; even if the prompt has moved on, its client has to know."""
        job.asked = False
        if not self.context.pull(job, trigger, reason):
            self.context.answer(job, reason)

    def _recall_done(self, event: ev.RecallDone) -> None:
        job = self._job(event.prompt_id)
        if job is None:
            return
        if event.started:
            self.context.recalled_for = None
            self.context.pull(job, Trigger.RECALL_LATE, self.context.reason(Code.STARTED, "it had started already"))
        else:
            self.context.pull(job, Trigger.RECALLED, self.context.reason(Code.RECALLED, "it waits here again"))

    def _started(self, event: ev.Started) -> None:
        job = self._job(event.prompt_id)
        if job is not None:
            self.context.pull(job, Trigger.STARTED, self.context.reason(Code.STARTED, "it has begun to run"))

    def _finished(self, event: ev.Finished) -> None:
        job = self._job(event.prompt_id)
        if job is None or job.state in ENDED or job.state is State.ARRIVED:
            return
        context = self.context
        if event.run_seconds is not None:
            job.ran = event.run_seconds
        if job.started is None and job.state is not State.DOUBTFUL:
            job.started = context.now
        if event.outcome is ev.Outcome.SUCCESS and event.run_seconds is not None:
            work = event.run_seconds - (event.load_seconds or 0.0)
            context.ledger.durations.observe(job.workload, job.models, max(0.0, work))
        self._over(job, event.outcome, event.run_seconds or 0.0)

    def _judged(self, event: ev.Judged) -> None:
        job = self._job(event.prompt_id)
        if job is not None and job.state is State.DOUBTFUL:
            self._over(job, ev.Outcome.SPOILED if event.spoiled else ev.Outcome.ERROR)

    def _over(self, job: Job, outcome: ev.Outcome, run_seconds: float = 0.0) -> None:
        trigger, code, text = _OUTCOMES[outcome]
        reason = self.context.reason(code, text, run_seconds=run_seconds)
        if trigger is Trigger.SPOILED:
            self.context.lost_run(job, trigger, reason)
        else:
            self.context.pull(job, trigger, reason)

    # what is seen at ComfyUI

    def _located(self, event: ev.Located) -> None:
        job = self._job(event.prompt_id)
        if job is not None:
            self._found(job, event.where, new_process=False)

    def _found(self, job: Job, where: ev.Where, *, new_process: bool) -> None:
        context = self.context
        if where is ev.Where.RUNNING:
            trigger, reason = Trigger.FOUND_RUNNING, context.reason(Code.STARTED, "found running at ComfyUI")
        elif where is ev.Where.PENDING:
            trigger = Trigger.FOUND_PARKED if job.parked else Trigger.FOUND_PENDING
            reason = context.reason(Code.FOUND, "found in ComfyUI's queue")
        elif new_process:
            trigger, reason = Trigger.GONE, context.reason(Code.UPSTREAM_LOST, "lost when ComfyUI ended")
        else:
            text = "ComfyUI no longer knows it, and lives on: somebody else removed it"
            trigger, reason = Trigger.VANISHED, context.reason(Code.VANISHED, text)
            if not job.confirmed:
                trigger, reason = Trigger.FOUND_ABSENT, context.reason(Code.FOUND, "ComfyUI does not have it")
        if trigger is Trigger.GONE:
            context.lost_run(job, trigger, reason)
        else:
            context.pull(job, trigger, reason)

    def _lost(self, _: ev.UpstreamLost) -> None:
        context = self.context
        reason = context.reason(Code.UPSTREAM_LOST, "the connection to ComfyUI is lost")
        if context.ready:
            context.suspect = suspect(context.ledger, context.foreign)
        context.ready = False
        context.recalled_for = None
        context.foreign.clear()
        for job in list(context.ledger.upstream.values()):
            if job.state in RUNS and job.started is not None:
                job.ran = context.now - job.started
            context.pull(job, Trigger.LOST, reason)
        for job in list(context.ledger.jobs.values()):
            # Events may have told of its run before the answer to its submission came, which now never will.
            if job.asked:
                job.asked = False
                context.answer(job, reason)

    def _ready(self, event: ev.UpstreamReady) -> None:
        """Everything that ComfyUI may have is settled by what it reports; outstanding answers count no longer."""
        self._lost(ev.UpstreamLost())
        context = self.context
        context.ready = True
        if event.new_process:
            for failed in list(context.ledger.doubtful.values()):
                self._over(failed, ev.Outcome.SPOILED)
        places = dict.fromkeys(event.pending, ev.Where.PENDING)
        places |= dict.fromkeys(event.running, ev.Where.RUNNING)
        doubtful = [*context.ledger.upstream.values()]
        doubtful += [job for prompt_id in places if (job := self._job(prompt_id)) is not None and job not in doubtful]
        for job in doubtful:
            outcome = event.finished.get(job.prompt_id)
            if outcome is not None:
                self._finished(outcome)
            else:
                where = places.get(job.prompt_id, ev.Where.ABSENT)
                self._found(job, where, new_process=event.new_process)
        context.suspect = None
        context.ledger.reorder_upstream([*event.running, *event.pending])

    def _foreign_seen(self, event: ev.ForeignSeen) -> None:
        self.context.foreign[event.prompt_id] = event.running

    def _foreign_gone(self, event: ev.ForeignGone) -> None:
        self.context.foreign.pop(event.prompt_id, None)
