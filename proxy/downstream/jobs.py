"""The shapes of `/api/jobs`: what ComfyUI makes of a queue item or a history entry, and how it selects and sorts.

Needed where ComfyUI cannot answer for us: for prompts that wait here and for history that only the journal has.
Source: ComfyUI comfy_execution/jobs.py and server.py (`get_jobs`).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from proxy.core.job import Job
from proxy.core.jobs import RUNS
from proxy.engine.held import Held, workflow_id

_QUEUED = ("pending", "in_progress")
_FINISHED = frozenset({"completed", "failed", "cancelled"})
_STATUSES = _FINISHED.union(_QUEUED)
_SHOWN_MEDIA = frozenset({"images", "video", "audio", "3d", "text"})
_MODEL_FILES = (".obj", ".fbx", ".gltf", ".glb", ".usdz")
_TEXT_FILES = (".txt", ".md", ".json")
_TEXT_SHOWN = 1024


@dataclass(frozen=True, slots=True)
class Selection:
    """Which jobs a client asks for."""

    statuses: frozenset[str] = _STATUSES
    workflow_id: str | None = None
    by_duration: bool = False
    descending: bool = True
    limit: int | None = None
    offset: int = 0

    @classmethod
    def of(cls, query: Mapping[str, str]) -> "Selection | None":
        """Read a query that ComfyUI accepts; None for one that it refuses."""
        try:
            limit = int(query["limit"]) if "limit" in query else None
            offset = max(0, int(query.get("offset", "0")))
        except ValueError:
            return None
        statuses = frozenset(part.strip().lower() for part in query.get("status", "").split(",") if part.strip())
        sort_by, order = query.get("sort_by", "created_at").lower(), query.get("sort_order", "desc").lower()
        known = sort_by in {"created_at", "execution_duration"} and order in {"asc", "desc"}
        if not known or not statuses <= _STATUSES or (limit is not None and limit <= 0):
            return None
        chosen = statuses or _STATUSES
        by_duration = sort_by == "execution_duration"
        return cls(chosen, query.get("workflow_id") or None, by_duration, order == "desc", limit, offset)

    @property
    def finished(self) -> bool:
        """Whether jobs that have ended are asked for."""
        return bool(self.statuses & _FINISHED)

    @property
    def question(self) -> str:
        """What to ask ComfyUI, for all that may be chosen from.

        Its history is left out where no ended job is wanted: besides being long, it may hold an entry that ComfyUI
        cannot list (`extra_pnginfo` null), and one such makes every list with ended jobs a 500.
        """
        return "/api/jobs" if self.finished else f"/api/jobs?status={','.join(_QUEUED)}"

    def page(self, jobs: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """The answer to `GET /api/jobs` out of all jobs there are."""
        chosen = [job for job in jobs if job.get("status") in self.statuses]
        if self.workflow_id is not None:
            chosen = [job for job in chosen if job.get("workflow_id") == self.workflow_id]
        chosen.sort(key=_duration if self.by_duration else _created, reverse=self.descending)
        end = None if self.limit is None else self.offset + self.limit
        shown = chosen[self.offset : end]
        pagination = {
            "offset": self.offset,
            "limit": self.limit,
            "total": len(chosen),
            "has_more": self.offset + len(shown) < len(chosen),
        }
        return {"jobs": shown, "pagination": pagination}


def queued_job(held: Held, job: Job) -> dict[str, Any]:
    """What ComfyUI would make of its queue item."""
    shown = {
        "id": held.prompt_id,
        "status": "in_progress" if job.state in RUNS else "pending",
        "priority": held.shown_number(job.number),
        "create_time": held.create_time,
        "outputs_count": 0,
        "previewable_outputs_count": 0,
        "workflow_id": held.workflow_id,
    }
    return _without_none(shown)


def finished_job(prompt_id: str, entry: Mapping[str, Any], *, whole: bool) -> dict[str, Any]:
    """A job out of a history entry; `whole` adds outputs, status and workflow, as for a single job."""
    number, _, prompt, extra_data, *_ = entry["prompt"]
    status = entry.get("status") or {}
    messages = {message[0]: message[1] for message in status.get("messages", ())}
    ends = [
        messages[kind] for kind in ("execution_success", "execution_error", "execution_interrupted") if kind in messages
    ]
    outputs = entry.get("outputs", {})
    items = list(_items(outputs))
    job = {
        "id": prompt_id,
        "status": _status(status, messages),
        "priority": number,
        "create_time": extra_data.get("create_time"),
        "execution_start_time": messages.get("execution_start", {}).get("timestamp"),
        "execution_end_time": ends[-1].get("timestamp") if ends else None,
        "execution_error": messages.get("execution_error"),
        "outputs_count": sum(item is not None for _, _, item in items),
        "previewable_outputs_count": sum(item is not None and _is_shown(media, item) for _, media, item in items),
        "preview_output": _preview(outputs),
        "workflow_id": workflow_id(extra_data),
    }
    result = _without_none(job)
    if whole:
        result["outputs"] = {node_id: _listed(outputs_of) for node_id, outputs_of in outputs.items()}
        result["execution_status"] = entry.get("status")
        result["workflow"] = {"prompt": prompt, "extra_data": extra_data}
    return result


def _status(status: Mapping[str, Any], messages: Mapping[str, Any]) -> str:
    if status.get("status_str") != "error":
        return "completed"
    return "cancelled" if "execution_interrupted" in messages else "failed"


def _without_none(job: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in job.items() if value is not None}


def _created(job: Mapping[str, Any]) -> float:
    created: float = job.get("create_time", 0)
    return created


def _duration(job: Mapping[str, Any]) -> float:
    start, end = job.get("execution_start_time", 0), job.get("execution_end_time", 0)
    return float(end - start) if start and end else 0.0


def _items(outputs: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any] | None]]:
    """Every output item with its node and media type; None for a text or anything else that is no file."""
    for node_id, of_node in outputs.items():
        for media, items in of_node.items() if isinstance(of_node, Mapping) else ():
            if media != "animated" and isinstance(items, list):
                for item in items:
                    yield node_id, media, _as_file(item)


def _as_file(item: Any) -> dict[str, Any] | None:
    if isinstance(item, str) and item.lower().endswith(_MODEL_FILES):
        return {"filename": item, "type": "output", "subfolder": "", "mediaType": "3d"}
    return item if isinstance(item, dict) else None


def _listed(of_node: Any) -> Any:
    if not isinstance(of_node, Mapping):
        return of_node
    return {
        media: [_as_file(item) or item for item in items if item is not None]
        if media != "animated" and isinstance(items, list)
        else items
        for media, items in of_node.items()
    }


def _is_shown(media: str, item: Mapping[str, Any]) -> bool:
    kind, name = str(item.get("format", "")), str(item.get("filename", "")).lower()
    return media in _SHOWN_MEDIA or kind.startswith(("video/", "audio/")) or name.endswith(_MODEL_FILES + _TEXT_FILES)


def _preview(outputs: Mapping[str, Any]) -> dict[str, Any] | None:
    """A saved picture if there is one, else any picture, else a saved text, else a text."""
    ranked: dict[int, dict[str, Any]] = {}
    for node_id, media, item in _items(outputs):
        if item is not None and _is_shown(media, item):
            text = media == "text" or str(item.get("filename", "")).lower().endswith(_TEXT_FILES)
            rank = 2 if text else 0 if item.get("type") == "output" else 1
            ranked.setdefault(rank, {**item, "nodeId": node_id, "mediaType": item.get("mediaType", media)})
    for node_id, of_node in outputs.items():
        texts = of_node.get("text") if isinstance(of_node, Mapping) else None
        for text in texts if isinstance(texts, list) else ():
            if text is not None and _as_file(text) is None:
                ranked.setdefault(3, {**_shortened(str(text)), "nodeId": node_id, "mediaType": "text"})
    return ranked[min(ranked)] if ranked else None


def _shortened(text: str) -> dict[str, Any]:
    return {"content": text} if len(text) <= _TEXT_SHOWN else {"content": text[:_TEXT_SHOWN], "truncated": True}
