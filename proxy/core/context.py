"""What the parts of the scheduler share: the prompts, the state of ComfyUI, and how a prompt is moved.

Moving a prompt has consequences that do not depend on why it moved: its client may have to be answered, ComfyUI to be
asked, its run to be measured. They are here, so that whoever handles an event only says which prompt and which trigger.
"""

from dataclasses import dataclass, field

from proxy.core import commands as do
from proxy.core.commands import Code, Command, Reason
from proxy.core.costs import Costs
from proxy.core.job import Job
from proxy.core.jobs import ENDED, RUNS, State, Trigger
from proxy.core.ledger import Ledger
from proxy.core.settings import Settings

_NOT_YET = frozenset({State.ARRIVED, State.PROBING, State.DISPATCHING, State.UNCLEAR, State.WITHDRAWING, State.REFUSED})
"""It is not certain yet whether such a prompt is accepted, or certain that it is not."""
_SHOWS_VALIDITY = frozenset(
    {
        Trigger.PROBE_ACCEPTED,
        Trigger.PROBE_SLIPPED,
        Trigger.DISPATCHED,
        Trigger.FOUND_PENDING,
        Trigger.FOUND_PARKED,
        Trigger.FOUND_RUNNING,
        Trigger.STARTED,
        Trigger.SUCCEEDED,
        Trigger.ERRED,
        Trigger.DOUBTED,
        Trigger.INTERRUPTED,
        Trigger.SPOILED,
    }
)
_UNWANTED = frozenset({State.WITHDRAWING, State.CANCELLING, State.INTERRUPTING})


