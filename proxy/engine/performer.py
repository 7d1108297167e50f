"""Does at ComfyUI what the scheduler asks for, and reports what came of it.

ComfyUI never says whether a deletion hit anything, so each is checked against its queue and, for a prompt that is in
neither, its history: it may have run meanwhile. An answer that does not come is reported as unclear, never guessed.
"""

import logging
from collections.abc import Callable, Sequence
from itertools import count

from normalizer import ModelSet
from proxy.core import events as ev
from proxy.engine.client_sockets import ClientSockets
from proxy.engine.comfy import Upstream
from proxy.engine.held import Held
from proxy.engine.passing import Passing
from proxy.engine.records import Handling, Record, Records, components_of
from proxy.engine.recovery import read_history_entry, read_queue
from proxy.engine.sender import Parcel, Sender, find_number
from proxy.engine.submission import Place, draft, parse
from proxy.errors import DownstreamError, UpstreamError
from proxy.upstream.client import Answer

log = logging.getLogger(__name__)

_SERVER_ERROR = 500
_FIRST_PROBE = 1e15
"""Probes stand behind everything: above any number that a client or a counter reaches, and exact as a float."""


class Performer:
    """Asks one ComfyUI. Every method returns the event that answers the command."""

    def __init__(
        self,
        upstream: Upstream,
        records: Records,
        passing: Passing,
        sender: Sender,
        sockets: ClientSockets,
        clock: Callable[[], float],
        foresight: Callable[[], Sequence[ModelSet]],
    ) -> None:
        """`foresight` tells the components of the prompts expected next, the next one first."""
        self._upstream = upstream
        self._records = records
        self._passing = passing
        self._sender = sender
        self._sockets = sockets
        self._clock = clock
        self._foresight = foresight
        self._probe_numbers = count()

    async def probe(self, held: Held, shown_number: float) -> ev.Event:
        """Submit behind everything, delete, look."""
        place = Place(_FIRST_PROBE + next(self._probe_numbers), shown_number, held.create_time)
        try:
            parcel = await self._parcel(held)
            answer = await self._sender.probe(parcel, place)
        except UpstreamError as error:
            log.info("%s", error)
            return ev.ProbeUnclear(held.prompt_id)
        if not answer.ok:
            held.refusal = answer
            self._records.drop(held.prompt_id)
            return (
                ev.ProbeUnclear(held.prompt_id) if answer.status >= _SERVER_ERROR else ev.ProbeRefused(held.prompt_id)
            )
        held.node_errors = _node_errors(answer)
        try:
            started = await self._take_out(held.prompt_id)
        except UpstreamError as error:
            log.info("%s", error)
            return ev.ProbeUnclear(held.prompt_id)
        if started:
            return ev.ProbeSlipped(held.prompt_id)
        self._records.drop(held.prompt_id)
        return ev.ProbeAccepted(held.prompt_id)

    async def dispatch(self, held: Held, shown_number: float) -> ev.Event:
        """Send it to run, with the pins of this moment."""
        place = Place(None, shown_number, held.create_time)
        try:
            parcel = await self._parcel(held)
            await self._sockets.hold(parcel.record, parcel.submission)
            pins = self._upstream.pins_for(parcel.normalized, self._foresight(), self._clock())
            answer = await self._sender.send(parcel, pins, place)
        except UpstreamError as error:
            log.info("%s", error)
            return ev.DispatchUnclear(held.prompt_id)
        if answer.ok:
            held.node_errors = _node_errors(answer)
            return ev.Dispatched(held.prompt_id)
        turned_down = await self._turned_down(held, answer)
        return ev.DispatchRefused(held.prompt_id) if turned_down else ev.DispatchUnclear(held.prompt_id)

    async def recall(self, prompt_id: str) -> ev.Event | None:
        """Take it out of ComfyUI's queue; None when ComfyUI does not answer, which shows elsewhere."""
        try:
            return ev.RecallDone(prompt_id, started=await self._take_out(prompt_id))
        except UpstreamError as error:
            log.info("%s", error)
            return None

    async def locate(self, prompt_id: str) -> ev.Event | None:
        """Look for it; None when ComfyUI does not answer."""
        try:
            queue = await read_queue(self._upstream.client)
            if any(item[1] == prompt_id for item in queue.running):
                return ev.Located(prompt_id, ev.Where.RUNNING)
            if any(item[1] == prompt_id for item in queue.pending):
                return ev.Located(prompt_id, ev.Where.PENDING)
            entry = await read_history_entry(self._upstream.client, prompt_id)
        except UpstreamError as error:
            log.info("%s", error)
            return None
        return ev.Located(prompt_id, ev.Where.ABSENT) if entry is None else ev.Finished(prompt_id, entry.outcome)

    async def interrupt(self, prompt_id: str | None) -> None:
        """Stop it if it runs; None stops whatever runs."""
        try:
            await self._upstream.client.post_json("/interrupt", {} if prompt_id is None else {"prompt_id": prompt_id})
        except UpstreamError as error:
            log.info("%s", error)

    async def _turned_down(self, held: Held, answer: Answer) -> bool:
        """Whether ComfyUI does not have it. A 500 alone does not say so: it may have been queued all the same."""
        held.refusal = answer
        if answer.status < _SERVER_ERROR:
            return True
        try:
            return await find_number(self._upstream, held.prompt_id) is None
        except UpstreamError as error:
            log.info("%s", error)
            return False

    async def _take_out(self, prompt_id: str) -> bool:
        """Delete it and make sure; whether it had started."""
        await self._upstream.client.post_json("/queue", {"delete": [prompt_id]})
        queue = await read_queue(self._upstream.client)
        if any(item[1] == prompt_id for item in queue.running):
            return True
        return await read_history_entry(self._upstream.client, prompt_id) is not None

    async def _parcel(self, held: Held) -> Parcel:
        """Make a prompt ready to be sent, as its client sent it."""
        submission = held.submission
        original = draft(parse(submission))
        look = None if original is None else await self._passing.look_at(original)
        if look is None:
            raise DownstreamError("a held prompt cannot be read any more")
        held.record = Record(
            held.prompt_id,
            Handling.REWRITTEN,
            client_id=held.client_id,
            broadcast=held.broadcast,
            components=components_of(look.normalized, look.schema),
            chains=look.normalized.chains,
        )
        self._records.add(held.record)
        return Parcel(submission, look.original, look.normalized, look.schema, held.record)


def _node_errors(answer: Answer) -> dict[str, object]:
    parsed = answer.json()
    errors = parsed.get("node_errors") if isinstance(parsed, dict) else None
    return errors if isinstance(errors, dict) else {}
