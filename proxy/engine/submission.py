"""From the body a client posts to the body ComfyUI gets, and what to remember of the difference.

Only what is understood is rewritten. A body that ComfyUI will refuse anyway, or that has a shape nobody foresaw, goes
on as the bytes it came as; ComfyUI then says what is wrong, except where it would answer with a 500 page: there the
client gets a 400 that names the fault.
"""

import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from normalizer import Normalized, Schema, WayBack, fatal_faults, with_client_prompt
from proxy.errors import DownstreamError
from proxy.wire.headers import HeaderList

Named = Callable[[str | None, str | None], None]
"""Told the id of a prompt that is being submitted, None where ComfyUI chooses it, and its client's."""


@dataclass(frozen=True, slots=True)
class Submission:
    """One `POST /prompt` as it came: raw path and query, end-to-end headers, body."""

    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    charset: str
    bypass: bool = False

    def headers_without(self, *names: str) -> HeaderList:
        """The headers less some (lower case)."""
        return [(name, value) for name, value in self.headers if name.lower() not in names]


@dataclass(frozen=True, slots=True)
class Draft:
    """A submission that was understood. `client_id` is where ComfyUI will send events, None if nowhere."""

    payload: Mapping[str, Any]
    prompt: Mapping[str, Any]
    extra_data: Mapping[str, Any]
    prompt_id: str
    client_id: str | None
    names_client: bool
    """Whether the client says anything about a client id, even null."""

    @property
    def class_types(self) -> frozenset[str]:
        """All classes of the prompt that are named as they should be."""
        nodes = (node for node in self.prompt.values() if isinstance(node, Mapping))
        return frozenset(name for node in nodes if isinstance(name := node.get("class_type"), str))


def parse(submission: Submission) -> Any:
    """Read the body as ComfyUI does.

    Raises:
        DownstreamError: when it is no JSON.
    """
    try:
        return json.loads(submission.body.decode(submission.charset))
    except (ValueError, LookupError, RecursionError) as error:
        raise DownstreamError(
            "The body is not valid JSON",
            type="invalid_json",
            details=f'{error}. Send {{"prompt": {{...}}}} with Content-Type: application/json.',
        ) from error


def draft(payload: Any) -> Draft | None:
    """Understand a body; None when it is to go on as it came."""
    if not isinstance(payload, Mapping):
        return None
    prompt, extra_data = payload.get("prompt"), payload.get("extra_data", {})
    prompt_id = payload.get("prompt_id")
    if not isinstance(prompt, Mapping) or not isinstance(extra_data, Mapping):
        return None
    if prompt_id is not None and not isinstance(prompt_id, str):
        return None
    names_client = "client_id" in payload or "client_id" in extra_data
    client_id = payload.get("client_id", extra_data.get("client_id"))
    return Draft(
        payload=payload,
        prompt=prompt,
        extra_data=extra_data,
        prompt_id=str(uuid.uuid4()) if prompt_id is None else prompt_id,
        client_id=client_id if isinstance(client_id, str) else None,
        names_client=names_client,
    )


def refuse_fatal(payload: Any, schema: Schema | None = None) -> None:
    """Keep out what would end ComfyUI or its worker; links are judged only where the classes are known.

    Raises:
        DownstreamError: with every fault that was found.
    """
    faults = fatal_faults(payload, schema) if isinstance(payload, Mapping) else []
    if faults:
        raise DownstreamError(
            "This prompt would crash ComfyUI",
            type="fatal_prompt",
            details="; ".join(
                (f"node {fault.node_id}: " if fault.node_id is not None else "") + f"{fault.what}: {fault.remedy}"
                for fault in faults
            ),
        )


@dataclass(frozen=True, slots=True)
class Place:
    """Where a prompt of a held queue stands. The client's own `number` and `front` have done their work by then.

    `number` puts it at a place in ComfyUI's queue; None lets ComfyUI count. `shown` is the number the client reads, and
    `create_time` (milliseconds since the epoch) the moment of its submission.
    """

    number: float | None
    shown: float
    create_time: int


def compose(
    original: Draft, normalized: Normalized, schema: Schema, own_client_id: str, place: Place | None
) -> tuple[bytes, WayBack]:
    """Write the body that ComfyUI gets, and the way back that rides in it.

    Args:
        original: what the client sent.
        normalized: its prompt, rewritten, with pins or without.
        schema: for the rule that keeps the client's own prompt in saved files.
        own_client_id: the proxy's own, for a client that names none.
        place: its place where the queue is held here; None leaves the client's.
    """
    payload: dict[str, Any] = {**original.payload, "prompt": normalized.prompt, "prompt_id": original.prompt_id}
    extra_data: Mapping[str, Any] = original.extra_data
    way_back = normalized.way_back
    if normalized.changes:
        extra_data, added = with_client_prompt(extra_data, original.prompt, schema)
        way_back = replace(way_back, added=(*way_back.added, *added))
    if not original.names_client:
        payload["client_id"] = own_client_id
        way_back = replace(way_back, added=(*way_back.added, "client_id"))
    if place is not None:
        way_back = replace(way_back, number=place.shown, create_time=place.create_time)
        for name in ("number", "front"):
            payload.pop(name, None)
        if place.number is not None:
            payload["number"] = place.number
    if way_back != WayBack():
        payload["extra_data"] = way_back.into_extra_data(extra_data)
    return json.dumps(payload).encode(), way_back


def refuse_unreadable(payload: Any) -> None:
    """Say what it is that ComfyUI answers with a 500 page.

    Raises:
        DownstreamError: when there is something.
    """
    if fault := _shape_fault(payload):
        raise DownstreamError("ComfyUI cannot read this body", type="invalid_prompt", details=fault)


def _shape_fault(payload: Any) -> str | None:
    """Why ComfyUI could not even read this body, where it answers 500; None when nothing of the kind is seen."""
    if not isinstance(payload, Mapping):
        return f"the body is {_json_type(payload)}, not an object"
    prompt = payload.get("prompt", {})
    if not isinstance(prompt, Mapping):
        return f"prompt is {_json_type(prompt)}, not an object of nodes"
    return next(_node_faults(prompt), None) or next(_envelope_faults(payload), None)


def _node_faults(prompt: Mapping[str, Any]) -> Iterator[str]:
    for node_id, node in prompt.items():
        if not isinstance(node, Mapping):
            yield f"node {node_id} is {_json_type(node)}, not an object"
        elif isinstance(node.get("class_type"), (list, Mapping)):
            yield f"node {node_id}: class_type is {_json_type(node['class_type'])}, not a string"


def _envelope_faults(payload: Mapping[str, Any]) -> Iterator[str]:
    if "number" in payload and not _is_number(payload["number"]):
        yield f"number is {payload['number']!r}, not a number"
    if not isinstance(payload.get("extra_data", {}), Mapping):
        yield f"extra_data is {_json_type(payload['extra_data'])}, not an object"
    targets = payload.get("partial_execution_targets")
    if targets is not None and not isinstance(targets, (list, str, Mapping)):
        yield f"partial_execution_targets is {_json_type(targets)}, not a list"


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def _json_type(value: Any) -> str:
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object"}
    return names[type(value)]
