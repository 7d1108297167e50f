"""The /api/jobs view of queue and history (ComfyUI comfy_execution/jobs.py)."""

import uuid
from collections.abc import Iterable
from typing import Any

STATUSES = ("pending", "in_progress", "completed", "failed", "cancelled")
_PAST = frozenset(("completed", "failed", "cancelled"))

_PREVIEWABLE = frozenset(("images", "video", "audio", "3d", "text"))
_MODEL_FILES = (".obj", ".fbx", ".gltf", ".glb", ".usdz")
_TEXT_FILES = (".txt", ".md", ".json")
_LONGEST_TEXT = 1024

Job = dict[str, Any]


def check_job_id(value: Any) -> str:
    """The id itself. Raises ValueError where it is no UUID in canonical lowercase form."""
    if not isinstance(value, str):
        raise ValueError(f"job id must be a string, got {type(value).__name__}")  # noqa: TRY004  # as ComfyUI
    if str(uuid.UUID(value)) != value:
        raise ValueError("job id must be a UUID in canonical lowercase hyphenated form")
    return value


def _pruned(job: Job) -> Job:
    return {key: value for key, value in job.items() if value is not None}


def _metadata(extra_data: dict[str, Any]) -> tuple[Any, Any]:
    """Creation time and workflow id; raises AttributeError for an `extra_pnginfo` that is null, as ComfyUI does."""
    return extra_data.get("create_time"), extra_data.get("extra_pnginfo", {}).get("workflow", {}).get("id")


def queued_job(item: tuple[Any, ...], status: str) -> Job:
    """The job of a queue entry."""
    number, prompt_id, _, extra_data, *_ = item
    created, workflow_id = _metadata(extra_data)
    return _pruned(
        {
            "id": prompt_id,
            "status": status,
            "priority": number,
            "create_time": created,
            "outputs_count": 0,
            "previewable_outputs_count": 0,
            "workflow_id": workflow_id,
        }
    )


def past_job(prompt_id: str, entry: dict[str, Any], *, full: bool = False) -> Job:
    """The job of a history entry; `full` adds outputs and workflow."""
    number, _, prompt, extra_data, _ = entry["prompt"]
    created, workflow_id = _metadata(extra_data)
    status = entry.get("status") or {}
    times: dict[str, Any] = {}
    error: Any = None
    interrupted = False
    for event, data in status.get("messages", []):
        if event == "execution_start":
            times["execution_start_time"] = data.get("timestamp")
        elif event in {"execution_success", "execution_error", "execution_interrupted"}:
            times["execution_end_time"] = data.get("timestamp")
            error = data if event == "execution_error" else error
            interrupted = interrupted or event == "execution_interrupted"
    outcome = "completed"
    if status.get("status_str") == "error":
        outcome = "cancelled" if interrupted else "failed"
    outputs = entry.get("outputs", {})
    count, preview = _summary(outputs)
    job = _pruned(
        {
            "id": prompt_id,
            "status": outcome,
            "priority": number,
            "create_time": created,
            "execution_start_time": times.get("execution_start_time"),
            "execution_end_time": times.get("execution_end_time"),
            "execution_error": error,
            "outputs_count": count,
            "previewable_outputs_count": sum(_previewable(kind, item) for _, kind, item in _items(outputs)),
            "preview_output": preview,
            "workflow_id": workflow_id,
        }
    )
    if full:
        job["outputs"] = _normalized(outputs)
        job["execution_status"] = entry.get("status")
        job["workflow"] = {"prompt": prompt, "extra_data": extra_data}
    return job


def all_jobs(  # the route's own parameters
    running: Iterable[tuple[Any, ...]],
    pending: Iterable[tuple[Any, ...]],
    history: dict[str, Any],
    *,
    statuses: list[str] | None = None,
    workflow_id: str | None = None,
    sort_by: str = "created_at",
    descending: bool = True,
) -> list[Job]:
    """All jobs, filtered and sorted."""
    wanted = STATUSES if statuses is None else statuses
    jobs: list[Job] = []
    if "in_progress" in wanted:
        jobs += [queued_job(item, "in_progress") for item in running]
    if "pending" in wanted:
        jobs += [queued_job(item, "pending") for item in pending]
    if _PAST & set(wanted):
        past = (past_job(prompt_id, entry) for prompt_id, entry in history.items())
        jobs += [job for job in past if job["status"] in wanted]
    if workflow_id:
        jobs = [job for job in jobs if job.get("workflow_id") == workflow_id]
    return sorted(jobs, key=_duration if sort_by == "execution_duration" else _created, reverse=descending)


def _created(job: Job) -> Any:
    return job.get("create_time", 0)


def _duration(job: Job) -> Any:
    start, end = job.get("execution_start_time", 0), job.get("execution_end_time", 0)
    return end - start if end and start else 0


def _items(outputs: dict[str, Any]) -> Iterable[tuple[str, str, dict[str, Any]]]:
    """Output items that are files: node, kind of media, item."""
    for node_id, kinds in outputs.items():
        for kind, items in kinds.items() if isinstance(kinds, dict) else ():
            for item in items if kind != "animated" and isinstance(items, list) else ():
                found = _as_file(item)
                if found is not None:
                    yield node_id, kind, found


def _as_file(item: Any) -> dict[str, Any] | None:
    if isinstance(item, dict):
        return item
    if isinstance(item, str) and item.lower().endswith(_MODEL_FILES):
        return {"filename": item, "type": "output", "subfolder": "", "mediaType": "3d"}
    return None


def _previewable(kind: str, item: dict[str, Any]) -> bool:
    if kind in _PREVIEWABLE:
        return True
    if (item.get("format") or "").startswith(("video/", "audio/")):
        return True
    name: str = item.get("filename", "").lower()
    return name.endswith((*_MODEL_FILES, *_TEXT_FILES))


def _is_text(kind: str, item: dict[str, Any]) -> bool:
    return kind == "text" or item.get("filename", "").lower().endswith(_TEXT_FILES)


def _summary(outputs: dict[str, Any]) -> tuple[int, Job | None]:
    """How many files there are, and the one to show: a saved picture, any picture, a text file, a text."""
    count = 0
    ranked: dict[int, Job] = {}
    for node_id, kind, item in _items(outputs):
        count += 1
        if not _previewable(kind, item):
            continue
        rank = 2 if _is_text(kind, item) else 0 if item.get("type") == "output" else 1
        ranked.setdefault(rank, {**item, "nodeId": node_id, "mediaType": item.get("mediaType", kind)})
    text = _first_text(outputs)
    if text is not None:
        ranked.setdefault(3, text)
    return count, ranked[min(ranked)] if ranked else None


def _first_text(outputs: dict[str, Any]) -> Job | None:
    for node_id, kinds in outputs.items():
        items = kinds.get("text") if isinstance(kinds, dict) else None
        for item in items if isinstance(items, list) else ():
            if isinstance(item, dict) or _as_file(item) is not None:
                continue
            text = str(item)
            cut: Job = {"truncated": True} if len(text) > _LONGEST_TEXT else {}
            return {"content": text[:_LONGEST_TEXT], **cut, "nodeId": node_id, "mediaType": "text"}
    return None


def _normalized(outputs: dict[str, Any]) -> dict[str, Any]:
    return {
        node_id: {kind: _normalized_items(kind, items) for kind, items in kinds.items()}
        if isinstance(kinds, dict)
        else kinds
        for node_id, kinds in outputs.items()
    }


def _normalized_items(kind: str, items: Any) -> Any:
    if kind == "animated" or not isinstance(items, list):
        return items
    return [item if (found := _as_file(item)) is None else found for item in items if item is not None]
