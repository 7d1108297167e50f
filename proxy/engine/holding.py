"""The held queue: the scheduler's hands and ears.

Facts come in by `tell`, from clients, from ComfyUI's frames, from the performer; the scheduler turns each into
commands, and those are carried out here: at ComfyUI, in the journal, towards the client. A client is told that its
prompt was taken when the journal has it on disk, not before.
"""

import asyncio
import contextlib
import json
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, assert_never

from normalizer import ModelSet
from proxy.core import commands as do
from proxy.core import events as ev
from proxy.core.commands import Code
from proxy.core.job import Job
from proxy.core.jobs import State
from proxy.core.outlook import Expected, outlook
from proxy.core.scheduler import Scheduler
from proxy.engine.client_sockets import ClientSockets
from proxy.engine.endings import Ending
from proxy.engine.held import Held
from proxy.engine.performer import Performer
from proxy.engine.records import Record
from proxy.engine.sender import json_answer
from proxy.errors import ComfykeepError, DownstreamError
from proxy.journal import Journal
from proxy.journal_records import UNSET, Unset, Update
from proxy.journal_records import Record as JournalRecord
from proxy.tasks import Tasks
from proxy.upstream.client import Answer

log = logging.getLogger(__name__)

_TOLD_BY_COMFYUI = frozenset({Code.DONE, Code.RUN_FAILED, Code.INTERRUPTED})
"""Ends that ComfyUI itself tells the client; all others but a cancellation are ours to tell."""
_LEAVING = frozenset({State.CANCELLING, State.WITHDRAWING})
_PATIENCE = 5.0
"""Seconds that a client waits at most for its prompt to be out of ComfyUI's queue."""
_FORESEEN = 64
"""Prompts of the queue that the pin planner is shown ..."""
_PLANNED = 16
"""... of which so many in the order in which the policy would choose them."""
_OUTLOOK_HOLDS = 1.0
"""Seconds for which what is expected holds, if nothing happens."""


