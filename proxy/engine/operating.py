"""What the operator asks of the held queue: to see it, to stop it for a while, to move and remove prompts, to explain.

And what it keeps for the operator between two processes: that it is paused, and what it has learned about this machine.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from normalizer import ModelSet
from proxy.core import events as ev
from proxy.core.costs import LoadCosts
from proxy.core.job import Job
from proxy.core.jobs import ENDED, RUNS, State
from proxy.core.learned import Learned
from proxy.core.outlook import Expected
from proxy.engine.held import Held
from proxy.engine.holding import Holding
from proxy.errors import DownstreamError
from proxy.journal import Journal
from proxy.journal_records import Record as JournalRecord

log = logging.getLogger(__name__)

SAVE_EVERY = 60.0
"""Seconds between two times that what was learned is written down, while prompts run."""

_PAUSED = "paused"
_LEARNED = "learned"
_OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Row:
    """One prompt of the queue for people. Times in Unix seconds; `start` and `end` are expected, unless it runs."""

    prompt_id: str
    state: State
    priority: int
    client: str
    models: ModelSet
    submitted: float
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Listing:
    """The accepted prompts that have not ended, in the order in which they are expected to run.

    Of those that wait there may be ten thousand: `waiting` has the first, `waiting_total` says how many there are.
    """

    running: list[Row]
    staged: list[Row]
    waiting: list[Row]
    waiting_total: int


@dataclass(frozen=True, slots=True)
class Passage:
    """One passage of a prompt's story: `at` in Unix seconds, and a `Reason` or what is left of one."""

    at: float
    code: str
    text: str
    numbers: Mapping[str, float] = field(default_factory=dict)


