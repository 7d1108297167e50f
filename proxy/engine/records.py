"""The prompts the proxy knows: what the client sent, what ComfyUI got, what came of it.

A record is made before its prompt is sent on, because ComfyUI may send the first event before it answers the POST. The
unfinished ones are all kept; of the finished ones the newest, for `diff` and for answers that need their way back.
"""

import asyncio
import json
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from normalizer import Chain, Change, Normalized, Schema, WayBack
from normalizer.chains import model_ref
from normalizer.models import ModelRef
from proxy.core.account import Account
from proxy.core.comfy_queue import Number
from proxy.core.evidence import Part, StepClock
from proxy.core.timeline import Timeline
from proxy.upstream.attachment import Delivery
from proxy.upstream.client import Answer

FINISHED_KEPT = 1000


class Handling(StrEnum):
    """What the proxy did to a prompt, and so whose ids its events carry."""

    REWRITTEN = "rewritten"
    OBSERVED = "observed"
    BYPASSED = "bypassed"
    RECOVERED = "recovered"
    WARMUP = "warm-up"
    HOUSEKEEPING = "housekeeping"

    @property
    def hidden(self) -> bool:
        """Whether it is a prompt of the proxy's own, which no client is shown."""
        return self in (Handling.WARMUP, Handling.HOUSEKEEPING)


@dataclass(frozen=True, slots=True)
class Archive:
    """What `comfykeep diff` shows, compressed: prompts are large and rarely asked for."""

    _packed: bytes

    @classmethod
    def of(cls, client_prompt: Any, sent_prompt: Any, changes: tuple[Change, ...]) -> "Archive":
        """Pack both prompts and the changes that lead from one to the other."""
        content = {
            "client": client_prompt,
            "sent": sent_prompt,
            "changes": [
                {"rule": c.rule, "node_id": c.node_id, "before": c.before, "after": c.after, "reason": c.reason}
                for c in changes
            ],
        }
        return cls(zlib.compress(json.dumps(content).encode(), level=1))

    def content(self) -> dict[str, Any]:
        """`{"client": prompt, "sent": prompt, "changes": [{rule, node_id, before, after, reason}]}`."""
        content: dict[str, Any] = json.loads(zlib.decompress(self._packed))
        return content


@dataclass(slots=True)
class Rerun:
    """The second run of a prompt whose first ran out of memory."""

    first: Timeline
    """The course of the first run."""
    held_back: list[Delivery] = field(default_factory=list)
    """What its client was to be sent since the first run failed."""
    accepted: bool = False
    """ComfyUI has it in its queue again."""
    started: bool = False
    """From here on its client hears of it again."""


@dataclass(slots=True)
class Record:
    """One prompt, from before it is sent until it is forgotten."""

    prompt_id: str
    handling: Handling
    way_back: WayBack | None = None
    client_id: str | None = None
    """The id its events are sent to by ComfyUI; the proxy's own where the client gave none."""
    broadcast: bool = False
    """The client gave no id: events go to nobody or to all, as ComfyUI would have it."""
    components: Mapping[str, ModelRef] = field(default_factory=dict)
    """The client's own loader nodes, by stable id."""
    stable_ids: Mapping[str, str] = field(default_factory=dict)
    """For a prompt sent as it came: from the client's ids to the stable ones of `components`."""
    chains: tuple[Chain, ...] = ()
    pins: tuple[Chain, ...] = ()
    keys: Mapping[str, str] = field(default_factory=dict)
    """The nodes that were sent as shared loaders, pins among them, by stable id, with their cache keys."""
    start_kind: int | None = None
    """See `proxy.core.start_delays`; None for a prompt that was not sent by this process."""
    archive: Archive | None = None
    consumers: Mapping[str, tuple[str, frozenset[Part]]] = field(default_factory=dict)
    """The nodes that compute with models, by id as ComfyUI knows it: their class, and what they compute with."""
    timeline: Timeline = field(default_factory=Timeline)
    steps: StepClock = field(default_factory=StepClock)
    disk_bytes: int | None = None
    """What ComfyUI's process had read from disk when it started; None where nobody counts."""
    rerun: Rerun | None = None
    account: Account | None = None
    answer: "asyncio.Future[Answer] | None" = None
    """What the client was told; a second submission of the same id is told the same."""
    muted: bool = False
    """Its run failed through no fault of its own and is repeated: its client hears of the last end only."""
    number: Number | None = None
    """Under which ComfyUI has it; None where that is not known."""
    held: bool = False
    """The client's event socket is held open for this prompt."""

    @property
    def acknowledged(self) -> bool:
        """Whether ComfyUI is known to have it, or to have had it."""
        return self.answer is None or (self.answer.done() and not self.answer.cancelled())

    def succeed(self, answer: Answer) -> None:
        """ComfyUI has answered its submission."""
        if self.answer is not None and not self.answer.done():
            self.answer.set_result(answer)

    def fail(self, error: BaseException) -> None:
        """There is no answer to its submission; whoever waits for the same one is told why."""
        if self.answer is None or self.answer.done():
            return
        if isinstance(error, Exception):
            self.answer.set_exception(error)
            self.answer.exception()  # nobody may be waiting; then it is no fault that nobody looks
        else:
            self.answer.cancel()


