"""A new prompt's place in the queue: what `number`, `front`, priority and `order_key` come to.

ComfyUI runs the lowest number first, counts up for prompts without one, and negates the count for `front`. Priority
comes before all that. Within one priority, prompts that were simply submitted are counted as ComfyUI would, and may be
put in a better order; a `number` or `front` is a wish for a place, and is kept: nothing with a higher number runs
before it, and it runs before nothing with a lower one.

A chain (`order_key`) is as slow as its slowest part: a prompt never has a better priority or place than the one before
it. The other way, to lift the one before, would let anybody jump the queue by submitting twice.
"""

from proxy.core import events as ev
from proxy.core.commands import Code
from proxy.core.context import Context
from proxy.core.job import Job
from proxy.core.jobs import ENDED, HELD, State, Trigger


def new_job(context: Context, event: ev.Submitted) -> Job:
    """Take in a new prompt."""
    if event.number is not None:
        number = event.number
    else:
        number = -context.next_number if event.front else context.next_number
        context.next_number += 1
    job = _job(context, event, number, context.now)
    context.ledger.add(job)
    return job


def restored_job(context: Context, event: ev.Restored) -> Job:
    """Take in a prompt that an earlier process had accepted."""
    job = _job(context, event.prompt, event.number, event.submitted)
    if event.prompt.number is None:
        context.next_number = max(context.next_number, int(abs(event.number)) + 1)
    job.answered = True
    job.attempts = event.attempts
    if event.state in ENDED:
        job.state = event.state
        context.ledger.add_ended(job, event.run_seconds if event.started else None)
        return job
    job.state = State.WAITING if event.state in HELD else State.UNCLEAR
    job.confirmed = event.state in {State.STAGED, State.RUNNING, State.INTERRUPTING}
    # Nobody can say any more that a paid prompt which was sent has not started.
    started = event.started or event.prompt.paid
    job.started = context.now if started and job.state is State.UNCLEAR else None
    context.ledger.add(job)
    if event.state in {State.CANCELLING, State.WITHDRAWING, State.INTERRUPTING}:
        job.interrupt = True
        context.ledger.move(job, Trigger.CANCEL)
    return job


def move_to_front(context: Context, job: Job) -> None:
    """Put it, and what must come before it, before everything else of its priority, as a `front` submitted now."""
    chain = [other for other in context.ledger.chain(job) if other.sequence <= job.sequence and not other.sent]
    for other in reversed(chain):
        context.ledger.replace(other, -context.next_number)
        context.next_number += 1
        other.note(context.reason(Code.MOVED, "moved to the front"))


def _job(context: Context, event: ev.Submitted, number: float, submitted: float) -> Job:
    job = Job(
        prompt_id=event.prompt_id,
        client=event.client,
        models=event.models,
        sequence=context.next_sequence,
        number=number,
        place=number,
        fixed=event.front or event.number is not None,
        priority=event.priority,
        submitted=submitted,
        order_key=event.order_key,
        workload=event.workload,
        paid=event.paid,
    )
    context.next_sequence += 1
    before = None if job.order_key is None else context.ledger.predecessor(job.client, job.order_key)
    if before is not None:
        job.priority = min(job.priority, before.priority)
        if before.fixed and before.place > job.place:
            job.place, job.fixed = before.place, True
    return job
