"""The way back: whatever ComfyUI says about a rewritten prompt, in the terms of the client that sent it.

It must work long after the prompt was sent and in another process, so all it needs rides in the prompt's own
`extra_data` and comes back with every `/queue` and `/history`. Ids turn up as values, as keys, inside the ids of
expanded subgraphs (`parent.0.0.child`) and inside messages, in events that ComfyUI documents and in those that custom
nodes make up; so every text is searched for them, except tracebacks and the inputs of a failed node, which are left as
they are. Pins are taken out of every list and object.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import NoneType
from typing import Any

from normalizer.identity import PREFIX, SENT_ID
from normalizer.rules import DroppedKey
from normalizer.schema import Schema
from normalizer.workflow import is_link

EXTRA_DATA_KEY = "comfykeep"
"""Where the way back rides in `extra_data`."""

_VERSION = 1
_LEFT_ALONE = frozenset({"traceback", "current_inputs"})
_LEAST_ID = int(PREFIX) * 10**20
_NODE_KEYS = ("node", "node_id", "display_node", "display_node_id", "real_node_id")


@dataclass(frozen=True, slots=True)
class Exchanged:
    """A node that was sent as another class.

    `class_type` and `inputs` are the client's; `names` gives the client's name for each input that is called something
    else there.
    """

    class_type: str
    inputs: Mapping[str, Any]
    names: Mapping[str, str] = field(default_factory=dict)

    def error(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Give the data of an `execution_error` as the client's own node would have caused it."""
        given = {name: [value] for name, value in self.inputs.items()}
        inputs = {"current_inputs": given} if data.get("current_inputs") else {}
        return {**data, "node_type": self.class_type, **inputs}

    def invalid(self, errors: Mapping[str, Any]) -> dict[str, Any]:
        """Give what validation says against the node (`node_errors`) in the client's names."""
        items = errors.get("errors")
        renamed = [self._renamed(item) for item in items] if isinstance(items, list) else items
        return {**errors, "class_type": self.class_type, "errors": renamed}

    def _renamed(self, item: Any) -> Any:
        info = item.get("extra_info") if isinstance(item, Mapping) else None
        name = info.get("input_name") if isinstance(info, Mapping) else None
        if not isinstance(info, Mapping) or not isinstance(name, str) or name not in self.names:
            return item
        own = self.names[name]
        details = re.sub(rf"^{re.escape(name)}\b", own, str(item.get("details", "")))
        return {**item, "details": details, "extra_info": {**info, "input_name": own}}


