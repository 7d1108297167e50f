"""The held queue as the engine uses it: submissions in, what happened at ComfyUI in, restarts survived, clients told.

`holding` feeds the scheduler and `effects` carries out its commands. Here is what surrounds that: what the journal has
at the start, what ComfyUI has when it answers again, and the `status` that clients are sent.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from normalizer import ModelSet
from proxy.core import events as ev
from proxy.core.jobs import State
from proxy.core.scheduler import Scheduler
from proxy.core.settings import Settings
from proxy.core.upkeep import Failed, Upkeep
from proxy.core.upkeep import Settings as UpkeepSettings
from proxy.engine.caretaker import Caretaker
from proxy.engine.client_sockets import ClientSockets
from proxy.engine.comfy import Upstream
from proxy.engine.effects import Effects
from proxy.engine.endings import Ending
from proxy.engine.held import IDEMPOTENCY_HEADER, Held, header, hold
from proxy.engine.history import History
from proxy.engine.holding import Holding
from proxy.engine.operating import Operations
from proxy.engine.passing import Look, Passing
from proxy.engine.performer import Performer
from proxy.engine.prompts import Prompts
from proxy.engine.records import Record, Records
from proxy.engine.recovery import Queue, read_history_entry
from proxy.engine.sender import Sender, json_answer
from proxy.engine.submission import Draft, Submission
from proxy.engine.taking_up import given_up, read_back, restored, unreadable
from proxy.errors import ComfykeepError
from proxy.journal import Journal
from proxy.journal_errors import JournalClosed
from proxy.journal_records import Record as JournalRecord
from proxy.journal_records import Update
from proxy.tasks import Tasks
from proxy.upstream.attachment import Delivery
from proxy.upstream.client import Answer
from proxy.upstream.feed import Feed
from proxy.upstream.host import resident_bytes
from proxy.wire.frames import build_text

log = logging.getLogger(__name__)


FORGETTING = 600.0
"""Seconds between two times that ended prompts are forgotten."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the queue shares with the engine. `clock` gives monotonic, `wall` Unix seconds."""

    upstream: Upstream
    feed: Feed
    records: Records
    passing: Passing
    sender: Sender
    sockets: ClientSockets
    tasks: Tasks
    forget: Callable[[Record], None]
    left_behind: Mapping[str, float]
    """Prompts that ComfyUI has from a proxy, with their numbers; not all were told to their clients."""
    warmed: Callable[[], bool]
    """Whether nothing is still to be warmed up in a ComfyUI that has come up."""
    clock: Callable[[], float]
    wall: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Terms:
    """What the configuration says about a held queue, besides its order.

    Attributes:
        upkeep: when ComfyUI is restarted.
        restart_command: how.
        retain: ended prompts that are remembered ...
        retain_seconds: ... for so long at most.
    """

    upkeep: UpkeepSettings
    restart_command: str
    retain: int
    retain_seconds: float


OpenQueue = Callable[[Parts], Awaitable["HeldQueue"]]


