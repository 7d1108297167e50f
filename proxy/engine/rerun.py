"""A prompt that ran out of memory while it carried pins is run once more, without them; its client sees one run.

Pins are there for others. If a prompt dies of them, that is the proxy's fault and not the client's, so the error is
held back and the prompt goes to ComfyUI again, in front of all others. Only if that cannot be done does the client get
to see the error. Not run again is a prompt of which a paid remote node had started, and one without pins of others:
there the memory was its own to fill.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from itertools import count
from typing import Any

from proxy.core.evidence import StepClock
from proxy.core.timeline import Timeline
from proxy.engine.records import Handling, Record, Rerun
from proxy.engine.sender import Parcel, Sender
from proxy.engine.submission import Place
from proxy.errors import ComfykeepError
from proxy.upstream.attachment import Delivery

log = logging.getLogger(__name__)

_IN_FRONT = -1e14
"""Where reruns stand in ComfyUI's queue: before whatever clients and counters number."""


class Reruns:
    """Decides which prompts run again, and sees to it."""

    def __init__(
        self,
        sender: Sender,
        *,
        pinned_bytes: Callable[[str], int],
        ran_out: Callable[[Record], None],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        give_up: Callable[[Record, Iterable[Delivery]], None],
        wall: Callable[[], float],
    ) -> None:
        """`wall` gives Unix seconds.

        `pinned_bytes` tells what the pins of a prompt add to its own models, `ran_out` is told that a run ended so.
        `give_up` is told of a prompt that could not be sent again, with the frames that were held back.
        """
        self._sender = sender
        self._pinned_bytes = pinned_bytes
        self._ran_out = ran_out
        self._spawn = spawn
        self._give_up = give_up
        self._wall = wall
        self._sent: dict[str, tuple[Parcel, Place | None]] = {}
        self._numbers = count()

    def sent(self, parcel: Parcel, place: Place | None) -> None:
        """A prompt is about to be sent."""
        record = parcel.record
        if record.handling is Handling.REWRITTEN and record.pins:
            self._sent[record.prompt_id] = parcel, place

    def forget(self, prompt_id: str) -> None:
        """It has ended for good, or is not at ComfyUI any more."""
        self._sent.pop(prompt_id, None)

    def take(self, record: Record) -> bool:
        """A run has ended as its timeline says; whether it is run again, so that this is not the end."""
        sent = self._sent.pop(record.prompt_id, None)
        if sent is None or record.rerun is not None or record.timeline.shortage is None:
            return False
        parcel, place = sent
        if self._pinned_bytes(record.prompt_id) == 0 or _paid_node_started(parcel):
            return False
        wanted = record.timeline.shortage
        log.warning("prompt %s ran out of %s with pins; it is run again without them", record.prompt_id, wanted)
        self._ran_out(record)
        record.rerun = Rerun(record.timeline)
        record.timeline, record.steps = Timeline(), StepClock()
        self._spawn(self._run(parcel, place, record.rerun))
        return True

    async def _run(self, parcel: Parcel, place: Place | None, rerun: Rerun) -> None:
        record = parcel.record
        try:
            answer = await self._sender.send(parcel, (), await self._in_front(record, place))
            rerun.accepted = answer.ok
        except ComfykeepError as error:
            log.warning("prompt %s cannot be run again: %s", record.prompt_id, error)
        if not rerun.accepted and record.timeline.outcome is None:
            record.timeline, rerun.started = rerun.first, True
            self._give_up(record, rerun.held_back)

    async def _in_front(self, record: Record, place: Place | None) -> Place:
        """Before all others, and shown as it was before."""
        number = _IN_FRONT + next(self._numbers)
        if place is not None:
            return replace(place, number=number)
        shown = number
        if record.answer is not None:
            told = (await asyncio.shield(record.answer)).json()
            shown = told["number"]
        return Place(number, shown, int(self._wall() * 1000))


def _paid_node_started(parcel: Parcel) -> bool:
    timeline = parcel.record.timeline
    started = {*timeline.node_seconds, timeline.current_node}
    for node_id, node in parcel.normalized.prompt.items():
        node_class = parcel.schema.get(node["class_type"])
        # What a node expands into runs under ids that begin with its own.
        ran = any(each == node_id or str(each).startswith((f"{node_id}.", f"{node_id}:")) for each in started)
        if ran and node_class is not None and node_class.api_node:
            return True
    return False
