"""ComfyUI's own queue as far as it is seen from here: what came through here, and what did not.

Of our own prompts the records tell. Those of others, and of an earlier proxy, are read when ComfyUI's queue is looked
into, which happens whenever it is longer than the records explain (`watch`). Each is understood once, and of many that
wait only the first.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from normalizer import ModelSet, WayBack
from proxy.core.comfy_queue import Number, Waiting, behind, in_order
from proxy.engine.passing import Passing
from proxy.engine.records import Handling, Record, Records, components_of
from proxy.engine.recovery import WARMUP_KEY, Queue
from proxy.engine.submission import draft
from proxy.errors import DownstreamError
from proxy.upstream.client import Answer

_READ = 64
"""Prompts of others that are understood: more than the pin planner can make use of."""


class Visible:
    """What runs and waits at one ComfyUI."""

    def __init__(self, records: Records, passing: Passing) -> None:
        self._records = records
        self._passing = passing
        self._waiting: dict[str, Number] = {}
        self._running: frozenset[str] = frozenset()
        self._models: dict[str, ModelSet] = {}
        """What prompts need of which the records do not tell it."""
        self._counted = 0
        self._given = False
        """Some prompts have numbers that ComfyUI has not counted."""

    def answered(self, record: Record, answer: Answer) -> None:
        """ComfyUI has taken a prompt of ours, or refused it."""
        number = _number(answer)
        if number is not None:
            record.number = number
            self._count(number)

    def _count(self, number: Number) -> None:
        """A prompt has this number."""
        if isinstance(number, int):
            self._counted = max(self._counted, abs(number) + 1)
        else:
            self._given = True

    def lost(self) -> None:
        """ComfyUI does not answer any more, and its queue is lost."""
        self._waiting, self._running, self._models = {}, frozenset(), {}
        self._counted, self._given = 0, False

    @property
    def strange(self) -> bool:
        """Whether prompts of others were there at the last look."""
        return any(map(self._is_strange, (*self._waiting, *self._running)))

    async def look(self, queue: Queue) -> None:
        """ComfyUI's queue has been read."""
        pending = sorted(queue.pending, key=lambda item: (item[0], item[1]))
        unknown = []
        for item in (*queue.running, *pending):
            self._count(item[0])
            record = self._records.get(item[1])
            if record is not None:
                record.number = item[0]
            if record is None or record.handling is Handling.RECOVERED:
                unknown.append(item)
        known = self._models
        self._models = {
            item[1]: known[item[1]] if item[1] in known else await self._understood(item) for item in unknown[:_READ]
        }
        self._waiting = {item[1]: item[0] for item in pending if WARMUP_KEY not in item[3]}
        self._running = frozenset(item[1] for item in queue.running if WARMUP_KEY not in item[3])

    def running(self) -> list[Waiting]:
        """What runs, ours first."""
        ours = [self._of(record) for record in self._records.unfinished() if self._runs(record)]
        return [
            *ours,
            *(self._stranger(prompt_id, None) for prompt_id in sorted(self._running) if self._is_strange(prompt_id)),
        ]

    def waiting(self) -> list[Waiting]:
        """What waits, in ComfyUI's order, without the proxy's own prompts."""
        others = (
            self._stranger(prompt_id, number)
            for prompt_id, number in self._waiting.items()
            if self._is_strange(prompt_id)
        )
        return in_order((*self._ours(), *others))

    def behind(self, payload: Mapping[str, Any]) -> list[Waiting]:
        """The first of what will run after a prompt that is submitted now, the next one first."""
        number, front = payload.get("number"), bool(payload.get("front"))
        if number is None and not front and not self._given:
            return []  # as nearly always, and there may be ten thousand
        return behind(self.waiting(), number, front=front, counted=self._counted)[:_READ]

    def _ours(self) -> Iterator[Waiting]:
        for record in self._records.unfinished():
            if record.acknowledged and not record.handling.hidden and not self._runs(record):
                yield self._of(record)

    def _runs(self, record: Record) -> bool:
        return record.timeline.started_at is not None or record.prompt_id in self._running

    def _is_strange(self, prompt_id: str) -> bool:
        """Whether this is a stranger's."""
        return self._records.get(prompt_id) is None

    def _of(self, record: Record) -> Waiting:
        models = frozenset(record.components.values()) or self._models.get(record.prompt_id, frozenset())
        return Waiting(record.prompt_id, record.number, models)

    def _stranger(self, prompt_id: str, number: Number | None) -> Waiting:
        return Waiting(prompt_id, number, self._models.get(prompt_id, frozenset()), ours=False)

    async def _understood(self, item: Any) -> ModelSet:
        way_back = WayBack.from_extra_data(item[3])
        original = draft({"prompt": way_back.prompt(item[2]) if way_back else item[2]})
        try:
            look = None if original is None else await self._passing.look_at(original, judged=True)
        except DownstreamError:
            return frozenset()
        return frozenset() if look is None else frozenset(components_of(look.normalized, look.schema).values())


def _number(answer: Answer) -> Number | None:
    """The number that ComfyUI has given a prompt; None where it has refused it or does not say."""
    try:
        number = answer.json()["number"] if answer.ok else None
    except (ValueError, KeyError, TypeError):
        return None
    return number if isinstance(number, int | float) else None
