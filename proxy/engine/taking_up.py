"""Prompts out of the journal: what an earlier process had accepted and not finished, made ready to go on."""

import asyncio
import logging
from collections.abc import Callable

from proxy.core import events as ev
from proxy.core.jobs import State
from proxy.engine.held import Held, hold, read_record
from proxy.engine.passing import Passing
from proxy.engine.sender import json_answer
from proxy.errors import DownstreamError
from proxy.journal_records import Record

log = logging.getLogger(__name__)


async def read_back(record: Record, passing: Passing, own_id: str) -> Held | None:
    """A prompt as it was held before; None when it cannot be read, which is said.

    Raises:
        UpstreamError: when ComfyUI does not tell of its classes.
    """
    held = await _read(record, passing, own_id)
    if held is None:
        log.error("prompt %s in the journal cannot be read; it is left there", record.prompt_id)
        return None
    held.idempotency_key = record.idempotency_key
    held.written = asyncio.get_running_loop().create_future()
    held.written.set_result(None)
    held.answer.set_result(json_answer(record.answer))
    return held


async def _read(record: Record, passing: Passing, own_id: str) -> Held | None:
    read = read_record(record)
    if read is None:
        return None
    submission, original = read
    try:
        look = await passing.look_at(original, judged=True)
        return None if look is None else hold(submission, look, record.sequence, own_id, round(record.submitted * 1000))
    except DownstreamError as error:
        log.info("%s: %s", error.message, error.details)
        return None


def restored(record: Record, held: Held, clock: Callable[[], float], wall: Callable[[], float]) -> ev.Restored:
    """What the scheduler is told of it. `clock` gives monotonic, `wall` Unix seconds."""
    return ev.Restored(
        prompt=held.event,
        number=record.number or 0.0,
        submitted=clock() - (wall() - record.submitted),
        state=State(record.state),
        attempts=record.attempts,
        started=record.started is not None,
    )
