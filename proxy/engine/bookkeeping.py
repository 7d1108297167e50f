"""What is written down about each prompt: for the next pins, for the totals, and one line for people at its end."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from proxy.core.account import Account
from proxy.core.events import Outcome
from proxy.core.evidence import (
    Ending,
    NodesCached,
    PromptEnded,
    PromptRecalled,
    PromptSent,
    PromptStarted,
    Use,
    consumers,
)
from proxy.core.judge import handed_over
from proxy.core.shortage import Shortage
from proxy.core.start_delays import Start, kind_of
from proxy.core.timeline import Timeline
from proxy.engine.comfy import Upstream
from proxy.engine.records import Handling, Record

log = logging.getLogger("comfykeep")


@dataclass(slots=True)
class Totals:
    """The sums since the start."""

    prompts: int = 0
    loaded: int = 0
    kept: int = 0
    load_seconds: float = 0.0
    saved_seconds: float = 0.0
    avoidable_seconds: float = 0.0

    def add(self, account: Account) -> None:
        """Take in one prompt."""
        self.prompts += 1
        self.loaded += len(account.loaded)
        self.kept += len(account.kept)
        self.load_seconds += sum(item.seconds or 0.0 for item in account.loaded)
        self.saved_seconds += account.saved_seconds
        self.avoidable_seconds += account.avoidable_seconds


class Bookkeeping:
    """Follows each prompt from being sent to its end."""

    def __init__(self, upstream: Upstream) -> None:
        self.totals = Totals()
        self._upstream = upstream

    def sent(self, record: Record, prompt: Mapping[str, Any], now: float) -> None:
        """A prompt is about to be sent, with the pins of `record`; `prompt` is as ComfyUI will get it."""
        record.start_kind = kind_of(prompt, frozenset(record.way_back.pins if record.way_back else ()))
        computing = {node_id: self._without_onlookers(node) for node_id, node in prompt.items()}
        record.consumers = {
            node_id: (str(prompt[node_id]["class_type"]), parts)
            for node_id, parts in consumers(computing, record.chains, record.components, self._outputs(record)).items()
        }
        keys = {node_id: key for node_id, key in record.keys.items() if node_id in record.components}
        event = PromptSent(record.prompt_id, record.chains, record.pins, record.components, prompt, keys)
        self._upstream.planner.handle(event, now)
        # At once, not when it has run: what is sent behind it must carry its models.
        self._upstream.chain_book.used(record.chains, now)

    def _outputs(self, record: Record) -> dict[str, tuple[str, ...]]:
        schema = self._upstream.schema.schema
        names = {str(node["class_type"]) for chain in record.chains for node in chain.nodes.values()}
        return {name: node_class.outputs for name in names if (node_class := schema.get(name)) is not None}

    def _without_onlookers(self, node: Any) -> Any:
        """A node without the inputs that take anything whatever: a preview of a model does not compute with it."""
        if not isinstance(node, Mapping) or not isinstance(node.get("inputs"), Mapping):
            return node
        node_class = self._upstream.schema.schema.get(node.get("class_type"))
        shown = {name for name, spec in node_class.inputs.items() if spec.type == "*"} if node_class else None
        if not shown:
            return node
        return {**node, "inputs": {name: value for name, value in node["inputs"].items() if name not in shown}}

    def withdrawn(self, record: Record, now: float) -> None:
        """It was refused, or taken out of ComfyUI's queue before it ran."""
        self._upstream.planner.handle(PromptRecalled(record.prompt_id), now)

    def seen(self, record: Record, kind: str, data: Mapping[str, Any], now: float) -> None:
        """An event of its run came, and its timeline has taken it in."""
        record.steps.handle(kind, data, now)
        if kind == "execution_start":
            record.disk_bytes = self._upstream.memory.disk_bytes()
            self._upstream.planner.handle(PromptStarted(record.prompt_id), now)
        elif kind == "execution_cached":
            self._upstream.planner.handle(NodesCached(record.prompt_id, _in_stable_ids(record).cached), now)
            self._began(record)

    def _began(self, record: Record) -> None:
        """ComfyUI has asked every node whether it changed."""
        seconds = record.timeline.start_seconds
        if record.start_kind is None or seconds is None:
            return
        slow = self._upstream.start_delays.saw(Start(record.start_kind, record.pins, seconds))
        if slow is not None:
            log.warning(
                "carrying %s makes every prompt start %.2f s later, because of its IS_CHANGED; from now on it is left"
                " out",
                ", ".join(sorted(ref.label for ref in slow.models)) or "a chain without files",
                slow.seconds,
            )

    def ran_out(self, record: Record, now: float) -> None:
        """A run of it ended for want of memory, and there will be another."""
        timeline = _in_stable_ids(record)
        self._upstream.planner.handle(
            PromptEnded(record.prompt_id, _ending(record, Outcome.ERROR), timeline.node_seconds, _uses(record)), now
        )

    def close(self, record: Record, outcome: Outcome, now: float) -> None:
        """It ended, as seen in its events."""
        timeline = self._with_handed_over(record.prompt_id, _in_stable_ids(record))
        account = self._upstream.load_book.settle(record.components, timeline, keeps_alone=self._upstream.keeps_alone)
        record.account = account
        if not record.handling.hidden:
            self.totals.add(account)
        self._upstream.chain_book.loaded({i.ref: i.seconds for i in account.loaded if i.seconds is not None})
        self._upstream.planner.handle(
            PromptEnded(
                record.prompt_id, _ending(record, outcome), timeline.node_seconds, _uses(record), self._read(record)
            ),
            now,
        )
        log.info("%s", describe(record, account, outcome))

    def _with_handed_over(self, prompt_id: str, timeline: Timeline) -> Timeline:
        """Shared loaders run in every prompt; those that found their models under their keys have loaded nothing."""
        thought = self._upstream.planner.residency.handed_over(prompt_id)
        found = {node_id for node_id in thought if handed_over(thought, node_id, timeline.node_seconds)}
        return replace(timeline, cached=timeline.cached | found)

    def _read(self, record: Record) -> int | None:
        """Bytes that ComfyUI's process has read from disk since this prompt started."""
        now = self._upstream.memory.disk_bytes()
        return None if now is None or record.disk_bytes is None else max(0, now - record.disk_bytes)


