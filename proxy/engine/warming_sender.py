"""One warm-up prompt to ComfyUI and back: sent behind all others, followed to its end, taken back for a client."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from proxy.engine.comfy import Upstream
from proxy.engine.passing import Passing
from proxy.engine.records import Record, Records, components_of
from proxy.engine.recovery import WARMUP_KEY, take_out
from proxy.engine.sender import Parcel, Sender
from proxy.engine.submission import Draft, Place, Submission
from proxy.engine.warming_flight import Flight, refusal
from proxy.engine.warming_traces import Traces
from proxy.errors import ComfykeepError, UpstreamError
from warmup import Result, WarmResult

log = logging.getLogger(__name__)

_BEHIND = 1e14
"""Where warm-ups stand in ComfyUI's queue: behind whatever clients and counters number, before probes."""
_FAREWELL = 3.0
"""Seconds that taking back a warm-up may take when the proxy stops."""


class WarmupSender:
    """Sends warm-ups under the proxy's own client id, so that nobody gets their events."""

    def __init__(  # noqa: PLR0913 - the parts of the engine that are needed
        self,
        upstream: Upstream,
        records: Records,
        passing: Passing,
        sender: Sender,
        traces: Traces,
        *,
        own_id: str,
        clock: Callable[[], float],
        wall: Callable[[], float],
        forget: Callable[[Record], None],
    ) -> None:
        """`clock` gives monotonic and `wall` Unix seconds.

        `forget` is told of a prompt that ComfyUI refused or does not have any more.
        """
        self._upstream = upstream
        self._records = records
        self._passing = passing
        self._sender = sender
        self._traces = traces
        self._own_id = own_id
        self._clock = clock
        self._wall = wall
        self._forget = forget

    async def send(self, flight: Flight, prompt: Mapping[str, Any], name: str, priority: int) -> WarmResult | None:
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
                flight.handling,
                client_id=self._own_id,
                components=components_of(look.normalized, look.schema),
                chains=look.normalized.chains,
                answer=asyncio.get_running_loop().create_future(),
            )
            self._records.add(record)
            self._traces.sent(record.prompt_id)
            parcel = Parcel(Submission("/prompt", (), b"", "utf-8"), original, look.normalized, look.schema, record)
            await self._upstream.make_room(look.normalized.chains, self._clock())
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

    async def follow(self, flight: Flight, time_limit: float) -> WarmResult | None:
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

    async def withdraw(self, flight: Flight) -> None:
        """Whoever wanted it does not any more: delete it, or stop it."""
        client = self._upstream.client
        with suppress(UpstreamError, TimeoutError):
            async with asyncio.timeout(_FAREWELL):
                await client.post_json("/queue", {"delete": [flight.prompt_id]})
                await client.post_json("/interrupt", {"prompt_id": flight.prompt_id})

    def _drop(self, flight: Flight) -> None:
        if flight.record is not None:
            self._forget(flight.record)