class HeldQueue:
    """All that waits here, from one start of the proxy to its end."""

    def __init__(self, parts: Parts, journal: Journal, settings: Settings, terms: Terms) -> None:
        self._parts = parts
        self._terms = terms
        self._journal = journal
        self._status_due = False
        self._taken_up = False
        self._ready = asyncio.Event()
        self._moved = asyncio.Event()
        self.history = History(parts.upstream.client, journal, parts.tasks, self._tell_missed)
        self._performer = Performer(
            parts.upstream, parts.records, parts.passing, parts.sender, parts.sockets, parts.clock, self._foresight
        )
        scheduler, prompts = Scheduler(parts.upstream, settings), Prompts()
        effects = Effects(
            prompts=prompts,
            ledger=scheduler.context.ledger,
            performer=self._performer,
            journal=journal,
            sockets=parts.sockets,
            tasks=parts.tasks,
            wall=parts.wall,
            tell=self._tell,
            withdrawn=parts.forget,
            ran=self.history.ran,
            ended=self._tell_end,
        )
        self.holding = Holding(scheduler, prompts, effects, parts.clock, self._changed)
        self.caretaker = Caretaker(
            Upkeep(terms.upkeep),
            terms.restart_command,
            parts.tasks,
            parts.clock,
            self.holding.tell,
            lambda: resident_bytes(parts.upstream.client.base_url),
            parts.warmed,
        )
        self.operations = Operations(
            self.holding, journal, parts.upstream.costs, parts.clock, parts.wall, self.caretaker.excused
        )

    async def watch_journal(self) -> None:
        """Say it when the journal fails for good; runs until then."""
        try:
            await self._journal.watch()
        except JournalClosed:
            return
        except ComfykeepError as error:
            log.critical("%s. %s", error.message, error.details)

    async def retain(self) -> None:
        """Forget ended prompts when it is time, for ever."""
        terms = self._terms
        while True:
            await self.history.forget(terms.retain, self._parts.wall() - terms.retain_seconds)
            await asyncio.sleep(FORGETTING)

    def follow(self, terms: Terms) -> None:
        """The configuration has changed."""
        self._terms = terms
        self.caretaker.follow(terms.upkeep, terms.restart_command)

    def beat(self) -> bool:
        """Time has passed; whether the queue still decides."""
        context = self.holding.scheduler.context
        self.caretaker.look(drained=context.ready and not context.ledger.upstream and not context.foreign)
        return self.holding.beat()

    async def _load(self, at_comfyui: frozenset[str]) -> None:
        """Take up what an earlier process left. ComfyUI must answer: what a prompt needs shows by its classes."""
        parts, recovered = self._parts, await self._journal.load()
        own_id = parts.feed.own_id
        read = []
        for record in recovered.unfinished:
            read.append((record, await read_back(record, parts.passing, own_id)))
            await asyncio.sleep(0)  # there may be ten thousand, and clients that want something else meanwhile
        # From here on without a pause, so that it is done once and whole.
        self.holding.prompts.resume_from(recovered.next_sequence)
        self.history.resume(recovered)
        self.operations.restore(recovered.facts)
        for record, held in read:
            if held is None:
                self._give_up(record, at_comfyui)
        waiting = [(held, restored(record, held, parts.clock, parts.wall)) for record, held in read if held is not None]
        self.holding.take_up(waiting)
        if recovered.unfinished:
            log.info("%d prompts are taken up from the journal", len(recovered.unfinished))
        self._taken_up = True

    def _give_up(self, record: JournalRecord, at_comfyui: frozenset[str]) -> None:
        """End a prompt that cannot be read, so that nobody waits for it; its data stay in the journal."""
        if record.prompt_id in at_comfyui:
            return  # it has been sent, and ComfyUI tells its end; the next start settles what is written of it
        ending = unreadable(round(self._parts.wall() * 1000))
        self._journal.update(given_up(record, ending))
        if record.client_id is not None:
            frames = ending.frames(record.prompt_id)
            self._parts.feed.deliver(Delivery(frame, record.client_id) for frame in frames)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something to be true of the queue."""
        while not condition():
            self._moved.clear()
            await self._moved.wait()

    async def until_reconciled(self) -> None:
        """Wait until what the journal holds has been compared with what ComfyUI has."""
        await self.until(lambda: self.holding.scheduler.context.ready)

    async def close(self) -> None:
        """Write down what is still to be written."""
        self.holding.close()
        self.operations.save()
        await self._journal.close()

    # -- from clients --------------------------------------------------------------------------------------------

    async def submit(self, submission: Submission, look: Look) -> Answer:
        """Take a prompt in; the answer comes when it is validated and on disk.

        Raises:
            DownstreamError: when it is refused by a limit, or its priority or order key makes no sense.
            JournalUnwritable: at once, when the journal is known to take nothing.
            UpstreamError: when ComfyUI has not been seen yet, so that the address may be wrong.
        """
        if not self._ready.is_set():
            await self._parts.upstream.client.get_json("/prompt")  # raises what is wrong, in the usual words
            await self._ready.wait()
        if self.holding.job(look.original.prompt_id) is not None:
            # It came a second time while this one was looked at, and may even have ended.
            answered = await self.answered_before(submission, look.original)
            if answered is not None:
                return answered
        first = self._first(submission, look.original)
        if first is not None:
            return await asyncio.shield(first.answer)
        if (trouble := self._journal.trouble) is not None:
            raise type(trouble)(trouble.message, details=trouble.details)  # a new one: each raise adds to a traceback
        created = int(self._parts.wall() * 1000)
        held = hold(submission, look, self.holding.prompts.next_sequence(), self._parts.feed.own_id, created)
        number = self._parts.left_behind.get(held.prompt_id)
        if number is None:
            self.holding.add(held, held.event)
        else:
            self.holding.adopt(held, number)
        return await asyncio.shield(held.answer)

    async def answered_before(self, submission: Submission, original: Draft) -> Answer | None:
        """What was answered to the first submission of this id or idempotency key; None if it is new."""
        first = self._first(submission, original)
        if first is not None:
            return await asyncio.shield(first.answer)
        known = await self._journal.find(original.prompt_id)
        if known is None and (key := header(submission, IDEMPOTENCY_HEADER)) is not None:
            known = await self._journal.find_key(key)
        return None if known is None else json_answer(known.answer)

    def _first(self, submission: Submission, original: Draft) -> Held | None:
        """The prompt that has not ended and was submitted under this id or idempotency key."""
        key = header(submission, IDEMPOTENCY_HEADER)
        return self.holding.prompts.get(original.prompt_id) or self.holding.prompts.get_by_key(key)

    # -- from ComfyUI --------------------------------------------------------------------------------------------

    def seen(self, record: Record, kind: str, data: Mapping[str, Any]) -> None:
        """An event of a prompt's run. Of a second one, for want of memory in the first, the queue knows nothing."""
        if kind == "executing" and data.get("node") is None:
            self.history.closed(record.prompt_id)
        held = self.holding.get(record.prompt_id)
        if held is None:
            return
        held.chronicle.note(kind, data, record.way_back)
        if kind == "progress":
            self.caretaker.stepped()
        if kind == "execution_start" and record.rerun is None:
            self._journal_started(held)
            self.holding.tell(ev.Started(record.prompt_id))

    def finished(self, record: Record, outcome: ev.Outcome) -> bool:
        """A prompt's run has ended; whether it is one of the queue's."""
        held = self.holding.get(record.prompt_id)
        if held is None:
            return False
        loads = sum(item.seconds or 0.0 for item in record.account.loaded) if record.account else None
        self.history.last_ended = record.prompt_id
        outcome = self._judged(held, record, outcome)
        if not record.muted and record.timeline.ended_at is not None:
            self.history.ending(held)
        self.holding.tell(ev.Finished(record.prompt_id, outcome, record.timeline.run_seconds, loads))
        if outcome is ev.Outcome.SUCCESS:
            self.operations.ran(held)
        return True

    def _judged(self, held: Held, record: Record, outcome: ev.Outcome) -> ev.Outcome:
        """How its run has ended: a failure for which ComfyUI is to blame, or may be, is not told."""
        if outcome is ev.Outcome.SUCCESS:
            self.caretaker.succeeded()
        error, job = held.chronicle.error, self.holding.job(held.prompt_id)
        if outcome is not ev.Outcome.ERROR or error is None:
            return outcome
        failure = Failed(
            held.prompt_id,
            held.event.workload,
            str(error.get("exception_type", "")),
            str(error.get("exception_message", "")),
            paid=held.event.paid,
            again=job is not None and job.attempts > 0,
            alone=self.holding.alone(held.prompt_id),
        )
        outcome = self.caretaker.failed(failure)
        record.muted = held.chronicle.kept_back = outcome is not ev.Outcome.ERROR
        return outcome

    def lost(self) -> None:
        """ComfyUI does not answer any more."""
        self._performer.lost()
        self.history.lost()
        self.holding.tell(ev.UpstreamLost())

    async def settled(self) -> None:
        """Wait until nothing is on its way to ComfyUI, so that its queue, read then, has all that it will have."""
        await self._performer.settled()

    async def ready(self, queue: Queue) -> None:
        """ComfyUI answers, and this is its queue.

        Raises:
            UpstreamError: when it went away again.
        """
        if not self._taken_up:
            await self._load(queue.ids)
        client = self._parts.upstream.client
        finished = {}
        sent = self.holding.sent()
        for held in sent:
            entry = None if held.prompt_id in queue.ids else await read_history_entry(client, held.prompt_id)
            if entry is not None:
                held.chronicle.remember(entry.restored)
                finished[held.prompt_id] = ev.Finished(held.prompt_id, entry.outcome)
        running = frozenset(str(item[1]) for item in queue.running)
        pending = tuple(str(item[1]) for item in sorted(queue.pending, key=lambda item: (item[0], item[1])))
        missing = [held for held in sent if held.prompt_id not in queue.ids and held.prompt_id not in finished]
        # One that was on its way when ComfyUI was lost may have come to the new process; it proves nothing.
        telling = [held for held in sent if self._was_there(held)] or sent
        suspected = any(self._ran_last(held) for held in missing) or all(held in missing for held in telling)
        new_process = suspected and await self.history.is_new_process()
        if new_process:
            self.caretaker.reborn()
        self.history.looked_into()
        self.holding.tell(ev.UpstreamReady(new_process, running, pending, finished))
        if new_process and missing:
            again = sum(self.holding.get(held.prompt_id) is held for held in missing)
            log.warning("ComfyUI is a new process; of the prompts that the old one had, %d are sent again", again)
        self.history.catch_up()
        self._ready.set()

    def _was_there(self, held: Held) -> bool:
        """ComfyUI had certainly taken it."""
        job = self.holding.job(held.prompt_id)
        return job is not None and job.confirmed

    def _ran_last(self, held: Held) -> bool:
        """It ran when it was heard of last. Nobody can delete such a prompt from ComfyUI's queue."""
        job = self.holding.job(held.prompt_id)
        return job is not None and job.started is not None

    # -- towards clients -----------------------------------------------------------------------------------------

    def status_frame(self) -> str:
        """What clients are sent when the queue has changed."""
        return build_text("status", {"status": {"exec_info": {"queue_remaining": self.holding.remaining}}})

    def _changed(self) -> None:
        self._moved.set()
        if not self._status_due:
            self._status_due = True
            asyncio.get_running_loop().call_soon(self._send_status)

    def _send_status(self) -> None:
        self._status_due = False
        self._parts.feed.deliver([Delivery(self.status_frame(), None)])

    def _tell_end(self, held: Held, ending: Ending) -> None:
        self._deliver(held, ending.frames(held.prompt_id))

    def _tell_missed(self, held: Held) -> None:
        """Its end was found in ComfyUI's history: the events went by while nobody could hear them."""
        told = held.chronicle.last_words()
        if told is not None:
            closing = build_text("executing", {"node": None, "prompt_id": held.prompt_id})
            self._deliver(held, [build_text(*told), closing])

    def _deliver(self, held: Held, frames: Sequence[str]) -> None:
        if held.client_id is not None and not held.broadcast:
            self._parts.feed.deliver(Delivery(frame, held.client_id) for frame in frames)

    def _tell(self, event: ev.Event) -> None:
        self.holding.tell(event)

    def _foresight(self) -> Sequence[ModelSet]:
        return self.holding.lookahead.foresight()

    # -- the journal ---------------------------------------------------------------------------------------------

    def _journal_started(self, held: Held) -> None:
        if held.written is not None:
            now = self._parts.wall()
            self._journal.update(Update(prompt_id=held.prompt_id, state=State.RUNNING, started=now))
