"""The one writer: whatever is decided about a prompt is decided here, one event at a time.

Submissions come in from clients and frames from ComfyUI; out go rewritten prompts, restored answers, restored frames.
All of it happens on one event loop, and no decision is interrupted half-made, so there are no locks.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from normalizer import MalformedPrompt, Normalized, Schema, WayBack, normalize
from proxy.core.events import Outcome
from proxy.core.evidence import ModelsFreed
from proxy.core.mode import Mode
from proxy.engine.bookkeeping import Bookkeeping, Totals
from proxy.engine.comfy import Upstream
from proxy.engine.observer import FrameObserver
from proxy.engine.passing import Passing
from proxy.engine.records import Handling, Record, Records, components_of
from proxy.engine.recovery import read_outcome, read_queue, read_way_back, recovered
from proxy.engine.sender import Parcel, Sender
from proxy.engine.submission import Draft, Submission, draft, parse
from proxy.errors import ComfykeepError, UpstreamError
from proxy.tasks import Tasks
from proxy.upstream.attachment import Delivery
from proxy.upstream.client import Answer
from proxy.upstream.dial import Knock
from proxy.upstream.feed import OWN_PREFIX, Feed
from proxy.wire.frames import Frame, build_text

log = logging.getLogger(__name__)

SOCKET_PATIENCE = 2.0
"""Seconds a submission waits for its client's event socket; then it goes on, and its first events may be missed."""

_CREDENTIALS = frozenset({"host", "origin", "cookie", "authorization", "sec-fetch-site"})
"""Headers of a submission with which a socket is opened on the client's behalf."""


