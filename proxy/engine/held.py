"""A prompt of the held queue: what is kept of it while it waits, and how clients see it.

Thousands may wait, so bodies are packed, and what a view or a dispatch needs is made again from them when it is needed.
"""

import asyncio
import json
import math
import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from normalizer import Normalized, Schema
from proxy.core.commands import End
from proxy.core.events import Submitted
from proxy.engine.chronicle import Chronicle
from proxy.engine.passing import Look
from proxy.engine.records import Record
from proxy.engine.submission import Draft, Submission, draft, parse, refuse_unreadable
from proxy.errors import DownstreamError
from proxy.journal_records import Record as JournalRecord
from proxy.upstream.client import Answer

PRIORITY_HEADER = "x-comfykeep-priority"
ORDER_KEY_HEADER = "x-comfykeep-order-key"
PRIORITY_KEY = "comfykeep_priority"
ORDER_KEY_KEY = "comfykeep_order_key"
USAGE_SOURCE_HEADER = "comfy-usage-source"
IDEMPOTENCY_HEADER = "idempotency-key"

_KEPT_HEADERS = frozenset(
    {
        USAGE_SOURCE_HEADER,
        "comfy-user",
        *("host", "origin", "cookie", "authorization", "sec-fetch-site"),
        *(PRIORITY_HEADER, ORDER_KEY_HEADER),
    }
)
"""Headers that a held prompt keeps: those ComfyUI reads, those its guard judges, and those that order the queue."""

_SENSITIVE = ("auth_token_comfy_org", "api_key_comfy_org")
"""Keys of `extra_data` that ComfyUI never shows (execution.py, `SENSITIVE_EXTRA_DATA_KEYS`)."""

_HIGHEST_PRIORITY = 1_000_000


@dataclass(slots=True, kw_only=True)
class Held:
    """One prompt, from its submission until it has ended.

    `create_time` is in milliseconds since the epoch; `node_errors` what ComfyUI said of outputs that will not run.
    """

    prompt_id: str
    sequence: int
    target: str
    headers: tuple[tuple[str, str], ...]
    packed: bytes
    """The body that the client sent."""
    view: bytes
    """`[prompt, extra_data, outputs]` as `/queue` shows it."""
    client_id: str | None
    broadcast: bool
    create_time: int
    workflow_id: Any
    """As `/api/jobs` shows it; None where the workflow has none."""
    event: Submitted
    answer: "asyncio.Future[Answer]"
    node_errors: Mapping[str, Any] | None = None
    refusal: Answer | None = None
    given_number: float | None = None
    """The `number` its client gave, as ComfyUI reads it."""
    idempotency_key: str | None = None
    written: "asyncio.Future[None] | None" = None
    """Its entry in the journal; None before it was accepted."""
    over: asyncio.Event | None = None
    """Set when it has ended; there only where somebody waits for that (`ended`)."""
    end: End | None = None
    """Its end, where that came before its acceptance."""
    record: Record | None = None
    """Its record while it is at ComfyUI."""
    heard: Chronicle | None = None
    """What has been heard of its run, once there was something (`chronicle`)."""

    @property
    def submission(self) -> Submission:
        """As it is to be sent again."""
        return Submission(self.target, self.headers, zlib.decompress(self.packed), "utf-8")

    @property
    def chronicle(self) -> Chronicle:
        """What has been heard of its run."""
        if self.heard is None:
            self.heard = Chronicle()
        return self.heard

    async def ended(self) -> None:
        """Wait until it has ended and nothing of it is at ComfyUI any more; to be asked while it has not."""
        if self.over is None:
            self.over = asyncio.Event()
        await self.over.wait()

    def shown_number(self, number: float) -> float:
        """The number that clients read: a given one is a float to ComfyUI, a counted one an int."""
        return int(number) if self.given_number is None else self.given_number

    def queue_item(self, number: float) -> bytes:
        """`[number, id, prompt, extra_data, outputs]` as ComfyUI shows it, as JSON."""
        head = f"[{json.dumps(self.shown_number(number))}, {json.dumps(self.prompt_id)}, "
        return head.encode() + zlib.decompress(self.view)[1:]