@dataclass(frozen=True)
class WayBack:
    """What restoring needs: what was renamed, added, taken out and overwritten, in one prompt.

    `ids` maps sent ids to the client's; `pins` are the ids of nodes that are ours; `dropped` what was taken out of a
    node's inputs, by the client's id; `exchanged` what was sent as another class, by the sent id. `added` are dotted
    names within `extra_data` of what the proxy put there (`"client_id"`, `"extra_pnginfo"`, `"extra_pnginfo.prompt"`).
    `number` and `create_time` (ms since the epoch) are what the client shall read where the proxy sent others; None
    leaves ComfyUI's.
    """

    ids: Mapping[str, str] = field(default_factory=dict)
    pins: tuple[str, ...] = ()
    dropped: Mapping[str, tuple[DroppedKey, ...]] = field(default_factory=dict)
    exchanged: Mapping[str, Exchanged] = field(default_factory=dict)
    added: tuple[str, ...] = ()
    number: float | None = None
    create_time: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Give the way back as JSON, without what is empty."""
        made: dict[str, Any] = {"v": _VERSION}
        if self.ids:
            made["ids"] = dict(self.ids)
        if self.pins:
            made["pins"] = list(self.pins)
        if self.dropped:
            made["dropped"] = {
                node_id: [[item.place, item.name, item.value] for item in items]
                for node_id, items in self.dropped.items()
            }
        if self.exchanged:
            made["exchanged"] = {
                sent_id: [item.class_type, dict(item.inputs), dict(item.names)]
                for sent_id, item in self.exchanged.items()
            }
        if self.added:
            made["added"] = list(self.added)
        for name in ("number", "create_time"):
            if (value := getattr(self, name)) is not None:
                made[name] = value
        return made

    @classmethod
    def from_json(cls, data: Any) -> "WayBack | None":
        """Read what `to_json` made; None if this is something else (a client may use the same key)."""
        if not isinstance(data, Mapping) or data.get("v") != _VERSION:
            return None
        try:
            return cls(
                ids={_checked(new, str): _checked(old, str) for new, old in data.get("ids", {}).items()},
                pins=tuple(_checked(pin, str) for pin in data.get("pins", ())),
                dropped={
                    node_id: tuple(
                        DroppedKey(_checked(place, int), _checked(name, str), value) for place, name, value in items
                    )
                    for node_id, items in data.get("dropped", {}).items()
                },
                exchanged={
                    sent_id: Exchanged(_checked(class_type, str), _checked(inputs, dict), _checked(names, dict))
                    for sent_id, (class_type, inputs, names) in data.get("exchanged", {}).items()
                },
                added=tuple(_checked(name, str) for name in data.get("added", ())),
                number=_checked(data.get("number"), int, float, NoneType),
                create_time=_checked(data.get("create_time"), int, NoneType),
            )
        except (AttributeError, TypeError, ValueError):
            return None

    @classmethod
    def from_extra_data(cls, extra_data: Any) -> "WayBack | None":
        """Find the way back in the `extra_data` of a queue item or a history entry; None if there is none."""
        return cls.from_json(extra_data.get(EXTRA_DATA_KEY)) if isinstance(extra_data, Mapping) else None

    def into_extra_data(self, extra_data: Mapping[str, Any]) -> dict[str, Any]:
        """Give the `extra_data` to send: the client's with the way back in it, over a client's own of that name."""
        return {**extra_data, EXTRA_DATA_KEY: self.to_json()}

    def node_id(self, node_id: str) -> str:
        """Give the client's name for a node, also for one that a renamed node expanded into."""
        return self.text(node_id)

    def is_pin(self, value: object) -> bool:
        """Tell whether this is the id of a pin, or of something that a pin expanded into."""
        if not isinstance(value, str) or not value.startswith(PREFIX):
            return False
        found = SENT_ID.match(value)
        return found is not None and found[0] in self._pins

    def text(self, text: str) -> str:
        """Restore the ids inside a text."""
        if PREFIX not in text:
            return text
        return SENT_ID.sub(lambda match: self.ids.get(match[0], match[0]), text)

    def value(self, value: Any) -> Any:
        """Restore any JSON: ids as values, keys and within texts, pins taken out."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            items = []
            for item in value:  # no comprehension: it would cost a second frame per level of nesting
                if not self.is_pin(item):
                    items.append(self.value(item))  # noqa: PERF401 -- as above
            return items
        if isinstance(value, dict):
            return self._object(value)
        if isinstance(value, int) and value >= _LEAST_ID:
            return self._number_id(value)
        return value

    def submission_answer(self, body: Any) -> Any:
        """Restore the answer to `POST /prompt`, a 200 or a 400."""
        restored = self.value(body)
        if isinstance(restored, dict) and "number" in restored and self.number is not None:
            restored["number"] = self.number
        return restored

    def pins_named(self, body: Any) -> frozenset[str]:
        """Find the pins that an answer names, before it is restored: they are to blame for it."""
        found: set[str] = set()
        stack = [body]
        while stack:
            item = stack.pop()
            if isinstance(item, str):
                found.update(SENT_ID.findall(item))
            elif isinstance(item, Mapping):
                stack.extend((*item.keys(), *item.values()))
            elif isinstance(item, list):
                stack.extend(item)
        return self._pins & found

    def event(self, data: Any) -> Any:
        """Restore the data of an event of any type; None if it is about a pin, and so none of the client's business."""
        if isinstance(data, Mapping) and any(self.is_pin(data.get(key)) for key in _NODE_KEYS):
            return None
        return self.value(data)

    def queue_item(self, item: Any) -> Any:
        """Restore `[number, id, prompt, extra_data, outputs, …]` of `/queue` and of a history entry's `prompt`."""
        if not isinstance(item, list) or len(item) < 4:  # noqa: PLR2004 -- up to extra_data
            return item
        number, prompt_id, prompt, extra_data, *rest = item
        return [
            number if self.number is None else self.number,
            prompt_id,
            self.prompt(prompt),
            self.extra_data(extra_data),
            *self.value(rest),
        ]

    def history_entry(self, entry: Any) -> Any:
        """Restore one entry of `/history`."""
        if not isinstance(entry, Mapping):
            return entry
        return {key: self.queue_item(item) if key == "prompt" else self.value(item) for key, item in entry.items()}

    def job(self, job: Any) -> Any:
        """Restore one job of `/api/jobs`, of the list or alone. Source: ComfyUI `comfy_execution/jobs.py`."""
        if not isinstance(job, Mapping):
            return job
        restored = self.value({key: item for key, item in job.items() if key != "workflow"})
        if isinstance(workflow := job.get("workflow"), Mapping):
            parts = {"prompt": self.prompt, "extra_data": self.extra_data}
            restored["workflow"] = {key: parts.get(key, self.value)(item) for key, item in workflow.items()}
        if "priority" in restored and self.number is not None:
            restored["priority"] = self.number
        if "create_time" in restored and self.create_time is not None:
            restored["create_time"] = self.create_time
        return restored

    def prompt(self, prompt: Any) -> Any:
        """Give the client's own prompt: its ids, its links, the keys that were dropped, and no pins."""
        if not isinstance(prompt, Mapping):
            return prompt
        result = {}
        for sent_id, node in prompt.items():
            if not self.is_pin(sent_id):
                node_id = self.ids.get(sent_id, sent_id)
                result[node_id] = self._node(self._own_node(sent_id, node), self.dropped.get(node_id, ()))
        return result

    def extra_data(self, extra_data: Any) -> Any:
        """Give the client's own `extra_data`, with what ComfyUI adds to it."""
        if not isinstance(extra_data, Mapping):
            return extra_data
        result = {key: value for key, value in extra_data.items() if key != EXTRA_DATA_KEY}
        for name in self.added:
            outer, _, inner = name.partition(".")
            if not inner:
                result.pop(outer, None)
            elif isinstance(held := result.get(outer), Mapping):
                result[outer] = {key: value for key, value in held.items() if key != inner}
        if self.create_time is not None and "create_time" in result:
            result["create_time"] = self.create_time
        return result

    @cached_property
    def _pins(self) -> frozenset[str]:
        return frozenset(self.pins)

    def _own_node(self, sent_id: str, node: Any) -> Any:
        exchanged = self.exchanged.get(sent_id)
        if exchanged is None or not isinstance(node, Mapping):
            return node
        return {**node, "inputs": exchanged.inputs, "class_type": exchanged.class_type}

    def _own_classes(self, value: dict[str, Any]) -> dict[str, Any]:
        """Name the client's classes where an exchanged node is told about: by `node_id`, or under its id."""
        told = {
            key: self.exchanged[key].invalid(item)
            for key, item in value.items()
            if key in self.exchanged and isinstance(item, dict) and "class_type" in item
        }
        node_id = value.get("node_id")
        if isinstance(node_id, str) and node_id in self.exchanged and "node_type" in value:
            return self.exchanged[node_id].error(value)
        return {**value, **told}

    def _object(self, value: dict[str, Any]) -> dict[str, Any]:
        entries = {}
        for key, item in (self._own_classes(value) if self.exchanged else value).items():
            if key in _LEFT_ALONE:
                entries[key] = item
            elif not self.is_pin(key):
                entries[self.text(key)] = self.value(item)
        return entries

    def _number_id(self, value: int) -> Any:
        """Restore an id that a custom node sent as a number (`int(unique_id)`)."""
        node_id = self.ids.get(str(value))
        if node_id is None:
            return value
        return int(node_id) if node_id.isdecimal() else node_id

    def _node(self, node: Any, dropped: Iterable[DroppedKey]) -> Any:
        inputs = node.get("inputs") if isinstance(node, Mapping) else None
        if not isinstance(inputs, Mapping):
            return node
        items = [
            (name, [self.ids.get(value[0], value[0]), value[1]] if is_link(value) else value)
            for name, value in inputs.items()
        ]
        for item in dropped:
            items.insert(item.place, (item.name, item.value))
        return {**node, "inputs": dict(items)}