class Engine:
    """Ties one ComfyUI, its feed and the records together. `start` it inside the loop, `close` it once."""

    def __init__(
        self, upstream: Upstream, mode: Mode, clock: Callable[[], float], make_feed: Callable[["Engine"], Feed]
    ) -> None:
        """`make_feed` is called once, with this engine as the feed's observer."""
        self.upstream = upstream
        self.mode = mode
        self.records = Records()
        self._clock = clock
        self._tasks = Tasks()
        self._books = Bookkeeping(upstream)
        self._passing = Passing(upstream, self.records, self._books, clock)
        self._observer = FrameObserver(
            self.records,
            clock=clock,
            on_event=lambda record, kind, data: self._books.seen(record, kind, data, clock()),
            on_end=self._ended,
            on_status=self._reconcile_if_behind,
        )
        self.feed = make_feed(self)
        self._observer.own_id = self.feed.own_id
        self._sender = Sender(upstream, self.feed.own_id, self._about_to_send)
        self._seen_before = False
        self._reconciling = False

    @property
    def totals(self) -> Totals:
        """The sums since the start."""
        return self._books.totals

    @property
    def body_limit(self) -> int:
        """Bytes of a submission at most."""
        return self.upstream.body_limit

    async def start(self) -> None:
        """Begin to follow ComfyUI; does not wait for it."""
        await self.feed.start()

    async def close(self) -> None:
        """Stop; clients get what is buffered for them."""
        await self.feed.close()
        await self._tasks.close()

    # -- from clients --------------------------------------------------------------------------------------------

    async def submit(self, submission: Submission) -> Answer:
        """Take in one prompt; ComfyUI's answer in the client's terms.

        Raises:
            DownstreamError: for what would harm ComfyUI or what it could not read.
            UpstreamError: when ComfyUI does not answer.
        """
        if submission.encoded:
            return await self._passing.post(submission)
        if self.mode is Mode.OBSERVE or submission.bypass:
            return await self._leave_alone(submission)
        payload = parse(submission)
        original = draft(payload)
        if original is None:
            return await self._passing.post_misfit(submission, payload)
        known = self.records.get(original.prompt_id)
        if known is not None and known.answer is not None:
            return await asyncio.shield(known.answer)
        schema = await self.upstream.schema.cover(original.class_types)
        try:
            normalized = normalize(original.prompt, schema)
        except MalformedPrompt:
            return await self._passing.post_misfit(submission, payload)
        return await self._send(submission, original, normalized, schema)

    def freed(self, *, unload_models: bool, free_memory: bool) -> None:
        """A client told ComfyUI to free memory, and ComfyUI took it."""
        self.upstream.freed(ModelsFreed(unload_models, free_memory), self._clock())

    async def way_back(self, prompt_id: object) -> WayBack | None:
        """How to put what ComfyUI says about a prompt into its client's terms; None for one that came as it is.

        Raises:
            UpstreamError: when ComfyUI has to be asked and does not answer.
        """
        record = self.records.get(prompt_id)
        if record is not None or not isinstance(prompt_id, str):
            return record.way_back if record else None
        return await read_way_back(self.upstream.client, prompt_id)

    async def _leave_alone(self, submission: Submission) -> Answer:
        look = await self._passing.look_at(submission)
        answer = await self._passing.post(submission)
        if answer.ok and look is not None:
            self._passing.note(answer, look, Handling.BYPASSED if submission.bypass else Handling.OBSERVED)
        return answer

    async def _send(self, submission: Submission, original: Draft, normalized: Normalized, schema: Schema) -> Answer:
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        record = Record(
            original.prompt_id,
            Handling.REWRITTEN,
            client_id=original.client_id if original.names_client else self.feed.own_id,
            broadcast=not original.names_client,
            components=components_of(normalized, schema),
            chains=normalized.chains,
            answer=answered,
        )
        self.records.add(record)
        # A client that hangs up must not tear a submission in two: it goes through, whoever waits for the answer.
        parcel = Parcel(submission, original, normalized, schema, record)
        self._tasks.spawn(self._perform(parcel), "submit a prompt")
        return await asyncio.shield(answered)

    async def _perform(self, parcel: Parcel) -> None:
        record = parcel.record
        try:
            await self._hold(record, parcel.submission)
            answer = await self._sender.send(parcel, self.upstream.pins_for(parcel.normalized, self._clock()))
        except BaseException as error:
            record.fail(error)
            self._forget(record)
            if not isinstance(error, ComfykeepError):
                raise
        else:
            record.succeed(answer)
            if not answer.ok:
                self._forget(record)

    async def _hold(self, record: Record, submission: Submission) -> None:
        """Have the client's socket open before its prompt can start."""
        if record.client_id is None or record.client_id == self.feed.own_id:
            return
        headers = tuple((name, value) for name, value in submission.headers if name.lower() in _CREDENTIALS)
        record.held = True
        ready = self.feed.hold(record.client_id, Knock("/ws", headers))
        if not ready.done():
            await asyncio.wait([ready], timeout=SOCKET_PATIENCE)

    def _about_to_send(self, record: Record, prompt: Mapping[str, Any]) -> None:
        self._books.sent(record, prompt, self._clock())

    def _forget(self, record: Record) -> None:
        self.records.drop(record.prompt_id)
        self._books.withdrawn(record, self._clock())
        self._release(record)

    def _release(self, record: Record) -> None:
        if record.held and record.client_id is not None:
            record.held = False
            self.feed.release(record.client_id)

    # -- from ComfyUI: the feed's observer -----------------------------------------------------------------------

    def on_frame(self, client_id: str, frame: Frame) -> Iterable[Delivery]:
        """See `proxy.upstream.attachment.Observer`."""
        return self._observer.observe(client_id, frame)

    def greeting(self, client_id: str) -> Iterable[Frame]:
        """See `proxy.upstream.attachment.Observer`. Source: ComfyUI server.py, `websocket_handler`."""
        status = {"exec_info": {"queue_remaining": self._observer.remaining}}
        yield build_text("status", {"status": status, "sid": client_id})
        node = self._observer.executing(client_id)
        if node is not None:
            yield build_text("executing", {"node": node})

    def on_upstream(self, up: bool) -> None:
        """See `proxy.upstream.attachment.Observer`."""
        if up:
            self._tasks.spawn(self._arrive(restarted=self._seen_before), "read what ComfyUI is")
            self._seen_before = True
        else:
            self._observer.running = None
            self.upstream.lost(self._clock())

    async def _arrive(self, *, restarted: bool) -> None:
        try:
            for record in recovered(await read_queue(self.upstream.client), OWN_PREFIX):
                if self.records.get(record.prompt_id) is None:
                    self.records.add(record)
            if restarted:
                self.feed.upstream_restarted()
            await self._reconcile()
            await self.upstream.learn(self._clock(), fresh=restarted)
        except UpstreamError as error:
            log.info("%s", error)

    def _ended(self, record: Record, outcome: Outcome) -> None:
        self._books.close(record, outcome, self._clock())
        self.records.finish(record.prompt_id)
        self._release(record)

    def _reconcile_if_behind(self, remaining: int) -> None:
        """Fewer prompts are at ComfyUI than are open here: some ended, or were deleted, without an event."""
        if remaining < self.records.acknowledged and not self._reconciling:
            self._reconciling = True
            self._tasks.spawn(self._reconcile_quietly(), "look for prompts that ended unseen")

    async def _reconcile_quietly(self) -> None:
        try:
            await self._reconcile()
        except UpstreamError as error:
            log.debug("%s", error)
        finally:
            self._reconciling = False

    async def _reconcile(self) -> None:
        suspects = [record for record in self.records.unfinished() if record.acknowledged]
        if not suspects:
            return
        present = (await read_queue(self.upstream.client)).ids
        for record in suspects:
            if record.prompt_id in present or record.timeline.outcome is not None:
                continue
            outcome = await read_outcome(self.upstream.client, record.prompt_id)
            if outcome is None:
                self._forget(record)
            elif record.timeline.outcome is None:
                self._ended(record, outcome)