class Holding:
    """All prompts that wait here, or are at ComfyUI by way of the held queue."""

    def __init__(  # noqa: PLR0913 - the parts that are joined here
        self,
        scheduler: Scheduler,
        performer: Performer,
        journal: Journal,
        sockets: ClientSockets,
        tasks: Tasks,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        changed: Callable[[], None],
        withdrawn: Callable[[Record], None],
        ran: Callable[[Held], None],
        ended: Callable[[Held, Ending], None],
    ) -> None:
        """`clock` gives monotonic and `wall` Unix seconds.

        `changed` is called when what clients see of the queue has changed; `withdrawn` when a prompt that was sent to
        ComfyUI is not there any more, and has not run; `ran` when a prompt has come to an end that ComfyUI tells, and
        `ended` when a client must be told of an end that ComfyUI does not tell.
        """
        self.scheduler = scheduler
        self._performer = performer
        self._journal = journal
        self._sockets = sockets
        self._tasks = tasks
        self._clock = clock
        self._wall = wall
        self._changed = changed
        self._withdrawn = withdrawn
        self._ran = ran
        self._ended = ended
        self._held: dict[str, Held] = {}
        self._inbox: deque[ev.Event] = deque()
        self._pumping = False
        self._timer: asyncio.TimerHandle | None = None
        self._sequence = 1
        self._outlook: list[Expected] | None = None
        self._outlook_at = 0.0

    # -- for the engine ------------------------------------------------------------------------------------------

    def get(self, prompt_id: object) -> Held | None:
        """The prompt, while it has not ended."""
        return self._held.get(prompt_id) if isinstance(prompt_id, str) else None

    def get_by_key(self, idempotency_key: str | None) -> Held | None:
        """The prompt that was submitted under an idempotency key, while it has not ended."""
        if idempotency_key is None:
            return None
        return next((held for held in self._held.values() if held.idempotency_key == idempotency_key), None)

    def sent(self) -> list[Held]:
        """The prompts that are at ComfyUI, or may be."""
        return [
            self._held[prompt_id] for prompt_id in self.scheduler.context.ledger.upstream if prompt_id in self._held
        ]

    def close(self) -> None:
        """Decide nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._pumping = True

    def next_sequence(self) -> int:
        """The place of a new prompt in the order of acceptance."""
        sequence, self._sequence = self._sequence, self._sequence + 1
        return sequence

    def resume_from(self, sequence: int) -> None:
        """The first sequence that was never used."""
        self._sequence = sequence

    def add(self, held: Held, event: ev.Submitted | ev.Restored) -> None:
        """Take a prompt in; its client's answer is `held.answer`."""
        self._held[held.prompt_id] = held
        self.tell(event)

    def tell(self, event: ev.Event) -> None:
        """Take note of a fact and do what follows from it."""
        self._inbox.append(event)
        self._outlook = None
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

    def _pump(self) -> bool:
        """Handle what is in the inbox; whether anything followed."""
        followed = False
        self._pumping = True
        try:
            while self._inbox:
                for command in self.scheduler.handle(self._inbox.popleft(), self._clock()):
                    self._perform(command)
                    followed = True
        finally:
            self._pumping = False
        self._arm()
        return followed

    def job(self, prompt_id: str) -> Job | None:
        """What the scheduler knows of a prompt."""
        return self.scheduler.context.ledger.jobs.get(prompt_id)

    async def delete(self, prompt_id: str) -> None:
        """Take a prompt out unless it runs; returns when it is out, as ComfyUI's own deletion does."""
        held = self._held[prompt_id]
        self.tell(ev.CancelRequested(prompt_id, interrupt=False))
        await self._out(held)

    async def clear(self) -> None:
        """Take out everything that does not run; returns when it is out."""
        before = list(self._held.values())
        self.tell(ev.ClearRequested())
        for held in before:
            await self._out(held)

    async def _out(self, held: Held) -> None:
        job = self.job(held.prompt_id)
        if job is not None and job.state in _LEAVING:
            with contextlib.suppress(TimeoutError):  # ComfyUI is away; it is taken out when it is back
                async with asyncio.timeout(_PATIENCE):
                    await held.over.wait()

    def foresight(self) -> Sequence[ModelSet]:
        """The components of the prompts expected next, the next one first."""
        expected = outlook(self.scheduler.context, self._clock(), _PLANNED)
        return [held.event.models for held, _ in islice(self._not_sent(expected), _FORESEEN)]

    def expected(self) -> Sequence[Expected]:
        """All prompts in the order in which they are expected to run, and when, on the clock of the queue."""
        now = self._clock()
        if self._outlook is None or now > self._outlook_at + _OUTLOOK_HOLDS:
            self._outlook, self._outlook_at = list(outlook(self.scheduler.context, now)), now
        return self._outlook

    def waiting(self) -> list[Held]:
        """The prompts that wait here, in the order in which they are expected to run."""
        return [held for held, job in self._not_sent(self.expected()) if job.answered]

    def _not_sent(self, expected: Iterable[Expected]) -> Iterator[tuple[Held, Job]]:
        ledger = self.scheduler.context.ledger
        sent = {job.prompt_id for job in ledger.at_comfyui()}
        for item in expected:
            held = self._held.get(item.prompt_id)
            if held is not None and item.prompt_id not in sent:
                yield held, ledger.jobs[item.prompt_id]

    def at_comfyui(self) -> list[Held]:
        """The prompts that run or are staged, in the order in which ComfyUI will run them."""
        return [self._held[job.prompt_id] for job in self.scheduler.context.ledger.at_comfyui()]

    @property
    def busy(self) -> bool:
        """Whether any prompt, accepted or not yet, has not ended."""
        return any(True for _ in self.scheduler.context.ledger.unfinished())

    @property
    def remaining(self) -> int:
        """How many accepted prompts have not ended, foreign ones at ComfyUI among them."""
        context = self.scheduler.context
        return sum(job.answered for job in context.ledger.unfinished()) + len(context.foreign)

    # -- commands ------------------------------------------------------------------------------------------------

    def _perform(self, command: do.Command) -> None:
        if isinstance(command, do.Interrupt):
            self._tasks.spawn(self._performer.interrupt(command.prompt_id), "interrupt")
            return
        held = self._held.get(command.prompt_id)
        if held is None:
            log.error("nothing is known of the prompt of %s", command)
            return
        if isinstance(command, do.Accept | do.Refuse | do.Hold | do.End):
            self._conclude(held, command)
            return
        match command:
            case do.Probe():
                self._ask(self._performer.probe(held, self._shown(held)), ev.ProbeUnclear(held.prompt_id))
            case do.Dispatch():
                self._note(held, State.DISPATCHING)
                self._ask(self._performer.dispatch(held, self._shown(held)), ev.DispatchUnclear(held.prompt_id))
            case do.Recall():
                self._ask(self._performer.recall(held.prompt_id))
            case do.Locate():
                self._ask(self._performer.locate(held.prompt_id))
            case _:
                assert_never(command)

    def _conclude(self, held: Held, command: do.Accept | do.Refuse | do.Hold | do.End) -> None:
        match command:
            case do.Accept():
                self._accept(held, command)
            case do.Refuse():
                self._refuse(held, command)
            case do.Hold():
                self._take_back(held, command)
            case do.End():
                self._end(held, command)
            case _:
                assert_never(command)

    def _ask(self, question: Coroutine[Any, Any, ev.Event | None], unclear: ev.Event | None = None) -> None:
        """Tell the answer when it comes; `unclear` where a fault of ours keeps it from coming."""

        async def report() -> None:
            try:
                event = await question
            except Exception:
                log.exception("a question to ComfyUI failed")
                event = unclear
            if event is not None:
                self.tell(event)

        self._tasks.spawn(report(), "ask ComfyUI")

    def _accept(self, held: Held, command: do.Accept) -> None:
        number = held.shown_number(command.number)
        answer = {"prompt_id": held.prompt_id, "number": number, "node_errors": held.node_errors or {}}
        body = json.dumps(answer).encode()
        job = self.job(held.prompt_id)
        state = State.WAITING if job is None else job.state
        held.written = self._journal.accept(
            JournalRecord(
                prompt_id=held.prompt_id,
                sequence=held.sequence,
                body=held.submission.body,
                answer=body,
                submitted=held.create_time / 1000,
                state=state,
                client_id=held.client_id,
                number=command.number,
                front=held.event.front,
                priority=held.event.priority,
                order_key=held.event.order_key,
                idempotency_key=held.idempotency_key,
                headers=held.headers,
            )
        )
        held.written.add_done_callback(lambda written: self._written(held, body, written))
        if held.end is not None:
            self._end(held, held.end)

    def _written(self, held: Held, body: bytes, written: "asyncio.Future[None]") -> None:
        error = None if written.cancelled() else written.exception()
        if error is None:
            _resolve(held.answer, json_answer(body))
            return
        held.written = None
        _reject(held.answer, error)
        self.tell(ev.CancelRequested(held.prompt_id))

    def _refuse(self, held: Held, command: do.Refuse) -> None:
        del self._held[held.prompt_id]
        self._forget(held)
        if command.reason.code is Code.QUEUE_FULL:
            full = DownstreamError(
                "The queue is full",
                status=429,
                type="queue_full",
                details=f"{command.reason.text}. Try again later, or raise [queue] max_waiting.",
                headers={"Retry-After": "30"},
            )
            _reject(held.answer, full)
        elif held.refusal is not None:
            _resolve(held.answer, held.refusal)
        else:
            _reject(held.answer, DownstreamError(command.reason.text, status=503, type=command.reason.code))

    def _take_back(self, held: Held, command: do.Hold) -> None:
        self._forget(held)
        self._note(held, State.WAITING, attempts=command.attempts)

    def _end(self, held: Held, command: do.End) -> None:
        if held.written is None and command.state is not State.CANCELLED:
            # Its events were faster than the answer to its submission, which is still to come.
            held.end = command
            return
        ending = Ending(command.state, command.reason, held.refusal)
        if held.written is not None:
            self._journal.update(
                Update(
                    prompt_id=held.prompt_id,
                    state=command.state,
                    finished=self._wall(),
                    outcome=command.reason.code,
                )
            )
            if command.state is State.CANCELLED and command.reason.code not in _TOLD_BY_COMFYUI:
                # As with ComfyUI, what was deleted before it ran leaves no trace, and its id may be used again.
                self._tasks.spawn(self._erase(held.prompt_id), "erase a deleted prompt")
        self._forget(held)
        if command.reason.code in _TOLD_BY_COMFYUI:
            self._ran(held)
        elif command.state is State.FAILED:
            self._ended(held, ending)
        del self._held[held.prompt_id]
        held.over.set()

    # -- helpers -------------------------------------------------------------------------------------------------

    async def _erase(self, prompt_id: str) -> None:
        try:
            await self._journal.delete([prompt_id])
        except ComfykeepError as error:
            log.warning("%s", error.message)

    def _forget(self, held: Held) -> None:
        """It is not at ComfyUI any more."""
        if held.record is not None:
            if held.record.timeline.outcome is None:
                self._withdrawn(held.record)
            self._sockets.release(held.record)
            held.record = None

    def _note(self, held: Held, state: State, *, attempts: int | Unset = UNSET) -> None:
        if held.written is not None:
            self._journal.update(Update(prompt_id=held.prompt_id, state=state, attempts=attempts))

    def _shown(self, held: Held) -> float:
        job = self.job(held.prompt_id)
        return held.shown_number(job.number if job else held.sequence)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at = self.scheduler.next_wakeup()
        if at is not None:
            delay = max(0.0, at - self._clock())
            self._timer = asyncio.get_running_loop().call_later(delay, self.tell, ev.Tick())


def _resolve(answer: "asyncio.Future[Answer]", value: Answer) -> None:
    if not answer.done():
        answer.set_result(value)


def _reject(answer: "asyncio.Future[Answer]", error: BaseException) -> None:
    """Nobody may be waiting any more; then it is no fault that nobody looks."""
    if not answer.done():
        answer.set_exception(error)
        answer.exception()
