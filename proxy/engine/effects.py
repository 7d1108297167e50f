"""What the scheduler's commands do: at ComfyUI, in the journal, towards the client.

A client is told that its prompt was taken when the journal has it on disk, not before; and of an end that ComfyUI does
not tell, it is told from here.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, assert_never

from proxy.core import commands as do
from proxy.core import events as ev
from proxy.core.commands import Code
from proxy.core.jobs import State
from proxy.core.ledger import Ledger
from proxy.engine.bookkeeping import describe_deleted
from proxy.engine.client_sockets import ClientSockets
from proxy.engine.endings import Ending
from proxy.engine.held import Held
from proxy.engine.performer import Performer
from proxy.engine.prompts import Prompts
from proxy.engine.records import Record
from proxy.engine.sender import json_answer
from proxy.errors import DownstreamError
from proxy.journal import Journal
from proxy.journal_records import UNSET, Unset, Update
from proxy.journal_records import Record as JournalRecord
from proxy.tasks import Tasks
from proxy.upstream.client import Answer

log = logging.getLogger(__name__)

_PATIENCE = 1.0
"""Seconds that a dispatch waits for the journal, and an interruption for what is to be out before it: one that cannot
be written, or does not answer, must not stop the rest."""
_TOLD_BY_COMFYUI = frozenset({Code.DONE, Code.RUN_FAILED, Code.INTERRUPTED})
"""Ends that ComfyUI itself tells the client; all others but a cancellation are ours to tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects:
    """Carries out commands.

    Attributes:
        ledger: what the scheduler knows of the prompts; read only.
        wall: Unix seconds.
        tell: takes what ComfyUI has answered.
        withdrawn: is told of a prompt that was sent to ComfyUI, is not there any more, and has not run.
        ran: is told of a prompt that has come to an end that ComfyUI tells.
        ended: is told of an end that ComfyUI does not tell.
    """

    prompts: Prompts
    ledger: Ledger
    performer: Performer
    journal: Journal
    sockets: ClientSockets
    tasks: Tasks
    wall: Callable[[], float]
    tell: Callable[[ev.Event], None]
    withdrawn: Callable[[Record], None]
    ran: Callable[[Held], None]
    ended: Callable[[Held, Ending], None]
    _deleted: list[str] = field(default_factory=list)
    _recalls: set[asyncio.Task[None]] = field(default_factory=set)
    """What is being taken out of ComfyUI's queue."""

    def perform(self, command: do.Command) -> None:
        """Carry out a command; what takes time goes on after the return."""
        if isinstance(command, do.Interrupt):
            self.tasks.spawn(self._interrupt(command.prompt_id), "interrupt")
            return
        held = self.prompts.get(command.prompt_id)
        if held is None:
            log.error("nothing is known of the prompt of %s", command)
            return
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
                self._turn_to_comfyui(held, command)

    def conclude(self) -> None:
        """All commands of this moment are carried out: what they deleted is forgotten together."""
        if self._deleted:
            log.info("%s", describe_deleted(self._deleted))
            self.journal.withdraw(tuple(self._deleted))
            self._deleted.clear()

    def _turn_to_comfyui(self, held: Held, command: do.Probe | do.Dispatch | do.Recall | do.Locate) -> None:
        match command:
            case do.Probe():
                question = self.performer.probe(held, self._shown(held), self.performer.connection)
                self._ask(question, ev.ProbeUnclear(held.prompt_id))
            case do.Dispatch():
                noted = self._note(held, State.DISPATCHING)
                question = self._dispatch(held, noted, self.performer.connection)
                self._ask(question, ev.DispatchUnclear(held.prompt_id))
            case do.Recall():
                job = self.ledger.jobs[held.prompt_id]
                recall = self._ask(self._recall(held, self._note(held, job.state)))
                self._recalls.add(recall)
                recall.add_done_callback(self._recalls.discard)
            case do.Locate():
                self._ask(self.performer.locate(held))
            case _:
                assert_never(command)

    async def _dispatch(self, held: Held, noted: "asyncio.Future[None] | None", connection: int) -> ev.Event | None:
        """Send it when that is written down: at a start, ComfyUI's history is asked about what may be there, only."""
        if noted is not None:
            await asyncio.wait([noted], timeout=_PATIENCE)
        return await self.performer.dispatch(held, self._shown(held), connection)

    async def _recall(self, held: Held, noted: "asyncio.Future[None] | None") -> ev.Event | None:
        """Take it back when that is written down: at a start, what is missing would be taken for removed."""
        if noted is not None:
            await asyncio.wait([noted], timeout=_PATIENCE)
        return await self.performer.recall(held.prompt_id)

    async def _interrupt(self, prompt_id: str | None) -> None:
        """Stop what runs; what a client has cancelled before it must not start because of that."""
        if self._recalls:
            await asyncio.wait(self._recalls, timeout=_PATIENCE)
        await self.performer.interrupt(prompt_id)

    def _ask(
        self, question: Coroutine[Any, Any, ev.Event | None], unclear: ev.Event | None = None
    ) -> asyncio.Task[None]:
        """Tell the answer when it comes; `unclear` where a fault of ours keeps it from coming."""

        async def report() -> None:
            try:
                event = await question
            except Exception:
                log.exception("a question to ComfyUI failed")
                event = unclear
            if event is not None:
                self.tell(event)

        return self.tasks.spawn(report(), "ask ComfyUI")

    def adopt(self, held: Held, number: float) -> None:
        """Write down a prompt that ComfyUI has, tell its client, and look where it is."""
        self._write(held, number, State.DISPATCHING)
        self._ask(self.performer.locate(held))

    def _accept(self, held: Held, command: do.Accept) -> None:
        job = self.ledger.jobs.get(held.prompt_id)
        state = State.WAITING if job is None else job.state
        # Its end is written next. Should a kill come between the two, the next start asks ComfyUI what became of it.
        self._write(held, command.number, state if held.end is None else State.DISPATCHING)
        if held.end is not None:
            self._end(held, held.end)

    def _write(self, held: Held, number: float, state: State) -> None:
        shown, errors = held.shown_number(number), held.node_errors or {}
        body = json.dumps({"prompt_id": held.prompt_id, "number": shown, "node_errors": errors}).encode()
        held.written = self.journal.accept(
            JournalRecord(
                prompt_id=held.prompt_id,
                sequence=held.sequence,
                body=held.submission.body,
                answer=body,
                submitted=held.create_time / 1000,
                state=state,
                client_id=held.client_id,
                number=number,
                front=held.event.front,
                priority=held.event.priority,
                order_key=held.event.order_key,
                idempotency_key=held.idempotency_key,
                headers=held.headers,
            )
        )
        held.written.add_done_callback(lambda written: self._written(held, body, written))

    def _written(self, held: Held, body: bytes, written: "asyncio.Future[None]") -> None:
        error = None if written.cancelled() else written.exception()
        if error is None:
            _resolve(held.answer, json_answer(body))
            return
        held.written = None
        _reject(held.answer, error)
        self.tell(ev.CancelRequested(held.prompt_id))

    def _refuse(self, held: Held, command: do.Refuse) -> None:
        self.prompts.remove(held)
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
        if held.written is None and not held.answer.done() and command.state is not State.CANCELLED:
            # Its events were faster than the answer to its submission, which is still to come.
            held.end = command
            return
        now = self.wall()
        ending = Ending(command.state, command.reason, held.refusal, int(now * 1000))
        if held.written is not None and _leaves_no_trace(command):
            self._deleted.append(held.prompt_id)
        elif held.written is not None:
            self.journal.update(
                Update(
                    prompt_id=held.prompt_id,
                    state=command.state,
                    finished=now,
                    outcome=command.reason.code,
                    history=self._entry(held, ending),
                )
            )
        self._forget(held)
        if command.reason.code in _TOLD_BY_COMFYUI:
            self.ran(held)
        elif command.state is State.FAILED:
            log.warning("prompt %s: failed; %s", held.prompt_id, ending.message)
            self.ended(held, ending)
        self.prompts.remove(held)
        if held.over is not None:
            held.over.set()

    def _entry(self, held: Held, ending: Ending) -> bytes | Unset:
        """Its history entry, written with its end: ComfyUI may not live long enough to be asked for its own."""
        item = json.loads(held.queue_item(self._number(held)))
        told = ending.reason.code in _TOLD_BY_COMFYUI
        entry = held.chronicle.entry(item) if told else ending.history_entry(item)
        return UNSET if entry is None else json.dumps(entry).encode()

    # -- helpers -------------------------------------------------------------------------------------------------

    def _forget(self, held: Held) -> None:
        """It is not at ComfyUI any more."""
        if held.record is not None:
            if held.record.timeline.outcome is None:
                self.withdrawn(held.record)
            self.sockets.release(held.record)
            held.record = None

    def _note(self, held: Held, state: State, *, attempts: int | Unset = UNSET) -> "asyncio.Future[None] | None":
        if held.written is None:
            return None
        return self.journal.update(Update(prompt_id=held.prompt_id, state=state, attempts=attempts))

    def _number(self, held: Held) -> float:
        job = self.ledger.jobs.get(held.prompt_id)
        return job.number if job else held.sequence

    def _shown(self, held: Held) -> float:
        return held.shown_number(self._number(held))


def _leaves_no_trace(end: do.End) -> bool:
    """As with ComfyUI, what was deleted before it ran is not in the history, and its id may be used again."""
    return end.state is State.CANCELLED and end.reason.code not in _TOLD_BY_COMFYUI


def _resolve(answer: "asyncio.Future[Answer]", value: Answer) -> None:
    if not answer.done():
        answer.set_result(value)


def _reject(answer: "asyncio.Future[Answer]", error: BaseException) -> None:
    """Nobody may be waiting any more; then it is no fault that nobody looks."""
    if not answer.done():
        answer.set_exception(error)
        answer.exception()