def _checked(value: Any, *types: type) -> Any:
    if type(value) not in types:
        raise TypeError(f"{value!r} is not of {types}")
    return value


def with_client_prompt(
    extra_data: Mapping[str, Any], prompt: Mapping[str, Any], schema: Schema
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Put the client's own prompt where files carry it, so that they hold what the client sent.

    ComfyUI writes each key of `extra_pnginfo` into the file after the executed prompt, and readers keep the last of a
    name. It is added only where an `extra_pnginfo.workflow` is there already or all classes are ComfyUI's own, because
    custom handlers choke on an `extra_pnginfo` without a workflow, and never over a client's own.

    Returns:
        the `extra_data` to send, and what was added to it, for `WayBack.added`.
    """
    result = dict(extra_data)
    given = result.get("extra_pnginfo", {})
    if not isinstance(given, Mapping) or "prompt" in given:
        return result, ()
    if "workflow" not in given and not all(_is_core(node, schema) for node in prompt.values()):
        return result, ()
    result["extra_pnginfo"] = {**given, "prompt": prompt}
    return result, ("extra_pnginfo.prompt",) if "extra_pnginfo" in extra_data else ("extra_pnginfo",)


def _is_core(node: Any, schema: Schema) -> bool:
    cls = schema.get(node.get("class_type")) if isinstance(node, Mapping) else None
    return cls is not None and cls.core
