"""Does at ComfyUI what the scheduler asks for, and reports what came of it.

ComfyUI never says whether a deletion hit anything, so each is checked against its queue and, for a prompt that is in
neither, its history: it may have run meanwhile. An answer that does not come is reported as unclear, never guessed.
"""

import asyncio
import json
import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from itertools import count
from typing import TypeVar

from normalizer import ModelSet
from proxy.core import events as ev
from proxy.engine.client_sockets import ClientSockets
from proxy.engine.comfy import Upstream
from proxy.engine.held import Held
from proxy.engine.passing import Passing
from proxy.engine.records import Handling, Record, Records, components_of
from proxy.engine.recovery import FIRST_PROBE, read_history_entry, read_queue, take_out
from proxy.engine.sender import Parcel, Sender, find_number
from proxy.engine.submission import Place, draft, parse
from proxy.errors import DownstreamError, UpstreamError, UpstreamUnreachable
from proxy.upstream.client import Answer

log = logging.getLogger(__name__)

_SERVER_ERROR = 500
_PROBE_NUMBERS = 1 << 50
"""Where a process may begin to count its probes: the same number twice for one id would end ComfyUI's worker, and an
earlier process may have left a probe behind."""

AGAIN = 1.0
"""Seconds until a question that ComfyUI must answer is asked again, or one whose answer may not be the last."""

_LAST_TRY = 2.0
"""Seconds that a stop waits for a probe to be taken out."""