def components_of(normalized: Normalized, schema: Schema) -> dict[str, ModelRef]:
    """The loader nodes of a normalized prompt by stable id, with what each loads."""
    components = {}
    for stable_id, node in normalized.own.items():
        node_class = schema.get(node["class_type"])
        ref = None if node_class is None else model_ref(node_class, node["inputs"])
        if ref is not None:
            components[stable_id] = ref
    return components


class Records:
    """All records, oldest first."""

    def __init__(self) -> None:
        self._open: dict[str, Record] = {}
        self._finished: OrderedDict[str, Record] = OrderedDict()

    def add(self, record: Record) -> None:
        """Take in a prompt that is about to be sent."""
        self._open[record.prompt_id] = record

    def drop(self, prompt_id: str) -> None:
        """Forget a prompt that ComfyUI refused or that was deleted before it ran."""
        self._open.pop(prompt_id, None)

    def finish(self, prompt_id: str) -> None:
        """Move a prompt to the finished ones, of which the oldest is forgotten."""
        record = self._open.pop(prompt_id, None)
        if record is not None:
            self._finished[prompt_id] = record
            if len(self._finished) > FINISHED_KEPT:
                self._finished.popitem(last=False)

    def delete_waiting(self, prompt_ids: Iterable[object] | None) -> list[Record]:
        """What is gone when a client takes these, or all (None), out of ComfyUI's queue: not one that runs."""
        chosen = list(self._open) if prompt_ids is None else [item for item in prompt_ids if isinstance(item, str)]
        waiting = [self._open[item] for item in chosen if item in self._open]
        return [record for record in waiting if record.timeline.started_at is None]

    def delete_finished(self, prompt_ids: Iterable[object] | None) -> None:
        """A client deleted these prompts, or all (None), from ComfyUI's history: they are unknown now."""
        for item in list(self._finished) if prompt_ids is None else prompt_ids:
            if isinstance(item, str):
                self._finished.pop(item, None)

    def get(self, prompt_id: object) -> Record | None:
        """The record of a prompt, if it is known."""
        if not isinstance(prompt_id, str):
            return None
        return self._open.get(prompt_id) or self._finished.get(prompt_id)

    @property
    def acknowledged(self) -> int:
        """How many unfinished prompts ComfyUI is known to have."""
        return sum(record.acknowledged for record in self._open.values())

    @property
    def open(self) -> int:
        """How many prompts are unfinished, those that are only just being sent among them."""
        return len(self._open)

    @property
    def rerunning(self) -> frozenset[str]:
        """The prompts whose first run failed, and whose second has not ended: the failure is not for clients."""
        return frozenset(prompt_id for prompt_id, record in self._open.items() if record.rerun is not None)

    @property
    def last_finished(self) -> str | None:
        """The client's prompt whose end was seen last, if it is still remembered."""
        return next((each.prompt_id for each in reversed(self._finished.values()) if not each.handling.hidden), None)

    def unfinished(self) -> Iterator[Record]:
        """The prompts whose end has not been seen, oldest first."""
        return iter(list(self._open.values()))
