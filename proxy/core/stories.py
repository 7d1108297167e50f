"""The story of one prompt: why it waits, or when and why it was sent, passed, called back, ended."""

from proxy.core.commands import Code, Reason
from proxy.core.context import Context
from proxy.core.job import Job
from proxy.core.jobs import ENDED, HELD, State


def story(context: Context, prompt_id: str) -> list[Reason]:
    """Everything known about one prompt in order of time, the present state last; empty for an unknown one."""
    job = context.ledger.jobs.get(prompt_id)
    if job is None:
        return []
    told = [*job.reasons, *_passings(context, job)]
    told.sort(key=lambda reason: reason.at)
    if job.state not in ENDED:
        told.append(present(context, job))
    return told


def present(context: Context, job: Job) -> Reason:
    """Why it is where it is now."""
    if job.state not in HELD:
        return context.reason(Code.BEHIND, f"it is {job.state}")
    before = context.ledger.blocked_by(job)
    held_back = context.ledger.shares.would_hold_back(job.priority, context.settings.fair_quantum)
    code, why = Code.BEHIND, f"one of {len(context.ledger.waiting)} that may be sent"
    if before is not None:
        code, why = Code.CHAIN, f"{before.prompt_id} of its chain has to be sent first"
    elif not context.ready:
        code, why = Code.NO_UPSTREAM, "ComfyUI does not answer"
    elif context.pauses:
        code, why = Code.PAUSED, f"paused by {', '.join(sorted(context.pauses))}"
    elif job.client in held_back:
        code, why = Code.SHARE, "its client has had more than its share, others catch up"
    elif context.foreign:
        code, why = Code.FOREIGN, "prompts that did not come through this proxy are at ComfyUI"
    return context.reason(code, f"waits: {why}")


def _passings(context: Context, job: Job) -> list[Reason]:
    overtakings = context.ledger.overtakings.get(job.priority)
    if overtakings is None or job.fixed or job.state is State.ARRIVED:
        return []
    told = []
    for passing in overtakings.of(job):
        if passing.reason.at < job.submitted or (job.sent_at is not None and passing.reason.at > job.sent_at):
            continue
        seconds = passing.seconds(context.now)
        text = f"passed by {passing.job.prompt_id}: {passing.reason.text}"
        told.append(Reason(Code.OVERTAKEN, text, {"run_seconds": seconds}, passing.reason.at))
    return told
