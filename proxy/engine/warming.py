"""Warm-ups at ComfyUI: sent while nobody else wants anything, taken back when somebody does, shown to no client.

The service in `warmup` decides what is to be warmed and when. Here is how one of its prompts gets to ComfyUI and back
without costing a client more than the run that has already begun: it is sent when no client's prompt runs or waits
anywhere, with a number behind all of theirs (`warming_sender`), and is deleted again when one comes before it has
started. It leaves no entry in the history, and until that is deleted no client is shown it (`warming_traces`).
"""

import asyncio
import logging
import uuid
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from typing import Any

from normalizer import ModelRef, ModelSet
from proxy.core.departures import Departures
from proxy.core.events import Outcome
from proxy.core.mode import Mode
from proxy.core.upkeep import WARM_UP
from proxy.engine.comfy import Upstream
from proxy.engine.holding import Holding
from proxy.engine.passing import Passing
from proxy.engine.records import Handling, Record, Records
from proxy.engine.sender import Sender
from proxy.engine.warming_flight import Flight
from proxy.engine.warming_sender import WarmupSender
from proxy.engine.warming_traces import Traces
from proxy.tasks import Tasks
from warmup import Result, Surroundings, Tier, Trigger, WarmResult, WarmupService

log = logging.getLogger(__name__)

SETTLE = 0.5
"""Seconds without clients' prompts before a warm-up is sent: who works in a loop is not to wait at every turn."""
_LOOK = 0.25
"""Seconds between looks at whether clients still work, while a warm-up waits."""


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
        self.traces = Traces(upstream, tasks, self._client_records)
        self._sending = WarmupSender(
            upstream,
            records,
            passing,
            sender,
            self.traces,
            own_id=own_id,
            clock=clock,
            wall=wall,
            forget=forget,
        )
        self._upstream = upstream
        self._records = records
        self._clock = clock
        self._mode = mode
        self._holding = holding
        self._remaining = remaining
        self._turn = asyncio.Lock()
        self._flight: Flight | None = None
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
            flight = Flight(str(uuid.uuid4()), len(prompt), lambda _: None, Handling.HOUSEKEEPING)
            return await self._fly(flight, prompt, name, 0, time_limit)

    async def _fly(
        self, flight: Flight, prompt: Mapping[str, Any], name: str, priority: int, time_limit: float
    ) -> WarmResult | None:
        """Send one prompt and follow it to its end; None when it was taken back for a client's."""
        self._flight = flight
        try:
            refused = await self._sending.send(flight, prompt, name, priority)
            return refused or await self._sending.follow(flight, time_limit)
        except asyncio.CancelledError:
            await self._sending.withdraw(flight)
            raise
        finally:
            self._flight = None

    async def quiet(self) -> None:
        """Wait until no client's prompt runs or waits, and none has for a moment."""
        while self._paused() or (idle := self.idle_for()) is None or idle < SETTLE:  # noqa: ASYNC110 - many conditions
            await asyncio.sleep(_LOOK)

    def _paused(self) -> bool:
        return bool(self._pauses() - {WARM_UP})

    def _goes_first(self) -> bool:
        """The queue is stopped so that models can be warmed up."""
        return WARM_UP in self._pauses()

    def _pauses(self) -> AbstractSet[str]:
        holding = self._holding()
        return frozenset() if holding is None else holding.scheduler.context.pauses

    @property
    def busy(self) -> bool:
        """Whether a client or a warm-up has just come, and is not at ComfyUI yet."""
        return self._arriving > 0 or self._flight is not None

    # -- from the engine -----------------------------------------------------------------------------------------

    def recovered(self, record: Record) -> None:
        """A prompt of an earlier proxy was found at ComfyUI."""
        if record.handling.hidden:
            self.traces.sent(record.prompt_id)

    @contextmanager
    def client(self) -> Iterator[None]:
        """While inside, a client submits a prompt."""
        self._arriving += 1
        if self._flight is not None and not self._goes_first():
            self._flight.unwant()
        try:
            yield
        finally:
            self._arriving -= 1
            self._last_busy = self._clock()

    def seen(self, record: Record, kind: str, data: Mapping[str, Any]) -> None:
        """An event of any prompt's run."""
        if not record.handling.hidden:
            return
        if self._flight is not None and self._flight.record is record:
            self._flight.see(kind, data)
        if kind == "executing" and data.get("node") is None:
            self._leave(record)  # only now has ComfyUI put it into its history (main.py, `prompt_worker`)

    def ended(self, record: Record) -> None:
        """The run of any prompt has ended, by its events or by ComfyUI's history."""
        if record.handling.hidden:
            if record.timeline.ended_at is None:
                self._leave(record)
        else:
            self._client_gone()
        self.look()

    def gone(self, record: Record) -> None:
        """ComfyUI has refused a prompt, or does not have it any more."""
        if record.handling.hidden:
            self.traces.gone(record.prompt_id)
            if self._flight is not None and self._flight.record is record:
                self._flight.is_gone()
        else:
            self._client_gone()

    def arrived(self) -> None:
        """ComfyUI answers, and is a new process as far as anybody knows."""
        if self.service is not None:
            self.service.upstream_started()

    def warmed(self) -> bool:
        """Whether the entries for a ComfyUI that has come up have been tried, or cannot be."""
        return self.service is None or self._mode() is Mode.OBSERVE or self.service.tried()

    def learned(self) -> None:
        """What ComfyUI is has been read, or the mode has changed."""
        self.look()
        if self.service is not None:
            if self._mode() is Mode.OBSERVE and self.service.schedule.entries:
                log.info("the mode is observe, so no model is warmed up")
            self.service.poke()

    def lost(self) -> None:
        """ComfyUI does not answer any more."""
        self.traces.lost({record.prompt_id for record in self._records.unfinished()})
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
        if self.traces.left(record.prompt_id) and self._flight is not None and self._flight.record is record:
            self._flight.finish(record.timeline.outcome or Outcome.ERROR, "it failed; ComfyUI's log says why")

    def _client_gone(self) -> None:
        self._last_busy = self._clock()
        if self.service is not None and not self._clients_work():
            self.service.poke()

    def _clients_work(self) -> bool:
        """Whether a client's prompt runs or waits anywhere."""
        holding = self._holding()
        return (
            self._arriving > 0
            or (holding is not None and (bool(holding.sent()) if self._goes_first() else holding.busy))
            or self._client_records() > 0
            or self._remaining() > self.traces.queued
        )

    def _client_records(self) -> int:
        return sum(not record.handling.hidden for record in self._records.unfinished())