_SHORT_OF = {Shortage.VRAM: Ending.OUT_OF_VRAM, Shortage.RAM: Ending.OUT_OF_RAM}


def _ending(record: Record, outcome: Outcome) -> Ending:
    if outcome is not Outcome.ERROR:
        return Ending.SUCCESS if outcome is Outcome.SUCCESS else Ending.FAILURE
    return Ending.FAILURE if record.timeline.shortage is None else _SHORT_OF[record.timeline.shortage]


def _uses(record: Record) -> tuple[Use, ...]:
    return tuple(
        record.steps.use(node, parts, class_type, record.timeline.node_seconds[node])
        for node in record.timeline.node_seconds
        if node in record.consumers
        for class_type, parts in (record.consumers[node],)
    )


def describe(record: Record, account: Account, outcome: Outcome) -> str:
    """One line: what was loaded, what was kept, what that saved."""
    seconds = record.timeline.run_seconds
    parts = [f"{outcome} in {seconds:.2f} s" if seconds is not None else str(outcome)]
    if account.loaded:
        items = (f"{i.ref.label} ({i.seconds:.2f} s)" if i.seconds is not None else i.ref.label for i in account.loaded)
        parts.append("loaded " + ", ".join(items))
    if account.kept:
        parts.append("kept " + ", ".join(ref.label for ref in account.kept))
    if account.saved_seconds:
        parts.append(f"saved {account.saved_seconds:.2f} s of loading")
    if record.handling is not Handling.REWRITTEN:
        parts.append(record.handling.value)
        if account.avoidable_seconds and not record.handling.hidden:
            parts.append(f"pins would have saved {account.avoidable_seconds:.2f} s of loading")
    return f"prompt {record.prompt_id}: " + "; ".join(parts)


def describe_deleted(prompt_ids: Sequence[str]) -> str:
    """One line for prompts that were taken out of the queue together; a client may clear thousands."""
    if len(prompt_ids) == 1:
        return f"prompt {prompt_ids[0]}: deleted before it ran"
    return f"{len(prompt_ids)} prompts: deleted before they ran"


def _in_stable_ids(record: Record) -> Timeline:
    """The timeline of a prompt that was sent as it came, as if it had been rewritten."""
    ids, timeline = record.stable_ids, record.timeline
    if not ids:
        return timeline
    return replace(
        timeline,
        cached=frozenset(ids.get(node, node) for node in timeline.cached),
        node_seconds={ids.get(node, node): seconds for node, seconds in timeline.node_seconds.items()},
    )
