"""Prompts out of the journal: what an earlier process had accepted and not finished, made ready to go on."""

import asyncio
import json
import logging
from collections.abc import Callable

from proxy.core import events as ev
from proxy.core.commands import Code, Reason
from proxy.core.jobs import State
from proxy.engine.endings import Ending
from proxy.engine.held import Held, hold, read_record
from proxy.engine.passing import Passing
from proxy.engine.sender import json_answer
from proxy.errors import DownstreamError
from proxy.journal_records import Record, Update

log = logging.getLogger(__name__)


async def read_back(record: Record, passing: Passing, own_id: str) -> Held | None:
    """A prompt as it was held before; None when it cannot be read, which is said.

    Raises:
        UpstreamError: when ComfyUI does not tell of its classes.
    """
    held = await _read(record, passing, own_id)
    if held is None:
        log.error("prompt %s in the journal cannot be read, and is not run; its data stay there", record.prompt_id)
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


def unreadable(at: int) -> Ending:
    """The end of a prompt that cannot be read; `at` is in milliseconds since the epoch."""
    text = "comfykeep cannot read this prompt in its journal any more; submit it again"
    return Ending(State.FAILED, Reason(Code.UNREADABLE, text), None, at)


def given_up(record: Record, ending: Ending) -> Update:
    """What is written of that end; the history has nothing of the prompt but its id."""
    entry = ending.history_entry([record.number or 0, record.prompt_id, {}, {}, []])
    return Update(
        prompt_id=record.prompt_id,
        state=ending.state,
        finished=ending.at / 1000,
        outcome=ending.reason.code,
        history=json.dumps(entry).encode(),
    )


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