_T = TypeVar("_T")


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
        self._probe_numbers = count(int(FIRST_PROBE) + secrets.randbelow(_PROBE_NUMBERS))
        self.connection = 0
        """Which connection to ComfyUI stands, or stood last: a question that outlives it is answered by a look."""
        self._posting = 0
        self._settled = asyncio.Event()
        self._settled.set()

    def lost(self) -> None:
        """ComfyUI does not answer any more; questions that were to be asked again are not."""
        self.connection += 1

    async def settled(self) -> None:
        """Wait until no submission is on its way: before that, what ComfyUI does not have may still come to it."""
        await self._settled.wait()

    async def probe(self, held: Held, shown_number: float, connection: int) -> ev.Event | None:
        """Submit behind everything, delete, look; None when ComfyUI is lost meanwhile."""
        event = await self._probe(held, shown_number, connection)
        return event if connection == self.connection else None

    async def _probe(self, held: Held, shown_number: float, connection: int) -> ev.Event | None:
        place = Place(float(next(self._probe_numbers)), shown_number, held.create_time)
        try:
            return await self._submit_and_delete(held, place, connection)
        except UpstreamError as error:
            log.info("%s", error)
            return ev.ProbeUnclear(held.prompt_id, _sent(error))
        except DownstreamError as error:
            held.refusal = _refusal(error)
            return ev.ProbeRefused(held.prompt_id)
        except asyncio.CancelledError:
            # The proxy stops. What is at ComfyUI only to be looked at must not stay there and run.
            with suppress(UpstreamError, TimeoutError):
                async with asyncio.timeout(_LAST_TRY):
                    await self._upstream.client.post_json("/queue", {"delete": [held.prompt_id]})
            raise

    async def _submit_and_delete(self, held: Held, place: Place, connection: int) -> ev.Event | None:
        parcel = await self._parcel(held)
        if connection != self.connection:
            return None
        answer = await self._post(self._sender.probe(parcel, place))
        if not answer.ok:
            self._records.drop(held.prompt_id)
            turned_down = await self._turned_down(held, answer)
            return ev.ProbeRefused(held.prompt_id) if turned_down else ev.ProbeUnclear(held.prompt_id)
        held.node_errors = _node_errors(answer)
        if await take_out(self._upstream.client, held.prompt_id):
            await self._sockets.hold(parcel.record, parcel.submission)
            return ev.ProbeSlipped(held.prompt_id)
        self._records.drop(held.prompt_id)
        return ev.ProbeAccepted(held.prompt_id)

    async def dispatch(self, held: Held, shown_number: float, connection: int) -> ev.Event | None:
        """Send it to run, with the pins of this moment; None when ComfyUI is lost meanwhile.

        A prompt that is sent after that would come to a ComfyUI which had been asked whether it has it.
        """
        event = await self._dispatch(held, shown_number, connection)
        return event if connection == self.connection else None

    async def _dispatch(self, held: Held, shown_number: float, connection: int) -> ev.Event | None:
        place = Place(None, shown_number, held.create_time)
        try:
            parcel = await self._parcel(held)
            await self._sockets.hold(parcel.record, parcel.submission)
            if connection != self.connection:
                return None
            await self._upstream.make_room(parcel.normalized.chains, self._clock())
            pins = self._upstream.pins_for(parcel.normalized, self._foresight(), self._clock())
            answer = await self._post(self._sender.send(parcel, pins, place))
        except UpstreamError as error:
            log.info("%s", error)
            return ev.DispatchUnclear(held.prompt_id, _sent(error))
        except DownstreamError as error:
            held.refusal = _refusal(error)
            return ev.DispatchRefused(held.prompt_id)
        if answer.ok:
            held.node_errors = _node_errors(answer)
            return ev.Dispatched(held.prompt_id)
        turned_down = await self._turned_down(held, answer)
        return ev.DispatchRefused(held.prompt_id) if turned_down else ev.DispatchUnclear(held.prompt_id)

    async def recall(self, prompt_id: str) -> ev.Event | None:
        """Take it out of ComfyUI's queue; None when ComfyUI is lost meanwhile."""
        started = await self._insist(lambda: take_out(self._upstream.client, prompt_id))
        return None if started is None else ev.RecallDone(prompt_id, started)

    async def locate(self, held: Held) -> ev.Event | None:
        """Look for it; None when ComfyUI is lost meanwhile."""
        return await self._insist(lambda: self._locate(held))

    async def _locate(self, held: Held) -> ev.Event:
        """What is missing is looked for twice.

        A ComfyUI that hung may have an unanswered submission lying unread before it, and read it after the first look.
        """
        found = await self._look_for(held)
        if found == ev.Located(held.prompt_id, ev.Where.ABSENT):
            await asyncio.sleep(AGAIN)
            found = await self._look_for(held)
        return found

    async def _look_for(self, held: Held) -> ev.Event:
        prompt_id = held.prompt_id
        queue = await read_queue(self._upstream.client)
        if any(item[1] == prompt_id for item in queue.running):
            return ev.Located(prompt_id, ev.Where.RUNNING)
        if any(item[1] == prompt_id for item in queue.pending):
            return ev.Located(prompt_id, ev.Where.PENDING)
        entry = await read_history_entry(self._upstream.client, prompt_id)
        if entry is None:
            return ev.Located(prompt_id, ev.Where.ABSENT)
        held.chronicle.remember(entry.restored)
        return ev.Finished(prompt_id, entry.outcome)

    async def _insist(self, ask: Callable[[], Awaitable[_T]]) -> _T | None:
        """Ask until there is an answer. When the connection is lost, all is asked anew when it stands again."""
        connection = self.connection
        while connection == self.connection:
            try:
                return await ask()
            except UpstreamError as error:
                log.info("%s", error)
            await asyncio.sleep(AGAIN)
        return None

    async def interrupt(self, prompt_id: str | None) -> None:
        """Stop it if it runs; None stops whatever runs."""
        try:
            await self._upstream.client.post_json("/interrupt", {} if prompt_id is None else {"prompt_id": prompt_id})
        except UpstreamError as error:
            log.info("%s", error)

    async def _post(self, submitting: Awaitable[Answer]) -> Answer:
        self._posting += 1
        self._settled.clear()
        try:
            return await submitting
        finally:
            self._posting -= 1
            if not self._posting:
                self._settled.set()

    async def _turned_down(self, held: Held, answer: Answer) -> bool:
        """Whether ComfyUI does not have it. A 500 alone does not say so: it may have been queued all the same."""
        try:
            if answer.status >= _SERVER_ERROR and await find_number(self._upstream, held.prompt_id) is not None:
                return False
        except UpstreamError as error:
            log.info("%s", error)
            return False
        held.refusal = answer
        return True

    async def _parcel(self, held: Held) -> Parcel:
        """Make a prompt ready to be sent, as its client sent it.

        Raises:
            DownstreamError: ComfyUI has changed since it was submitted, and would not survive it now.
        """
        submission = held.submission
        original = draft(parse(submission))
        look = None if original is None else await self._passing.look_at(original)
        if look is None:
            raise DownstreamError("a held prompt cannot be read any more")
        if held.record is not None:
            self._sockets.release(held.record)
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


def _sent(error: UpstreamError) -> bool:
    """Whether ComfyUI may have seen what was to be sent."""
    return not isinstance(error, UpstreamUnreachable) or error.sent


def _node_errors(answer: Answer) -> dict[str, object]:
    try:
        parsed = answer.json()
    except ValueError:
        return {}
    errors = parsed.get("node_errors") if isinstance(parsed, dict) else None
    return errors if isinstance(errors, dict) else {}


def _refusal(error: DownstreamError) -> Answer:
    """What the client would have been answered."""
    headers = [("Content-Type", "application/json; charset=utf-8")]
    return Answer(error.status, "", headers, json.dumps(error.body()).encode(), ours=True)
