"""The held queue: the scheduler's ears.

Facts come in by `tell`, from clients, from ComfyUI's frames, from the performer; the scheduler turns each into
commands, and `effects` carries those out.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterable

from proxy.core import commands as do
from proxy.core import events as ev
from proxy.core.job import Job
from proxy.core.jobs import State
from proxy.core.scheduler import Scheduler
from proxy.engine.effects import Effects
from proxy.engine.held import Held
from proxy.engine.lookahead import Lookahead
from proxy.engine.prompts import Prompts

log = logging.getLogger(__name__)

_LEAVING = frozenset({State.CANCELLING, State.WITHDRAWING})
_PATIENCE = 5.0
"""Seconds that a client waits at most for its prompt to be out of ComfyUI's queue."""

_AT_ONCE = 500
"""So many prompts are taken out in one go."""


class Holding:
    """Feeds one scheduler, one fact at a time.

    Attributes:
        prompts: all that have not ended; read only.
        lookahead: the order in which they are expected to run.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        prompts: Prompts,
        effects: Effects,
        clock: Callable[[], float],
        changed: Callable[[], None],
    ) -> None:
        """`clock` gives monotonic seconds; `changed` is called when what clients see of the queue has changed."""
        self.scheduler = scheduler
        self.prompts = prompts
        self.lookahead = Lookahead(scheduler.context, prompts, clock)
        self._effects = effects
        self._clock = clock
        self._changed = changed
        self._inbox: deque[ev.Event] = deque()
        self._pumping = False
        self._timer: asyncio.TimerHandle | None = None

    def close(self) -> None:
        """Decide nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._pumping = True

    # -- facts ---------------------------------------------------------------------------------------------------

    def add(self, held: Held, event: ev.Submitted) -> None:
        """Take a prompt in; its client's answer is `held.answer`."""
        self.prompts.add(held)
        self.tell(event)

    def take_up(self, restored: Iterable[tuple[Held, ev.Restored]]) -> None:
        """Take in what an earlier process had accepted, in the order of submission."""
        for held, event in restored:
            self.prompts.add(held)
            self._inbox.append(event)
        self.lookahead.forget()
        self._pump()
        self._changed()

    def adopt(self, held: Held, number: float) -> None:
        """Take in a prompt that ComfyUI has already: who sent it ended before its client was told."""
        self.prompts.add(held)
        self._effects.adopt(held, number)
        self.tell(ev.ForeignGone(held.prompt_id))
        self.tell(ev.Restored(prompt=held.event, number=number, submitted=self._clock(), state=State.DISPATCHING))

    def tell(self, event: ev.Event) -> None:
        """Take note of a fact and do what follows from it."""
        self._inbox.append(event)
        self.lookahead.forget()
        if not self._pumping:
            self._pump()
            self._changed()

    def beat(self) -> bool:
        """Let the scheduler see that time passes; whether it could. Clients hear of it only if something follows."""
        if self._pumping:
            return False
        self._inbox.append(ev.Tick())
        if self._pump():
            self._changed()
        return True

    async def delete(self, prompt_id: str, *, interrupt: bool = False) -> None:
        """Take a prompt out; returns when it is out, as ComfyUI's own deletion does.

        One that runs is left to, or with `interrupt` told to stop, for which nobody waits.
        """
        held = self.prompts.get(prompt_id)
        if held is not None:
            self.tell(ev.CancelRequested(prompt_id, interrupt=interrupt))
            await self._out(held)

    async def clear(self) -> None:
        """Take out everything that does not run now; returns when it is out.

        It may be ten thousand, so others have their turn in between. What is to run next goes last: until then it keeps
        its place, and nothing is sent in its stead.
        """
        before = list(self.prompts)
        ledger = self.scheduler.context.ledger
        order = [*ledger.blocked(), *reversed([*ledger.waiting]), *reversed(ledger.upstream.values())]
        for first in range(0, len(order), _AT_ONCE):
            self.tell(ev.ClearRequested(tuple(job.prompt_id for job in order[first : first + _AT_ONCE])))
            await asyncio.sleep(0)
        for held in before:
            await self._out(held)

    async def _out(self, held: Held) -> None:
        job = self.job(held.prompt_id)
        if job is not None and job.state in _LEAVING:
            with contextlib.suppress(TimeoutError):  # ComfyUI is away; it is taken out when it is back
                async with asyncio.timeout(_PATIENCE):
                    await held.ended()

    def _pump(self) -> bool:
        """Handle what is in the inbox; whether anything followed."""
        followed = False
        self._pumping = True
        try:
            while self._inbox:
                for command in self.scheduler.handle(self._inbox.popleft(), self._clock()):
                    self._perform(command)
                    followed = True
            self._effects.conclude()
        finally:
            self._pumping = False
        self._arm()
        return followed

    def _perform(self, command: do.Command) -> None:
        """Carry a command out; where a fault of ours prevents it, the others are carried out all the same."""
        try:
            self._effects.perform(command)
        except Exception:
            log.exception("could not carry out %s", command)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at = self.scheduler.next_wakeup()
        if at is not None:
            delay = max(0.0, at - self._clock())
            self._timer = asyncio.get_running_loop().call_later(delay, self.tell, ev.Tick())

    # -- questions -----------------------------------------------------------------------------------------------

    def get(self, prompt_id: object) -> Held | None:
        """The prompt, while it has not ended."""
        return self.prompts.get(prompt_id)

    def job(self, prompt_id: str) -> Job | None:
        """What the scheduler knows of a prompt."""
        return self.scheduler.context.ledger.jobs.get(prompt_id)

    def sent(self) -> list[Held]:
        """The prompts that are at ComfyUI, or may be."""
        ledger = self.scheduler.context.ledger
        return [held for prompt_id in ledger.upstream if (held := self.prompts.get(prompt_id)) is not None]

    def at_comfyui(self) -> list[Held]:
        """The prompts that run or are staged, in the order in which ComfyUI will run them."""
        at_comfyui = self.scheduler.context.ledger.at_comfyui()
        return [held for job in at_comfyui if (held := self.prompts.get(job.prompt_id)) is not None]

    def alone(self, prompt_id: str) -> bool:
        """Whether no other prompt runs or waits, but for those whose end is not told yet."""
        others = (job for job in self.scheduler.context.ledger.unfinished() if job.prompt_id != prompt_id)
        return all(job.state is State.DOUBTFUL for job in others)

    @property
    def busy(self) -> bool:
        """Whether any prompt, accepted or not yet, has not ended."""
        return any(True for _ in self.scheduler.context.ledger.unfinished())

    @property
    def remaining(self) -> int:
        """How many accepted prompts have not ended, foreign ones at ComfyUI among them."""
        context = self.scheduler.context
        return context.ledger.accepted + len(context.foreign)
