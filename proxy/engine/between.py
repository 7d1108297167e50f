"""A prompt that computes nothing, so that ComfyUI comes to the point between two prompts at which it frees memory.

`POST /free` only leaves ComfyUI's worker a request. The worker looks for requests each time a prompt has ended, then
collects garbage, then waits for the next prompt. A request that comes while it collects wakes nobody: it stays until
another prompt has run, and that prompt finds all the memory taken. So a request whose effect is counted on is followed
by a prompt of the proxy's own, behind which it is carried out for certain. Clients are shown nothing of it.

Source: ComfyUI main.py, `prompt_worker`; execution.py, `PromptQueue.get` and `set_flag`.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable
from itertools import count

from proxy.engine.comfy import Upstream
from proxy.engine.passing import Passing
from proxy.engine.records import Handling, Record, Records
from proxy.engine.recovery import WARMUP_KEY
from proxy.engine.sender import Parcel, Sender
from proxy.engine.submission import Draft, Place, Submission
from proxy.engine.warming_traces import Traces
from proxy.errors import ComfykeepError

log = logging.getLogger(__name__)

_FIRST = -2e14
"""Where it stands in ComfyUI's queue: before clients' prompts and before those that are run again."""
_CLASS = "PreviewAny"


class Between:
    """Sends such prompts under the proxy's own client id."""

    def __init__(
        self,
        upstream: Upstream,
        records: Records,
        passing: Passing,
        sender: Sender,
        traces: Traces,
        *,
        own_id: str,
        forget: Callable[[Record], None],
    ) -> None:
        """`forget` is told of one that ComfyUI refused or did not get."""
        self._upstream = upstream
        self._records = records
        self._passing = passing
        self._sender = sender
        self._traces = traces
        self._own_id = own_id
        self._forget = forget
        self._numbers = count()

    async def come(self, now: float) -> None:
        """Send one, with pins of what is to stay in RAM. Where ComfyUI does not take it, that is only logged."""
        prompt_id = str(uuid.uuid4())
        prompt = {"1": {"class_type": _CLASS, "inputs": {"source": prompt_id}}}
        extra_data = {WARMUP_KEY: "free memory"}
        payload = {"prompt": prompt, "prompt_id": prompt_id, "client_id": self._own_id, "extra_data": extra_data}
        original = Draft(payload, prompt, extra_data, prompt_id, self._own_id, names_client=True)
        record = Record(
            prompt_id,
            Handling.HOUSEKEEPING,
            client_id=self._own_id,
            answer=asyncio.get_running_loop().create_future(),
        )
        try:
            look = await self._passing.look_at(original)
            if look is None or _CLASS not in look.schema:
                return
            self._records.add(record)
            self._traces.sent(prompt_id)
            parcel = Parcel(Submission("/prompt", (), b"", "utf-8"), original, look.normalized, look.schema, record)
            pins = self._upstream.pins_for(look.normalized, (), now)
            number = _FIRST + next(self._numbers)
            answer = await self._sender.send(parcel, pins, Place(number, number, 0))
        except ComfykeepError as error:
            log.info("memory may be freed later than it should be: %s", error)
            self._forget(record)
            return
        record.succeed(answer)
        if not answer.ok:
            self._forget(record)
