"""What ComfyUI's own queue and history say about prompts of ours: the memory that survives the proxy.

Every rewritten prompt carries its way back in `extra_data`, so a proxy that has just started, or that has missed events
while the connection was down, learns from `/queue` whose prompts wait there, and from `/history` how others ended.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from normalizer import WayBack
from proxy.core.events import Outcome
from proxy.engine.records import Handling, Record
from proxy.upstream.client import UpstreamClient


@dataclass(frozen=True, slots=True)
class Queue:
    """ComfyUI's queue at one moment: `[number, id, prompt, extra_data, outputs]` each."""

    running: list[Any]
    pending: list[Any]

    @property
    def ids(self) -> frozenset[str]:
        """All prompts in it."""
        return frozenset(item[1] for item in (*self.running, *self.pending))


async def read_queue(client: UpstreamClient) -> Queue:
    """Ask ComfyUI for its queue.

    Raises:
        UpstreamError: when it does not answer.
    """
    queue = await client.get_json("/queue")
    return Queue(queue["queue_running"], queue["queue_pending"])


@dataclass(frozen=True, slots=True)
class Remembered:
    """What ComfyUI's history has of a prompt: how it ended, and its entry in the client's terms."""

    outcome: Outcome
    way_back: WayBack | None
    restored: Any


async def read_history_entry(client: UpstreamClient, prompt_id: str) -> Remembered | None:
    """Ask ComfyUI's history for a prompt; None if it is not in there.

    Raises:
        UpstreamError: when ComfyUI does not answer.
    """
    history = await client.get_json(f"/history/{quote(prompt_id, safe='')}")
    entry = history.get(prompt_id)
    if entry is None:
        return None
    way_back = WayBack.from_extra_data(entry["prompt"][3])
    return Remembered(_outcome(entry), way_back, way_back.history_entry(entry) if way_back else entry)


def _outcome(entry: Any) -> Outcome:
    status = entry.get("status") or {}
    if status.get("status_str") == "success":
        return Outcome.SUCCESS
    kinds = {message[0] for message in status.get("messages", ()) if message}
    return Outcome.INTERRUPTED if "execution_interrupted" in kinds else Outcome.ERROR


def recovered(queue: Queue, own_prefix: str) -> Iterator[Record]:
    """Records for the prompts in ComfyUI's queue that went through a proxy before this process began.

    `own_prefix` is how the proxies' own client ids begin.
    """
    for item in (*queue.running, *queue.pending):
        way_back = WayBack.from_extra_data(item[3])
        if way_back is not None:
            client_id = item[3].get("client_id")
            yield Record(
                item[1],
                Handling.RECOVERED,
                way_back=way_back,
                client_id=client_id if isinstance(client_id, str) else None,
                broadcast=isinstance(client_id, str) and client_id.startswith(own_prefix),
            )