def hold(submission: Submission, look: Look, sequence: int, own_client_id: str, create_time: int) -> Held:
    """Make ready to keep a prompt; `create_time` is in milliseconds since the epoch.

    Raises:
        DownstreamError: for a body ComfyUI could not read, or a priority or order key that makes no sense.
    """
    refuse_unreadable(look.original.payload)
    original, normalized, schema = look.original, look.normalized, look.schema
    extra_data = _shown_extra_data(submission, original, create_time)
    outputs = [node_id for node_id, node in original.prompt.items() if _is_output(node, schema)]
    targets = original.payload.get("partial_execution_targets")
    if isinstance(targets, list):
        outputs = [node_id for node_id in outputs if node_id in targets]
    client_id = original.client_id if original.names_client else own_client_id
    number = float(original.payload["number"]) if "number" in original.payload else None
    return Held(
        prompt_id=original.prompt_id,
        sequence=sequence,
        target=submission.target,
        headers=tuple(item for item in submission.headers if item[0].lower() in _KEPT_HEADERS),
        packed=zlib.compress(json.dumps({**original.payload, "prompt_id": original.prompt_id}).encode(), level=1),
        view=zlib.compress(json.dumps([original.prompt, extra_data, outputs]).encode(), level=1),
        client_id=client_id,
        broadcast=not original.names_client,
        create_time=create_time,
        workflow_id=workflow_id(extra_data),
        event=Submitted(
            prompt_id=original.prompt_id,
            client=original.client_id or "",
            models=normalized.models,
            priority=_priority(submission, original),
            number=None if number is None else _orderable(number),
            front=bool(original.payload.get("front")),
            order_key=_order_key(submission, original),
            workload=_workload(normalized),
            paid=_is_paid(original.prompt, schema),
        ),
        answer=asyncio.get_running_loop().create_future(),
        given_number=number,
        idempotency_key=header(submission, IDEMPOTENCY_HEADER),
    )


def read_record(record: JournalRecord) -> tuple[Submission, Draft] | None:
    """A prompt out of the journal, as it was submitted; None when it cannot be read any more."""
    submission = Submission("/prompt", record.headers, record.body, "utf-8")
    try:
        original = draft(parse(submission))
    except DownstreamError:
        return None
    return None if original is None else (submission, original)


def header(submission: Submission, name: str) -> str | None:
    """The first header of that name (lower case)."""
    return next((value for key, value in submission.headers if key.lower() == name), None)


def workflow_id(extra_data: Mapping[str, Any]) -> Any:
    """The id of the workflow that a prompt was made from (ComfyUI comfy_execution/jobs.py, `_extract_job_metadata`).

    Where ComfyUI fails on what a client sent there, and with it on every job, there is none.
    """
    found: Any = extra_data
    for key in ("extra_pnginfo", "workflow", "id"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _orderable(number: float) -> float:
    """ComfyUI takes any float, NaN too; a place in the queue has to be one that compares."""
    if math.isnan(number):
        return 0.0
    return min(max(number, -sys.float_info.max), sys.float_info.max)


def _priority(submission: Submission, original: Draft) -> int:
    given: Any = header(submission, PRIORITY_HEADER)
    given = original.extra_data.get(PRIORITY_KEY, 0) if given is None else given
    try:
        priority = int(given) if isinstance(given, str) else given
    except ValueError:
        priority = None
    if not isinstance(priority, int) or isinstance(priority, bool) or abs(priority) > _HIGHEST_PRIORITY:
        raise DownstreamError(
            f"The priority {given!r} is no integer between -{_HIGHEST_PRIORITY} and {_HIGHEST_PRIORITY}",
            type="bad_priority",
            details=f"Send X-Comfykeep-Priority: 5, or extra_data.{PRIORITY_KEY} = 5; higher runs first, 0 is normal.",
        )
    return priority


def _order_key(submission: Submission, original: Draft) -> str | None:
    given: Any = header(submission, ORDER_KEY_HEADER)
    given = original.extra_data.get(ORDER_KEY_KEY) if given is None else given
    if given is not None and not isinstance(given, str):
        raise DownstreamError(
            f"The order key {given!r} is no string",
            type="bad_order_key",
            details="Send X-Comfykeep-Order-Key, or extra_data.comfykeep_order_key, as a string.",
        )
    return given or None


def _shown_extra_data(submission: Submission, original: Draft, create_time: int) -> dict[str, Any]:
    """What ComfyUI makes of `extra_data` (server.py, `post_prompt`)."""
    shown = {key: value for key, value in original.extra_data.items() if key not in _SENSITIVE}
    if "client_id" in original.payload:
        shown["client_id"] = original.payload["client_id"]
    source = header(submission, USAGE_SOURCE_HEADER)
    if "comfy_usage_source" not in shown and source:
        shown["comfy_usage_source"] = source
    shown["create_time"] = create_time
    return shown


def _is_output(node: Any, schema: Schema) -> bool:
    node_class = schema.get(node.get("class_type")) if isinstance(node, Mapping) else None
    return node_class is not None and node_class.output_node


def _is_paid(prompt: Mapping[str, Any], schema: Schema) -> bool:
    classes = (schema.get(node.get("class_type")) for node in prompt.values() if isinstance(node, Mapping))
    return any(node_class is not None and node_class.api_node for node_class in classes)


def _workload(normalized: Normalized) -> str:
    """Prompts of the same classes and models take about as long."""
    classes = sorted(str(node.get("class_type")) for node in normalized.prompt.values() if isinstance(node, Mapping))
    files = sorted((ref.class_type, *ref.files) for ref in normalized.models)
    return blake2b(json.dumps([classes, files]).encode(), digest_size=8).hexdigest()
