"""Warm-ups at ComfyUI: sent while nobody else wants anything, taken back when somebody does, shown to no client.

The service in `warmup` decides what is to be warmed and when. Here is how one of its prompts gets to ComfyUI and back
without costing a client more than the run that has already begun: it is sent when no client's prompt runs or waits
anywhere, with a number behind all of theirs, and is deleted again when one comes before it has started. It runs under
the proxy's own client id, so that nobody gets its events, and leaves no entry in the history.
"""

import asyncio
import logging
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from normalizer import ModelRef, ModelSet
from proxy.core.departures import Departures
from proxy.core.events import Outcome
from proxy.core.mode import Mode
from proxy.engine.comfy import Upstream
from proxy.engine.holding import Holding
from proxy.engine.passing import Passing
from proxy.engine.records import Handling, Record, Records, components_of
from proxy.engine.recovery import WARMUP_KEY, take_out
from proxy.engine.sender import Parcel, Sender
from proxy.engine.submission import Draft, Place, Submission
from proxy.engine.warming_flight import Flight, refusal
from proxy.errors import ComfykeepError, UpstreamError
from proxy.tasks import Tasks
from warmup import Result, Surroundings, Tier, Trigger, WarmResult, WarmupService

log = logging.getLogger(__name__)

SETTLE = 0.5
"""Seconds without clients' prompts before a warm-up is sent: who works in a loop is not to wait at every turn."""
_LOOK = 0.25
"""Seconds between looks at whether clients still work, while a warm-up waits."""
_BEHIND = 1e14
"""Where warm-ups stand in ComfyUI's queue: behind whatever clients and counters number, before probes."""
_NAMED = 64
"""Warm-ups whose ids are remembered after their end."""
_FAREWELL = 3.0
"""Seconds that taking back a warm-up may take when the proxy stops."""


