"""What of warm-ups ComfyUI's answers may show, so that clients do not see it; and how that comes to an end."""

import logging
from collections import deque
from collections.abc import Callable, Collection

from proxy.engine.comfy import Upstream
from proxy.errors import UpstreamError
from proxy.tasks import Tasks

log = logging.getLogger(__name__)

_NAMED = 64
"""Warm-ups whose ids are remembered after their end."""


class Traces:
    """The ids of warm-ups that are in ComfyUI's queue, or may be, and of those that its history may still name."""

    def __init__(self, upstream: Upstream, tasks: Tasks, client_records: Callable[[], int]) -> None:
        """`client_records` counts the unfinished prompts of clients that are known."""
        self._upstream = upstream
        self._tasks = tasks
        self._client_records = client_records
        self._queued: set[str] = set()
        self._ended: deque[str] = deque(maxlen=_NAMED)

    @property
    def queued(self) -> int:
        """How many are in ComfyUI's queue, or may be."""
        return len(self._queued)

    @property
    def hidden(self) -> frozenset[str]:
        """The ids that an answer of ComfyUI may name."""
        return frozenset((*self._queued, *self._ended))

    def visible(self, remaining: int) -> int:
        """How many of the `remaining` prompts in ComfyUI's queue are clients'."""
        if not self._queued:
            return remaining
        # Never less than is known to be there: ComfyUI may not have taken the warm-up in yet, or be done with it.
        return max(remaining - len(self._queued), self._client_records())

    def sent(self, prompt_id: str) -> None:
        """It goes to ComfyUI, or was found there."""
        self._queued.add(prompt_id)

    def gone(self, prompt_id: str) -> None:
        """ComfyUI has not taken it, or does not have it any more."""
        self._queued.discard(prompt_id)

    def lost(self, unfinished: Collection[str]) -> None:
        """ComfyUI does not answer any more; the unfinished are settled by a look into its queue when it does."""
        self._queued.intersection_update(unfinished)

    def left(self, prompt_id: str) -> bool:
        """Its run is over in every respect, and its entry in the history is deleted. Whether that is news."""
        if prompt_id not in self._queued:
            return False
        self._queued.discard(prompt_id)
        self._ended.append(prompt_id)
        self._tasks.spawn(self._clean(prompt_id), "delete a warm-up from ComfyUI's history")
        return True

    async def _clean(self, prompt_id: str) -> None:
        try:
            await self._upstream.client.post_json("/history", {"delete": [prompt_id]})
        except UpstreamError as error:
            log.info("%s", error)
