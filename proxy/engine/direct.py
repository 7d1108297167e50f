"""Prompts that are not held: rewritten and sent at once, or passed on as they came.

Most of what may go wrong here is a submission that comes twice, or whose client has left: it must reach ComfyUI once,
and whoever still waits gets the answer.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from normalizer import ModelSet
from proxy.engine.client_sockets import ClientSockets
from proxy.engine.comfy import Upstream
from proxy.engine.departure import Departure
from proxy.engine.passing import SERVER_ERROR, Look, Passing
from proxy.engine.records import Handling, Record, Records, components_of
from proxy.engine.sender import Parcel, Sender, taken
from proxy.engine.submission import Named, Submission, refuse_unreadable
from proxy.engine.visible import Visible
from proxy.errors import ComfykeepError
from proxy.tasks import Tasks
from proxy.upstream.client import Answer


class Direct:
    """Sends submissions straight on. To be used by the engine alone."""

    def __init__(  # noqa: PLR0913 - the parts of the engine that are needed
        self,
        upstream: Upstream,
        records: Records,
        passing: Passing,
        sender: Sender,
        sockets: ClientSockets,
        tasks: Tasks,
        *,
        own_id: str,
        departure: Departure,
        left_behind: Mapping[str, float],
        forget: Callable[[Record], None],
        visible: Visible,
        held_foresight: Callable[[], Sequence[ModelSet]],
        clock: Callable[[], float],
    ) -> None:
        """`left_behind` has the prompts that an earlier process sent, with their numbers.

        `held_foresight` tells what the held queue needs next, if something waits in one since the mode was another.
        """
        self._upstream = upstream
        self._records = records
        self._passing = passing
        self._sender = sender
        self._sockets = sockets
        self._tasks = tasks
        self._own_id = own_id
        self._departure = departure
        self._left_behind = left_behind
        self._forget = forget
        self._visible = visible
        self._held_foresight = held_foresight
        self._clock = clock

    async def leave_alone(self, submission: Submission, named: Named) -> Answer:
        """Pass a submission on as it came, with an account of what pins would have saved.

        `named` is told the prompt's id where the client gives one.

        Raises:
            UpstreamError: when ComfyUI does not answer.
        """
        look = await self._passing.look_at_raw(submission)
        if look is not None:
            named(look.original.payload.get("prompt_id"), look.original.client_id)
        answer = await self._passing.post(submission)
        if answer.ok and look is not None:
            self._passing.note(answer, look, Handling.BYPASSED if submission.bypass else Handling.OBSERVED)
        return answer

    async def send(self, submission: Submission, look: Look) -> Answer:
        """Send a prompt rewritten and with pins; the answer in the client's terms.

        Raises:
            UpstreamError: when ComfyUI does not answer.
        """
        original = look.original
        first = self._records.get(original.prompt_id)
        if first is not None and first.answer is not None:
            return await asyncio.shield(first.answer)  # it came a second time while this one was looked at
        if (number := self._left_behind.get(original.prompt_id)) is not None:
            return taken(original.prompt_id, number)
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        record = Record(
            original.prompt_id,
            Handling.REWRITTEN,
            client_id=original.client_id if original.names_client else self._own_id,
            broadcast=not original.names_client,
            components=components_of(look.normalized, look.schema),
            chains=look.normalized.chains,
            answer=answered,
        )
        self._records.add(record)
        # A client that hangs up must not tear a submission in two: it goes through, whoever waits for the answer.
        parcel = Parcel(submission, original, look.normalized, look.schema, record)
        self._tasks.spawn(self._departure.accompany(self._perform(parcel)), "submit a prompt")
        return await asyncio.shield(answered)

    async def _perform(self, parcel: Parcel) -> None:
        record = parcel.record
        try:
            await self._sockets.hold(record, parcel.submission)
            await self._upstream.make_room(parcel.normalized.chains, self._clock())
            behind = self._visible.behind(parcel.original.payload)
            foresight = (*(item.models for item in behind), *self._held_foresight())
            followed_by = {item.prompt_id for item in behind}
            pins = self._upstream.pins_for(parcel.normalized, foresight, self._clock(), followed_by)
            answer = await self._sender.send(parcel, pins)
            if answer.status == SERVER_ERROR:
                refuse_unreadable(parcel.original.payload)
        except BaseException as error:
            record.fail(error)
            self._forget(record)
            if not isinstance(error, ComfykeepError):
                raise
        else:
            record.succeed(answer)
            self._visible.answered(record, answer)
            if not answer.ok:
                self._forget(record)