class Warming:
    """The warm-up service's hands at one ComfyUI (`warmup.Warmer`), and its ears in the engine."""

    def __init__(  # noqa: PLR0913 - the parts of the engine that are needed
        self,
        upstream: Upstream,
        records: Records,
        passing: Passing,
        sender: Sender,
        tasks: Tasks,
        *,
        own_id: str,
        clock: Callable[[], float],
        wall: Callable[[], float],
        mode: Callable[[], Mode],
        holding: Callable[[], Holding | None],
        remaining: Callable[[], int],
        forget: Callable[[Record], None],
    ) -> None:
        """`clock` gives monotonic and `wall` Unix seconds, `remaining` how many prompts ComfyUI's queue held last.

        `forget` is told of a prompt that ComfyUI refused or does not have any more.
        """
        self.service: WarmupService | None = None
        self._upstream = upstream
        self._records = records
        self._passing = passing
        self._sender = sender
        self._tasks = tasks
        self._own_id = own_id
        self._clock = clock
        self._wall = wall
        self._mode = mode
        self._holding = holding
        self._remaining = remaining
        self._forget = forget
        self._turn = asyncio.Lock()
        self._flight: Flight | None = None
        self._queued: set[str] = set()
        """Warm-ups that are in ComfyUI's queue, or may be."""
        self._ended: deque[str] = deque(maxlen=_NAMED)
        """Warm-ups that have ended; until its entry is deleted, ComfyUI's history names each of them."""
        self._arriving = 0
        self._last_busy = clock() - SETTLE
        self._departures = Departures()

    # -- for the service: `warmup.Warmer` ------------------------------------------------------------------------

    def surroundings(self) -> Surroundings | None:
        """See `warmup.Warmer`; None also in the mode `observe`, in which nothing is sent."""
        schema = self._upstream.schema
        if not schema.complete or self._mode() is Mode.OBSERVE:
            return None
        chains = [candidate.chain for candidate in self._upstream.chain_book.candidates()]
        return Surroundings(schema.schema, chains, {group.name: group for group in self._upstream.planner.groups})

    def tier(self, ref: ModelRef) -> Tier:
        """See `warmup.Warmer`."""
        return Tier(self._upstream.planner.residency.tier(ref).value)

    def idle_for(self) -> float | None:
        """See `warmup.Warmer`. What others submit to ComfyUI directly counts as a client's."""
        now = self._clock()
        if self._clients_work():
            self._last_busy = now
            return None
        return now - self._last_busy

    def keep(self, models: ModelSet, seconds: float) -> None:
        """See `warmup.Warmer`."""
        self._upstream.planner.keep(models, self._clock() + seconds)

    async def run(
        self,
        prompt: Mapping[str, Any],
        *,
        name: str,
        priority: int,
        time_limit: float,
        progress: Callable[[float], None],
    ) -> WarmResult:
        """See `warmup.Warmer`."""
        async with self._turn:
            while True:
                await self.quiet()
                if self.surroundings() is None:
                    return WarmResult(Result.FAILED, 0.0, "ComfyUI went away, or the mode is observe now")
                flight = Flight(str(uuid.uuid4()), len(prompt), progress)
                ended = await self._fly(flight, prompt, name, priority, time_limit)
                if ended is not None:
                    return ended
                log.info("%s: taken back, since a client has come", name)

    async def run_once(
        self, make: Callable[[], Mapping[str, Any] | None], *, name: str, time_limit: float
    ) -> WarmResult | None:
        """Run what `make` makes when nobody wants anything; None when there is nothing, or a client came first."""
        async with self._turn:
            await self.quiet()
            prompt = make() if self.surroundings() is not None else None
            if prompt is None:
                return None
            flight = Flight(str(uuid.uuid4()), len(prompt), lambda _: None)
            return await self._fly(flight, prompt, name, 0, time_limit)

    async def _fly(
        self, flight: Flight, prompt: Mapping[str, Any], name: str, priority: int, time_limit: float
    ) -> WarmResult | None:
        """Send one prompt and follow it to its end; None when it was taken back for a client's."""
        self._flight = flight
        try:
            return await self._send(flight, prompt, name, priority) or await self._follow(flight, time_limit)
        except asyncio.CancelledError:
            await self._withdraw(flight)
            raise
        finally:
            self._flight = None

    async def quiet(self) -> None:
        """Wait until no client's prompt runs or waits, and none has for a moment."""
        while self._paused() or (idle := self.idle_for()) is None or idle < SETTLE:  # noqa: ASYNC110 - many conditions
            await asyncio.sleep(_LOOK)

    def _paused(self) -> bool:
        holding = self._holding()
        return holding is not None and bool(holding.scheduler.context.pauses)

    async def _send(self, flight: Flight, prompt: Mapping[str, Any], name: str, priority: int) -> WarmResult | None:
        """Submit it; None when ComfyUI has it, or when it was not sent since a client came first."""
        extra_data = {WARMUP_KEY: name}
        payload = {
            "prompt": prompt,
            "prompt_id": flight.prompt_id,
            "client_id": self._own_id,
            "extra_data": extra_data,
        }
        original = Draft(payload, prompt, extra_data, flight.prompt_id, self._own_id, names_client=True)
        try:
            look = await self._passing.look_at(original)
            if look is None:
                return WarmResult(Result.FAILED, 0.0, "this prompt has not the form of one")
            if flight.unwanted:
                return None
            record = flight.record = Record(
                flight.prompt_id,
                Handling.WARMUP,
                client_id=self._own_id,
                components=components_of(look.normalized, look.schema),
                chains=look.normalized.chains,
                answer=asyncio.get_running_loop().create_future(),
            )
            self._records.add(record)
            self._queued.add(record.prompt_id)
            parcel = Parcel(Submission("/prompt", (), b"", "utf-8"), original, look.normalized, look.schema, record)
            pins = self._upstream.pins_for(look.normalized, (), self._clock())
            number = _BEHIND - priority
            answer = await self._sender.send(parcel, pins, Place(number, number, int(self._wall() * 1000)))
        except ComfykeepError as error:
            self._drop(flight)
            return WarmResult(Result.FAILED, 0.0, f"{error.message}. {error.details}".strip())
        record.succeed(answer)
        flight.refused = refusal(answer)
        if answer.ok:
            return None
        self._drop(flight)
        return WarmResult(Result.FAILED, 0.0, flight.refused)

    async def _follow(self, flight: Flight, time_limit: float) -> WarmResult | None:
        """Wait for its end; None when it was taken back for a client's prompt and is to be sent again later."""
        while flight.end is None:
            flight.news.clear()
            if flight.record is None or (flight.gone and flight.unwanted):
                return None
            if flight.gone:
                return WarmResult(Result.CANCELLED, 0.0, "deleted from ComfyUI's queue")
            if flight.unwanted and not flight.running and await self._taken_back(flight):
                return None
            try:
                async with asyncio.timeout(flight.seconds_left(time_limit, self._clock())):
                    await flight.news.wait()
            except TimeoutError:
                flight.interrupted = True
                with suppress(UpstreamError):
                    await self._upstream.client.post_json("/interrupt", {"prompt_id": flight.prompt_id})
        return flight.end

    async def _taken_back(self, flight: Flight) -> bool:
        """Delete it from ComfyUI's queue; False when it had started."""
        try:
            if await take_out(self._upstream.client, flight.prompt_id):
                flight.running = True
                return False
        except UpstreamError as error:
            log.info("%s", error)
            return False
        self._drop(flight)
        return True

    async def _withdraw(self, flight: Flight) -> None:
        """Whoever wanted it does not any more: delete it, or stop it."""
        client = self._upstream.client
        with suppress(UpstreamError, TimeoutError):
            async with asyncio.timeout(_FAREWELL):
                await client.post_json("/queue", {"delete": [flight.prompt_id]})
                await client.post_json("/interrupt", {"prompt_id": flight.prompt_id})

    def _drop(self, flight: Flight) -> None:
        if flight.record is not None:
            self._forget(flight.record)

    # -- what clients may not see --------------------------------------------------------------------------------

    def visible(self, remaining: int) -> int:
        """How many of the prompts in ComfyUI's queue are clients'."""
        if not self._queued:
            return remaining
        # Never less than is known to be there: ComfyUI may not have taken the warm-up in yet, or be done with it.
        return max(remaining - len(self._queued), self._client_records())

    @property
    def hidden(self) -> frozenset[str]:
        """The ids of warm-ups that an answer of ComfyUI may name."""
        return frozenset((*self._queued, *self._ended))

    # -- from the engine -----------------------------------------------------------------------------------------

    def recovered(self, record: Record) -> None:
        """A prompt of an earlier proxy was found at ComfyUI."""
        if record.handling is Handling.WARMUP:
            self._queued.add(record.prompt_id)

    @contextmanager
    def client(self) -> Iterator[None]:
        """While inside, a client submits a prompt."""
        self._arriving += 1
        if self._flight is not None:
            self._flight.unwant()
        try:
            yield
        finally:
            self._arriving -= 1
            self._last_busy = self._clock()

    def seen(self, record: Record, kind: str, data: Mapping[str, Any]) -> None:
        """An event of any prompt's run."""
        if record.handling is not Handling.WARMUP:
            return
        if self._flight is not None and self._flight.record is record:
            self._flight.see(kind, data)
        if kind == "executing" and data.get("node") is None:
            self._leave(record)  # only now has ComfyUI put it into its history (main.py, `prompt_worker`)

    def ended(self, record: Record) -> None:
        """The run of any prompt has ended, by its events or by ComfyUI's history."""
        if record.handling is Handling.WARMUP:
            if record.timeline.ended_at is None:
                self._leave(record)
        else:
            self._client_gone()
        self.look()

    def gone(self, record: Record) -> None:
        """ComfyUI has refused a prompt, or does not have it any more."""
        if record.handling is Handling.WARMUP:
            self._queued.discard(record.prompt_id)
            if self._flight is not None and self._flight.record is record:
                self._flight.is_gone()
        else:
            self._client_gone()

    def arrived(self) -> None:
        """ComfyUI answers, and is a new process as far as anybody knows."""
        if self.service is not None:
            self.service.upstream_started()

    def learned(self) -> None:
        """What ComfyUI is has been read, or the mode has changed."""
        self.look()
        if self.service is not None:
            if self._mode() is Mode.OBSERVE and self.service.schedule.entries:
                log.info("the mode is observe, so no model is warmed up")
            self.service.poke()

    def lost(self) -> None:
        """ComfyUI does not answer any more."""
        # The open ones are settled by a look into its queue when it answers again.
        self._queued &= {record.prompt_id for record in self._records.unfinished()}
        if self._flight is not None:
            outcome = self._flight.record and self._flight.record.timeline.outcome
            self._flight.finish(outcome or Outcome.ERROR, "ComfyUI died or broke off during it")

    def look(self) -> None:
        """Tell the service which components have left VRAM, or RAM as well, since the last look."""
        if self.service is None or not self.service.schedule.listening(Trigger.EVICTED) or self.surroundings() is None:
            return
        if gone := self._departures.look(self._upstream.planner.residency.components()):
            self.service.evicted(gone)

    def _leave(self, record: Record) -> None:
        """Its run is over in every respect; what is left of it is an entry in the history."""
        if record.prompt_id not in self._queued:
            return
        self._queued.discard(record.prompt_id)
        self._ended.append(record.prompt_id)
        self._tasks.spawn(self._clean(record.prompt_id), "delete a warm-up from ComfyUI's history")
        if self._flight is not None and self._flight.record is record:
            self._flight.finish(record.timeline.outcome or Outcome.ERROR, "it failed; ComfyUI's log says why")

    async def _clean(self, prompt_id: str) -> None:
        try:
            await self._upstream.client.post_json("/history", {"delete": [prompt_id]})
        except UpstreamError as error:
            log.info("%s", error)

    def _client_gone(self) -> None:
        self._last_busy = self._clock()
        if self.service is not None and not self._clients_work():
            self.service.poke()

    def _clients_work(self) -> bool:
        """Whether a client's prompt runs or waits anywhere."""
        holding = self._holding()
        return (
            self._arriving > 0
            or (holding is not None and holding.busy)
            or self._client_records() > 0
            or self._remaining() > len(self._queued)
        )

    def _client_records(self) -> int:
        return sum(record.handling is not Handling.WARMUP for record in self._records.unfinished())
