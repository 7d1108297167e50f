"""What ComfyUI's own queue and history say about prompts of ours: the memory that survives the proxy.

Every rewritten prompt carries its way back in `extra_data`, so a proxy that has just started, or that has missed events
while the connection was down, learns from `/queue` whose prompts wait there, and from `/history` how others ended.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from normalizer import WayBack
from proxy.core.events import Outcome
from proxy.engine.records import Handling, Record
from proxy.errors import UpstreamError
from proxy.upstream.client import UpstreamClient

FIRST_PROBE = 1e15
"""The numbers from here on are for prompts that ComfyUI is to validate and not to run: above any number that a client
or a counter reaches, and exact as floats."""

RECENT = 64
"""So many of the newest history entries are looked at when ComfyUI answers."""

WARMUP_KEY = "comfykeep_warmup"
"""The key in `extra_data` by which warm-ups are known, also to a proxy that was started after they were sent."""


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
    try:
        return Queue(_items(queue["queue_running"]), _items(queue["queue_pending"]))
    except (LookupError, TypeError, ValueError) as error:
        raise _strange(client, "/queue") from error


def _items(listed: Any) -> list[Any]:
    for _number, _prompt_id, _prompt, _extra_data, *_rest in listed:
        pass
    return list(listed)


def parked(queue: Queue) -> list[str]:
    """The prompts in it that a proxy submitted only to have them validated."""
    return [
        item[1]
        for item in queue.pending
        if item[0] >= FIRST_PROBE
        and (way_back := WayBack.from_extra_data(item[3])) is not None
        and way_back.number is not None
    ]


async def take_out(client: UpstreamClient, prompt_id: str) -> bool:
    """Delete a prompt from ComfyUI's queue and make sure; whether it had started.

    Raises:
        UpstreamError: when ComfyUI does not answer.
    """
    await client.post_json("/queue", {"delete": [prompt_id]})
    queue = await read_queue(client)
    if any(item[1] == prompt_id for item in queue.running):
        return True
    return await read_history_entry(client, prompt_id) is not None


def left_behind(queue: Queue, recent: Iterable[Any]) -> dict[str, float]:
    """The prompts that a proxy sent, in ComfyUI's queue or among `recent` ones of its history, with clients' numbers.

    Some were sent by a process that ended before it could tell the client that they were taken. The client will submit
    them again, and they need not run again.
    """
    found = {}
    for number, prompt_id, _, extra_data, *_ in (*recent, *queue.running, *queue.pending):
        way_back = WayBack.from_extra_data(extra_data)
        if way_back is not None and WARMUP_KEY not in extra_data and number < FIRST_PROBE:
            found[prompt_id] = number if way_back.number is None else way_back.number
    return found


async def read_recent(client: UpstreamClient) -> list[Any]:
    """The prompts `[number, id, prompt, extra_data, outputs]` that ended last.

    Raises:
        UpstreamError: when ComfyUI does not answer.
    """
    path = f"/history?max_items={RECENT}"
    history = await client.get_json(path)
    try:
        return _items([entry["prompt"] for entry in history.values()])
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise _strange(client, path) from error


@dataclass(frozen=True, slots=True)
class Remembered:
    """What ComfyUI's history has of a prompt: how it ended, and its entry in the client's terms (`restored`)."""

    outcome: Outcome
    number: float
    """Its number as ComfyUI has it."""
    way_back: WayBack | None
    restored: Any


async def read_history_entry(client: UpstreamClient, prompt_id: str) -> Remembered | None:
    """Ask ComfyUI's history for a prompt; None if it is not in there.

    Raises:
        UpstreamError: when ComfyUI does not answer.
    """
    path = f"/history/{quote(prompt_id, safe='', errors='replace')}"
    history = await client.get_json(path)
    try:
        entry = history.get(prompt_id)
        if entry is None:
            return None
        number, _, _, extra_data, *_ = entry["prompt"]
        way_back = WayBack.from_extra_data(extra_data)
        restored = way_back.history_entry(entry) if way_back else entry
        return Remembered(_outcome(entry), number, way_back, restored)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise _strange(client, path) from error


def _strange(client: UpstreamClient, path: str) -> UpstreamError:
    return UpstreamError(client.base_url + path, "the answer is not ComfyUI's", "Is this address a ComfyUI?")


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
            client_id, is_warmup = item[3].get("client_id"), WARMUP_KEY in item[3]
            yield Record(
                item[1],
                Handling.WARMUP if is_warmup else Handling.RECOVERED,
                way_back=way_back,
                client_id=client_id if isinstance(client_id, str) else None,
                broadcast=isinstance(client_id, str) and client_id.startswith(own_prefix) and not is_warmup,
                number=item[0],
            )