class Operations:
    """One held queue in the operator's hands."""

    def __init__(
        self,
        holding: Holding,
        journal: Journal,
        costs: LoadCosts,
        clock: Callable[[], float],
        wall: Callable[[], float],
        resumed: Callable[[], object],
    ) -> None:
        """`clock` gives monotonic, `wall` Unix seconds; `costs` is what is learned about loading.

        `resumed` is told that the operator lets the queue go on, whoever has stopped it.
        """
        self._resumed = resumed
        self._holding = holding
        self._journal = journal
        self._clock = clock
        self._wall = wall
        self._learned = Learned(holding.scheduler.context.ledger.durations, costs)
        self._saved_at = clock()
        self._unsaved = False

    # -- between two processes -----------------------------------------------------------------------------------

    def restore(self, facts: Mapping[str, Any]) -> None:
        """Take up what an earlier process wrote down."""
        if facts.get(_PAUSED):
            log.warning("the queue is paused, as it was left; `comfykeep queue resume` ends that")
            self._holding.tell(ev.Paused(_OPERATOR))
        if (learned := facts.get(_LEARNED)) is not None:
            try:
                self._learned.restore(learned)
            except (KeyError, TypeError, ValueError) as error:
                log.warning(
                    "run times and loading costs in the journal cannot be read, and are learned anew: %r", error
                )

    def ran(self, held: Held) -> None:
        """A prompt has run to its end."""
        self._learned.ran(held.event.workload, held.event.models)
        self._unsaved = True
        if self._clock() >= self._saved_at + SAVE_EVERY:
            self.save()

    def save(self) -> None:
        """Write down what was learned, if anything ran since."""
        if self._unsaved:
            self._saved_at, self._unsaved = self._clock(), False
            self._journal.remember({_LEARNED: self._learned.to_json()})

    # -- orders --------------------------------------------------------------------------------------------------

    def pause(self) -> None:
        """Send nothing more; what runs finishes, submissions are still taken. Holds across restarts."""
        self._journal.remember({_PAUSED: True})
        self._holding.tell(ev.Paused(_OPERATOR))
        log.info("the queue is paused by the operator")

    def resume(self) -> None:
        """End the pause."""
        self._journal.remember({_PAUSED: None})
        self._holding.tell(ev.Resumed(_OPERATOR))
        self._resumed()
        log.info("the queue goes on")

    def move_to_front(self, prompt_id: str) -> None:
        """Run it next of its priority, with what must come before it.

        Raises:
            DownstreamError: 404 when it is not in the queue, 409 when it runs already.
        """
        if self._job(prompt_id).state in RUNS:
            raise DownstreamError(f"Prompt {prompt_id} runs already", status=409, type="runs_already")
        self._holding.tell(ev.MoveToFront(prompt_id))

    def cancel(self, prompt_id: str) -> None:
        """Take it out of the queue; interrupt it if it runs.

        Raises:
            DownstreamError: 404 when it is not in the queue.
        """
        self._job(prompt_id)
        self._holding.tell(ev.CancelRequested(prompt_id, interrupt=True))

    # -- questions -----------------------------------------------------------------------------------------------

    @property
    def paused_by(self) -> tuple[str, ...]:
        """Who wants nothing to be sent; nobody: it is not paused."""
        return tuple(sorted(self._holding.scheduler.context.pauses))

    @property
    def reconciled(self) -> bool:
        """Whether what waits here has been compared with what ComfyUI has, since that answers."""
        return self._holding.scheduler.context.ready

    @property
    def foreign(self) -> int:
        """Prompts at ComfyUI that did not come through here."""
        return len(self._holding.scheduler.context.foreign)

    def listing(self, limit: int) -> Listing:
        """The queue, with the first `limit` of those that wait."""
        offset = self._wall() - self._clock()
        listing = Listing([], [], [], 0)
        waiting_total = 0
        for item in self._holding.lookahead.expected():
            held, job = self._holding.get(item.prompt_id), self._holding.job(item.prompt_id)
            if held is None or job is None or not job.answered:
                continue
            if job.state in RUNS:
                listing.running.append(_row(held, job, item, offset))
            elif job.state is State.STAGED:
                listing.staged.append(_row(held, job, item, offset))
            else:
                waiting_total += 1
                if waiting_total <= limit:
                    listing.waiting.append(_row(held, job, item, offset))
        return replace(listing, waiting_total=waiting_total)

    async def story(self, prompt_id: str) -> list[Passage]:
        """Why a prompt waits, or when and why it was chosen, overtaken, called back; from the journal if it is old.

        Raises:
            DownstreamError: 404 when it is not known here.
        """
        told = self._holding.scheduler.story(prompt_id)
        if told:
            return [Passage(self._on_wall(reason.at), reason.code, reason.text, reason.numbers) for reason in told]
        record = await self._journal.find(prompt_id)
        if record is None:
            raise DownstreamError(
                f"No prompt {prompt_id} is known here",
                status=404,
                type="unknown_prompt",
                details="Only accepted prompts have a story, and deleted ones have none.",
            )
        return _from_journal(record)

    def _job(self, prompt_id: str) -> Job:
        job = self._holding.job(prompt_id)
        if job is None or job.state in ENDED:
            raise DownstreamError(
                f"No prompt {prompt_id} waits or runs here",
                status=404,
                type="unknown_prompt",
                details="`comfykeep queue` lists those that do; `comfykeep explain` tells what became of one.",
            )
        return job

    def _on_wall(self, moment: float) -> float:
        return self._wall() + moment - self._clock()


def _row(held: Held, job: Job, expected: Expected, offset: float) -> Row:
    return Row(
        prompt_id=job.prompt_id,
        state=job.state,
        priority=job.priority,
        client=job.client,
        models=job.models,
        submitted=held.create_time / 1000,
        start=expected.start + offset,
        end=expected.end + offset,
    )


def _from_journal(record: JournalRecord) -> list[Passage]:
    """What is left of the story of a prompt that the scheduler has forgotten."""
    dated = (
        (record.submitted, "submitted", "accepted"),
        (record.started, "started", "its last run began"),
        (record.finished, record.outcome or record.state, f"ended: {record.outcome or record.state}"),
    )
    return [Passage(at, code, text) for at, code, text in dated if at is not None]
