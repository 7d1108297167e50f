"""In which order the held prompts are expected to run: for the lists that clients see, and for the choice of pins.

What is expected is asked for much more often than it changes: the page reads the queue at every `status`. So it is
worked out once for each state of the queue.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from normalizer import ModelSet
from proxy.core.context import Context
from proxy.core.job import Job
from proxy.core.outlook import Expected, outlook
from proxy.engine.held import Held
from proxy.engine.prompts import Prompts

_FORESEEN = 64
"""Prompts of the queue that the pin planner is shown ..."""
_PLANNED = 16
"""... of which so many in the order in which the policy would choose them."""
_HOLDS = 1.0
"""Seconds for which what is expected holds, if nothing happens."""


class Lookahead:
    """What is expected of one queue. `clock` is the scheduler's."""

    def __init__(self, context: Context, prompts: Prompts, clock: Callable[[], float]) -> None:
        self._context = context
        self._prompts = prompts
        self._clock = clock
        self._expected: list[Expected] | None = None
        self._worked_out_at = 0.0

    def forget(self) -> None:
        """Something has happened."""
        self._expected = None

    def expected(self) -> Sequence[Expected]:
        """All prompts in the order in which they are expected to run, and when, on the clock of the queue."""
        now = self._clock()
        if self._expected is None or now > self._worked_out_at + _HOLDS:
            self._expected, self._worked_out_at = list(outlook(self._context, now)), now
        return self._expected

    def waiting(self) -> list[Held]:
        """The accepted prompts that wait here, in the order in which they are expected to run."""
        return [held for held, job in self._not_sent(self.expected()) if job.answered]

    def foresight(self) -> Sequence[ModelSet]:
        """The components of the prompts expected next, the next one first."""
        expected = outlook(self._context, self._clock(), _PLANNED)
        return [held.event.models for held, _ in islice(self._not_sent(expected), _FORESEEN)]

    def _not_sent(self, expected: Iterable[Expected]) -> Iterator[tuple[Held, Job]]:
        ledger = self._context.ledger
        sent = {job.prompt_id for job in ledger.at_comfyui()}
        for item in expected:
            held = self._prompts.get(item.prompt_id)
            if held is not None and item.prompt_id not in sent:
                yield held, ledger.jobs[item.prompt_id]