@dataclass(slots=True, kw_only=True)
class Context:
    """The state of the queue, and the commands that the present event has led to so far.

    Attributes:
        now: seconds; never falls.
        ready: ComfyUI answers.
        pauses: who wants nothing to be sent.
        foreign: prompts at ComfyUI that are not ours, and whether they run.
        recalled_for: the prompt for which another was called back.
        suspect: the prompt that may have ended ComfyUI, if that has ended since it was heard of last.
        next_number: what the next prompt without a number of its own gets.
        next_sequence: the place of the next prompt in the order of submission.
    """

    settings: Settings
    costs: Costs
    ledger: Ledger = field(default_factory=Ledger)
    now: float = 0.0
    ready: bool = False
    pauses: set[str] = field(default_factory=set)
    foreign: dict[str, bool] = field(default_factory=dict)
    recalled_for: str | None = None
    suspect: Job | None = None
    next_number: int = 0
    next_sequence: int = 0
    out: list[Command] = field(default_factory=list)

    def reason(self, code: Code, text: str, **numbers: float) -> Reason:
        """A reason as of now."""
        return Reason(code, text, numbers, self.now)

    def answer(self, job: Job, reason: Reason) -> None:
        """Tell its client that it is accepted: once, when that is certain, and not before ComfyUI has had its say."""
        if not job.answered and not job.asked and job.state not in _NOT_YET:
            self.ledger.accept(job)
            self.out.append(do.Accept(job.prompt_id, job.number, job.valid, reason))

    def pull(self, job: Job, trigger: Trigger, reason: Reason) -> bool:
        """Move a prompt, with everything that follows from it; False where the trigger is ignored."""
        before, known_to_client = job.state, job.answered
        if not self.ledger.move(job, trigger):
            return False
        after = job.state
        job.note(reason)
        job.valid = job.valid or trigger in _SHOWS_VALIDITY
        self.answer(job, reason)
        if after in RUNS and before not in RUNS:
            self._began(job, reason)
        elif after is State.STAGED:
            job.confirmed, job.parked = True, False
            self._pass_others(job, reason)
        elif after is State.DOUBTFUL:
            self._settle(job, reason)
        elif after is State.WAITING and before is not State.ARRIVED:
            self._settle(job, reason)
            job.confirmed = job.reached = job.parked = False
            if known_to_client:
                self.out.append(do.Hold(job.prompt_id, job.attempts, reason))
        elif after in ENDED:
            self._ended(job, reason)
        self._ask_comfyui(job, before, trigger, reason)
        return True

    def lost_run(self, job: Job, trigger: Trigger, reason: Reason) -> bool:
        """Its run was in vain (`GONE`, `SPOILED`): it waits for another, if it may have one."""
        if job.state in ENDED or job.state is State.ARRIVED:
            return False
        started = job.started is not None or trigger is Trigger.SPOILED
        if job is self.suspect and not started:
            started, text = True, f"{reason.text}; it stood first there and nothing else ran: it may be the cause"
            reason = self.reason(Code.SUSPECT, text)
        if not started or job.state in _UNWANTED:
            return self.pull(job, trigger, reason)
        job.attempts += 1
        if job.paid and not self.settings.rerun_paid:
            text = "it uses paid nodes, may have started, and is not run twice"
            return self.pull(job, Trigger.SPENT, self.reason(Code.PAID, f"{reason.text}; {text}"))
        if job.attempts >= self.settings.max_attempts:
            text = f"{reason.text}; that was attempt {job.attempts} of {self.settings.max_attempts}"
            return self.pull(job, Trigger.SPENT, self.reason(Code.ATTEMPTS_SPENT, text, attempts=job.attempts))
        return self.pull(job, trigger, reason)

    def load_seconds(self, job: Job) -> float:
        """Seconds of loading it would cause behind what ComfyUI has."""
        return self.costs.load_seconds(job.models, [other.models for other in self.ledger.at_comfyui()])

    def send(self, job: Job, held_back: frozenset[str], reason: Reason) -> None:
        """Send it to run."""
        job.estimate = self.ledger.durations.estimate(job.workload, job.models) + self.load_seconds(job)
        self.ledger.pass_others(job, held_back, reason)
        job.confirmed = job.parked = False
        self.pull(job, Trigger.DISPATCH, reason)
        job.asked = job.reached = True
        self.out.append(do.Dispatch(job.prompt_id, not job.answered, reason))

    def probe(self, job: Job, reason: Reason) -> None:
        """Show it to ComfyUI, to be checked."""
        job.parked = job.asked = job.reached = True
        self.pull(job, Trigger.PROBE, reason)
        self.out.append(do.Probe(job.prompt_id, reason))

    def _pass_others(self, job: Job, reason: Reason) -> None:
        """Count it as sent, if it got there without being sent by a decision."""
        if not job.sent:
            job.estimate = self.ledger.durations.estimate(job.workload, job.models)
            held_back = self.ledger.shares.held_back(job.priority, self.settings.fair_quantum)
            # Fairness owes it nothing at the cost of its own client's older prompts, should that be held back.
            self.ledger.pass_others(job, held_back - {job.client}, reason)

    def _began(self, job: Job, reason: Reason) -> None:
        self._pass_others(job, reason)
        job.confirmed, job.parked = True, False
        if job.started is None:
            job.started = self.now
        job.ran = None
        self.ledger.begin(job)
        if job.interrupt:
            self.pull(job, Trigger.CANCEL, self.reason(Code.INTERRUPTED, "cancelled while it was about to start"))

    def _ended(self, job: Job, reason: Reason) -> None:
        self._settle(job, reason)
        if job.state is State.REFUSED:
            job.answered = True
            self.out.append(do.Refuse(job.prompt_id, reason))
        else:
            self.out.append(do.End(job.prompt_id, job.state, reason))

    def _settle(self, job: Job, reason: Reason) -> None:
        """Enter what came of its being sent, if it was: a run of so many seconds, or nothing."""
        if job.started is not None:
            self._pass_others(job, reason)
            self.ledger.measure(job, self.now - job.started if job.ran is None else job.ran)
        elif job.sent:
            self.ledger.stand_back(job)
        job.started = job.ran = None

    def _ask_comfyui(self, job: Job, before: State, trigger: Trigger, reason: Reason) -> None:
        if job.state is State.RECALLING or (job.state is State.CANCELLING and before is not State.RECALLING):
            if before is not job.state:
                job.confirmed = False
                self.out.append(do.Recall(job.prompt_id, reason))
        elif trigger in {Trigger.PROBE_UNCLEAR, Trigger.DISPATCH_UNCLEAR}:
            self.out.append(do.Locate(job.prompt_id, reason))
        elif job.state is State.INTERRUPTING and before is not job.state:
            self.out.append(do.Interrupt(job.prompt_id, reason))
