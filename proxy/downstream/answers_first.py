"""A client has the answer to its submission before it hears of the prompt.

ComfyUI answers `POST /prompt` in the turn of its loop in which it queues the prompt (server.py, `post_prompt`), so
whatever becomes of the prompt is told later. Clients rely on it: they look an event's prompt up among those they have
answers for. Here the two come by different ways, and a prompt with nothing to do could be over before its answer has
come through. So frames about it wait, and with them what is behind them in the same socket.
"""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager

from proxy.wire.frames import Frame

_FIRST_EVENT = '"type": "execution_start"'
"""What ComfyUI says first of a prompt (execution.py, `execute_async`); its id is not known where ComfyUI chooses it."""


class Submitting:
    """One submission without an answer."""

    def __init__(self) -> None:
        self.answered = asyncio.Event()
        self._mark: str | None = None
        self._listener: str | None = None

    def named(self, prompt_id: str | None, client_id: str | None) -> None:
        """The id that its prompt will have, None if ComfyUI is to choose one, and its client's; told before it is sent.

        Without an id of the prompt, only what begins for this client can be meant.
        """
        if prompt_id is not None:
            self._mark = f'"prompt_id": {json.dumps(prompt_id)}'
        elif client_id is not None:
            self._mark, self._listener = _FIRST_EVENT, client_id

    def is_meant(self, frame: Frame, client_id: str) -> bool:
        """Whether a frame for a client speaks of its prompt, as JSON in a text or in the metadata of a preview."""
        if self._mark is None or self._listener not in (None, client_id):
            return False
        return self._mark in frame if isinstance(frame, str) else self._mark.encode() in frame


class AnswersFirst:
    """The submissions that have no answer yet, and the frames that wait for them."""

    def __init__(self) -> None:
        self._open: set[Submitting] = set()

    @contextmanager
    def submission(self) -> Iterator[Submitting]:
        """Keep frames about a prompt back until this is left: when its answer is written, or will never be."""
        submitting = Submitting()
        self._open.add(submitting)
        try:
            yield submitting
        finally:
            self._open.discard(submitting)
            submitting.answered.set()

    async def before(self, frame: Frame, client_id: str) -> None:
        """Wait for the answers that go before a frame for this client (empty where its socket names none)."""
        for submitting in [each for each in self._open if each.is_meant(frame, client_id)]:
            await submitting.answered.wait()
