"""The one writer: whatever is decided about a prompt is decided here, one event at a time.

Submissions come in from clients and frames from ComfyUI; out go rewritten prompts, restored answers, restored frames.
All of it happens on one event loop, and no decision is interrupted half-made, so there are no locks.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

from normalizer import WayBack
from proxy.core.events import Outcome
from proxy.core.evidence import ModelsFreed
from proxy.core.mode import Mode
from proxy.core.release import Release
from proxy.core.strategy import Strategy
from proxy.engine.arrival import Arrival
from proxy.engine.between import Between
from proxy.engine.bookkeeping import Bookkeeping, Totals, describe_deleted
from proxy.engine.client_sockets import ClientSockets
from proxy.engine.comfy import Upstream
from proxy.engine.departure import ANSWERS, SETTLING, Departure, hand_over, hold_still
from proxy.engine.direct import Direct
from proxy.engine.housekeeping import Housekeeping
from proxy.engine.observer import FrameObserver
from proxy.engine.passing import Passing
from proxy.engine.pulse import Pulse
from proxy.engine.queue import HeldQueue, OpenQueue, Parts
from proxy.engine.records import Record, Records
from proxy.engine.recovery import read_history_entry
from proxy.engine.rerun import Reruns
from proxy.engine.sender import Parcel, Sender
from proxy.engine.submission import Draft, Named, Place, Submission, draft, parse
from proxy.engine.unpacking import unpacked
from proxy.engine.visible import Visible
from proxy.engine.warming import Warming
from proxy.engine.watch import Watch
from proxy.errors import ShuttingDown
from proxy.tasks import Tasks
from proxy.upstream.attachment import Delivery
from proxy.upstream.client import Answer
from proxy.upstream.feed import Feed
from proxy.wire.frames import Frame, build_text

log = logging.getLogger(__name__)


class Engine:
    """Ties one ComfyUI, its feed and the records together. `start` it inside the loop, `close` it once."""

    def __init__(
        self,
        upstream: Upstream,
        mode: Mode,
        clock: Callable[[], float],
        wall: Callable[[], float],
        make_feed: Callable[["Engine"], Feed],
        open_queue: OpenQueue,
    ) -> None:
        """`clock` gives monotonic, `wall` Unix seconds.

        `make_feed` is called once, with this engine as the feed's observer; `open_queue` when `full` first holds.
        """
        self.upstream = upstream
        self.mode: Mode = Mode.PINS if mode is Mode.FULL else mode
        self.records = Records()
        self.held: HeldQueue | None = None
        self._wanted = mode
        self._clock = clock
        self._wall = wall
        self._tasks = Tasks()
        self._books = Bookkeeping(upstream)
        self._passing = Passing(upstream, self.records, self._books, clock)
        self.visible = Visible(self.records, self._passing)
        self._observer = FrameObserver(
            self.records,
            clock=clock,
            on_event=self._seen,
            on_end=self.ended,
            on_status=self._queue_changed,
            held_remaining=self._remaining,
            clients=self._clients,
        )
        self.feed = make_feed(self)
        self._observer.own_id = self.feed.own_id
        self._sockets = ClientSockets(self.feed)
        self._sender = Sender(upstream, self.feed.own_id, self._about_to_send)
        self._reruns = Reruns(
            self._sender,
            pinned_bytes=upstream.planner.residency.pinned_bytes,
            ran_out=lambda record: self._books.ran_out(record, clock()),
            spawn=lambda run: self._tasks.spawn(self.departure.accompany(run), "run a prompt again"),
            give_up=self._show_failure,
            wall=wall,
        )
        self._observer.takes_again = self._reruns.take
        self._watch = Watch(
            upstream.client,
            self.visible,
            self.records,
            self._tasks,
            ended=self.ended,
            gone=self.forget,
            witness=self.feed.witness,
            foreign=self._ran_foreign,
            up=lambda: self.feed.up,
        )
        self.warming = Warming(
            upstream,
            self.records,
            self._passing,
            self._sender,
            self._tasks,
            own_id=self.feed.own_id,
            clock=clock,
            wall=wall,
            mode=lambda: self.mode,
            holding=lambda: None if self.held is None else self.held.holding,
            remaining=lambda: self._observer.remaining,
            forget=self.forget,
        )
        self._observer.visible = self.warming.traces.visible
        upstream.between = Between(
            upstream,
            self.records,
            self._passing,
            self._sender,
            self.warming.traces,
            own_id=self.feed.own_id,
            forget=self.forget,
        ).come
        self._housekeeping = Housekeeping(upstream, self.warming, clock)
        self.pulse = Pulse(
            self.feed,
            held=lambda: self.held,
            remaining=self._remaining,
            clock=clock,
            wall=wall,
        )
        self.left_in_journal = 0
        """Unfinished prompts that the journal's file held when this process began, if it was not opened."""
        self.departure = Departure()
        self.learned: Callable[[], object] = lambda: None
        """Called when a ComfyUI that has come up has told what it is."""
        self._open_queue = open_queue
        self._left_behind: dict[str, float] = {}
        """What ComfyUI was sent by this or an earlier process of the proxy, with the numbers that clients read."""
        self._seen_before = False
        self._direct = Direct(
            upstream,
            self.records,
            self._passing,
            self._sender,
            self._sockets,
            self._tasks,
            own_id=self.feed.own_id,
            departure=self.departure,
            left_behind=self._left_behind,
            forget=self.forget,
            visible=self.visible,
            held_foresight=lambda: () if self.held is None else self.held.holding.lookahead.foresight(),
            clock=clock,
        )
        self._arrival = Arrival(
            upstream,
            self.records,
            self.feed,
            self._watch,
            self.warming,
            self._tasks,
            held=lambda: self.held,
            left_behind=self._left_behind,
            clock=clock,
            learned=self._learned,
            queue_read=lambda running: self.feed.deliver(self._observer.queue_read(running)),
        )
        self._polling: asyncio.Task[None] | None = None

    @property
    def totals(self) -> Totals:
        """The sums since the start."""
        return self._books.totals

    @property
    def body_limit(self) -> int:
        """Bytes of a submission at most."""
        return self.upstream.body_limit

    async def start(self) -> None:
        """Begin to follow ComfyUI; does not wait for it.

        Raises:
            JournalUnusable: when the mode is `full` and the journal cannot be opened.
        """
        await self._enter(self._wanted)
        await self.feed.start()
        self._tasks.spawn(self.pulse.run(), "beat")
        self._tasks.spawn(self._housekeeping.run(), "keep Inspire's cache in order")

    async def leave(self, *, flush: bool) -> None:
        """Take nothing new and let what is under way come to its end; with `flush`, ComfyUI gets all that waits."""
        self.departure.begin()
        if not await self.departure.patiently(self.departure.finished(), ANSWERS):
            log.warning("some submissions do not get their answers before this stop")
        if self.held is None:
            return
        if flush:
            await self.departure.patiently(hand_over(self.held.holding, self.held.until))
        if not await self.departure.patiently(hold_still(self.held.holding, self.held.until), SETTLING):
            log.warning("not all prompts could be settled with ComfyUI; they are looked up at the next start")

    async def close(self) -> None:
        """Stop; clients get what is buffered for them, and what waits stays in the journal."""
        if not await self.departure.patiently(self.feed.close()):
            await self.feed.close(grace=0)
        await self._tasks.close()
        self.upstream.memory.close()
        if self.held is not None:
            await self.held.close()

    def change_strategy(self, strategy: Strategy) -> None:
        """From the next prompt on; keys that are of no use to it are let go when nothing runs."""
        self.upstream.strategy = strategy
        self._housekeeping.poke()
        self.learned()

    async def read_again(self) -> None:
        """Read what classes and model files ComfyUI has now: it does not tell when there are others."""
        if self.feed.up:
            self.upstream.schema.forget()
            await self.upstream.learn(self._clock())

    async def change_mode(self, mode: Mode) -> None:
        """From the next prompt on; what waits here already is still run from here.

        Raises:
            JournalUnusable: when the queue is to be held and its journal cannot be opened.
        """
        before = self.mode
        await self._enter(mode)
        if mode is not before:
            log.info("mode %s → %s", before, mode)
        if mode is not Mode.FULL and self.waiting_here and self.paused_by:
            log.warning(
                "%d prompts still wait here, and the queue is paused by %s: `comfykeep queue resume` lets them run",
                self.waiting_here,
                ", ".join(self.paused_by),
            )

    @property
    def waiting_here(self) -> int:
        """Prompts that wait in the held queue, whatever the mode is now."""
        return 0 if self.held is None else self.held.holding.scheduler.context.ledger.held

    @property
    def paused_by(self) -> tuple[str, ...]:
        """Who wants nothing to be sent from the held queue."""
        return () if self.held is None else self.held.operations.paused_by

    @property
    def waiting_in_journal(self) -> int:
        """Prompts of an earlier process that wait in a journal which this mode does not open."""
        return self.left_in_journal if self.held is None else 0

    async def _enter(self, mode: Mode) -> None:
        if mode is Mode.FULL and self.held is None:
            parts = Parts(
                upstream=self.upstream,
                feed=self.feed,
                records=self.records,
                passing=self._passing,
                sender=self._sender,
                sockets=self._sockets,
                tasks=self._tasks,
                forget=self.forget,
                left_behind=self._left_behind,
                warmed=self.warming.warmed,
                clock=self._clock,
                wall=self._wall,
            )
            self.held = await self._open_queue(parts)
            self._tasks.spawn(self.held.watch_journal(), "watch the journal")
            self._tasks.spawn(self.held.retain(), "forget ended prompts")
            self._observer.holds = True
            self._watch.holding = self.held.holding
            if self.feed.up:
                self._arrival.begin(restarted=False)
        self.mode = mode
        self.warming.learned()

    # -- from clients --------------------------------------------------------------------------------------------

    async def submit(self, submission: Submission, named: Named) -> Answer:
        """Take in one prompt; ComfyUI's answer in the client's terms.

        `named` is told the prompt's id and its client's before ComfyUI is asked.

        Raises:
            DownstreamError: for what would harm ComfyUI or what it could not read.
            UpstreamError: when ComfyUI does not answer.
        """
        with self.warming.client():
            return await self._submit(submission, named)

    async def _submit(self, submission: Submission, named: Named) -> Answer:
        if self.mode is Mode.OBSERVE or submission.bypass:
            return await self._direct.leave_alone(submission, named)
        plain = unpacked(submission, self.body_limit)
        if plain is None:
            return await self._passing.post(submission)
        submission = plain
        payload = parse(submission)
        original = draft(payload)
        if original is not None:
            named(original.prompt_id, original.client_id)
        answered = None if original is None else await self._answered_before(submission, original)
        if answered is not None:
            return answered
        look = None if original is None else await self._passing.look_at(original)
        if look is None:
            return await self._passing.post_misfit(submission, payload)
        if self.mode is Mode.FULL and self.held is not None:
            return await self.held.submit(submission, look)
        return await self._direct.send(submission, look)

    def see_through(self, order: Coroutine[Any, Any, None]) -> None:
        """Carry out a client's order, whether or not the client stays.

        Raises:
            ShuttingDown: when it is too late for that.
        """
        try:
            self._tasks.spawn(self.departure.accompany(order), "carry out an order")
        except RuntimeError as error:
            order.close()
            raise ShuttingDown from error

    def freed(self, *, unload_models: bool, free_memory: bool) -> None:
        """A client told ComfyUI to free memory, and ComfyUI took it."""
        self.upstream.freed(ModelsFreed(unload_models, free_memory), self._clock())
        self.warming.look()

    def deleted_from_queue(self, prompt_ids: Iterable[object] | None) -> None:
        """A client deleted these prompts, or all (None), from ComfyUI's queue."""
        deleted = self.records.delete_waiting(prompt_ids)
        if deleted:
            log.info("%s", describe_deleted([record.prompt_id for record in deleted]))
        for record in deleted:
            self._left_behind.pop(record.prompt_id, None)
            self.forget(record)

    async def deleted_from_history(self, prompt_ids: Iterable[object] | None) -> None:
        """A client deleted these prompts, or all (None), from ComfyUI's history."""
        chosen = None if prompt_ids is None else [item for item in prompt_ids if isinstance(item, str)]
        self.records.delete_finished(chosen)
        for prompt_id in list(self._left_behind) if chosen is None else chosen:
            self._left_behind.pop(prompt_id, None)
        if self.held is not None:
            await self.held.history.delete(chosen)

    async def way_back(self, prompt_id: object) -> WayBack | None:
        """How to put what ComfyUI says about a prompt into its client's terms; None for one that came as it is.

        Raises:
            UpstreamError: when ComfyUI has to be asked and does not answer.
        """
        record = self.records.get(prompt_id)
        if record is not None or not isinstance(prompt_id, str):
            return record.way_back if record else None
        entry = await read_history_entry(self.upstream.client, prompt_id)
        return entry.way_back if entry else None

    async def _answered_before(self, submission: Submission, original: Draft) -> Answer | None:
        """What was answered to the first submission of this prompt id, if it is still known."""
        record = self.records.get(original.prompt_id)
        if record is not None and record.answer is not None:
            return await asyncio.shield(record.answer)
        return await self.held.answered_before(submission, original) if self.held is not None else None

    def _about_to_send(self, parcel: Parcel, place: Place | None, prompt: Mapping[str, Any]) -> None:
        self._books.sent(parcel.record, prompt, self._clock())
        self._reruns.sent(parcel, place)
        if self.upstream.stats is not None and self.upstream.lists_anew(parcel.record.components.values()):
            self._tasks.spawn(self.upstream.read_sizes(self._clock()), "read the sizes of model files")

    def _show_failure(self, record: Record, frames: Iterable[Delivery]) -> None:
        self.feed.deliver(frames)
        self.ended(record, Outcome.ERROR)

    def forget(self, record: Record) -> None:
        """ComfyUI refused it, or does not have it any more."""
        self.records.drop(record.prompt_id)
        self._reruns.forget(record.prompt_id)
        self._books.withdrawn(record, self._clock())
        self._sockets.release(record)
        self.warming.gone(record)

    # -- from ComfyUI: the feed's observer -----------------------------------------------------------------------

    def on_frame(self, client_id: str, frame: Frame) -> Iterable[Delivery]:
        """See `proxy.upstream.attachment.Observer`."""
        self.pulse.heard(frame)
        return self._observer.observe(client_id, frame)

    def greeting(self, client_id: str) -> Iterable[Frame]:
        """See `proxy.upstream.attachment.Observer`. Source: ComfyUI server.py, `websocket_handler`."""
        status = {"exec_info": {"queue_remaining": self._remaining()}}
        yield build_text("status", {"status": status, "sid": client_id})
        node = self._observer.executing(client_id)
        if node is not None:
            yield build_text("executing", {"node": node})

    def on_upstream(self, up: bool) -> None:
        """See `proxy.upstream.attachment.Observer`."""
        if up:
            log.log(logging.INFO if self._seen_before else logging.DEBUG, "ComfyUI answers again")
            self._observer.came_up()
            self._arrival.begin(restarted=self._seen_before)
            self._seen_before = True
            self.warming.arrived()
        else:
            if not self.departure.begun:
                log.warning("ComfyUI at %s has gone; clients wait until it answers", self.upstream.client.base_url)
            self._arrival.lost()
            self._observer.running = None
            self._left_behind.clear()
            self.visible.lost()
            self._stop_polling()
            self.upstream.lost(self._clock())
            if self.held is not None:
                self.held.lost()
            self.warming.lost()

    def _learned(self) -> None:
        self._stop_polling()
        self._polling = self._tasks.spawn(self.upstream.watch_memory(self._clock, self._release), "read memory")
        self.warming.learned()
        self._housekeeping.arrived()
        self.learned()

    def _stop_polling(self) -> None:
        if self._polling is not None:
            self._polling.cancel()

    def _ran_foreign(self, prompt_id: str) -> None:
        self.upstream.ran_foreign(prompt_id, self._clock())

    def _release(self, release: Release) -> None:
        coming = self.warming.busy or (self.held is not None and bool(self.held.holding.sent()))
        if not coming and self.mode is not Mode.OBSERVE:
            self._tasks.spawn(self.upstream.release(release, self._clock()), "free memory")

    def _remaining(self) -> int:
        if self.held is None:
            return self.warming.traces.visible(self._observer.remaining)
        return self.held.holding.remaining

    def _clients(self) -> Iterable[str]:
        return self.feed.connected()

    def _queue_changed(self, remaining: int) -> None:
        self._watch.changed(remaining)
        self.upstream.queued(remaining, self._clock())

    def _seen(self, record: Record, kind: str, data: Mapping[str, Any]) -> None:
        self._books.seen(record, kind, data, self._clock())
        self.warming.seen(record, kind, data)
        if self.held is not None:
            self.held.seen(record, kind, data)

    def ended(self, record: Record, outcome: Outcome) -> None:
        """A prompt has ended, by its events or by ComfyUI's history, whichever was first."""
        if record.account is not None:
            return
        record.timeline.outcome = record.timeline.outcome or outcome
        self._books.close(record, outcome, self._clock())
        self.records.finish(record.prompt_id)
        self._reruns.forget(record.prompt_id)
        if self.held is None or not self.held.finished(record, outcome):
            self._sockets.release(record)
        self.warming.ended(record)
        self._housekeeping.poke()
