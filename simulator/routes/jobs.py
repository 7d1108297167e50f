"""The unified view: /api/jobs (ComfyUI server.py)."""

import json
from typing import Any

from aiohttp import web

from simulator.jobs import STATUSES, all_jobs, check_job_id, past_job, queued_job
from simulator.process import Process


def _refused(text: str, **more: Any) -> web.Response:
    return web.json_response({"error": text, **more}, status=400)


def routes(process: Process) -> list[web.RouteDef]:
    """Routes of this module."""

    async def get_jobs(request: web.Request) -> web.Response:
        return _list(process, dict(request.rel_url.query))

    async def get_job(request: web.Request) -> web.Response:
        job = _find(process, request.match_info["job_id"])
        if job is None:
            return web.json_response({"error": "Job not found"}, status=404)
        return web.json_response(job)

    async def cancel_one(request: web.Request) -> web.Response:
        return web.json_response({"cancelled": _cancel(process, request.match_info["job_id"])})

    async def cancel_many(request: web.Request) -> web.Response:
        try:
            body = await request.json()
        except json.JSONDecodeError:
            return _refused("Request body must be valid JSON")
        job_ids = body.get("job_ids") if isinstance(body, dict) else None
        if not isinstance(job_ids, list):
            return _refused("job_ids must be a list")
        invalid = [job_id if isinstance(job_id, str) else repr(job_id) for job_id in job_ids if not _is_id(job_id)]
        if invalid:
            return _refused("job_ids contains invalid id(s)", invalid_ids=invalid)
        cancelled = [_cancel(process, job_id) for job_id in job_ids]
        return web.json_response({"cancelled": any(cancelled)})

    return [
        web.get("/api/jobs", get_jobs),
        web.get("/api/jobs/{job_id}", get_job),
        web.post("/api/jobs/{job_id}/cancel", cancel_one),
        web.post("/api/jobs/cancel", cancel_many),
    ]


def _is_id(value: Any) -> bool:
    try:
        check_job_id(value)
    except (ValueError, AttributeError):
        return False
    return True


def _cancel(process: Process, job_id: str) -> bool:
    return process.queue.interrupt_if_running(job_id) or process.queue.delete(job_id)


def _find(process: Process, job_id: str) -> dict[str, Any] | None:
    queue = process.queue
    if job_id in queue.history:
        return past_job(job_id, queue.history[job_id], full=True)
    for status, items in (("in_progress", queue.running.values()), ("pending", queue.pending)):
        for item in items:
            if item[1] == job_id:
                return queued_job(item, status)
    return None


class _BadQueryError(ValueError):
    """A query parameter is wrong; the text is ComfyUI's."""


def _list(process: Process, query: dict[str, str]) -> web.Response:
    try:
        statuses = _statuses(query)
        sort_by = _one_of(query, "sort_by", ("created_at", "execution_duration"))
        sort_order = _one_of(query, "sort_order", ("desc", "asc"))
        limit = _limit(query)
        offset = max(0, _integer(query.get("offset", "0"), "offset"))
    except _BadQueryError as error:
        return _refused(str(error))
    queue = process.queue
    jobs = all_jobs(
        queue.running.values(),
        queue.pending,
        queue.history,
        statuses=statuses,
        workflow_id=query.get("workflow_id"),
        sort_by=sort_by,
        descending=sort_order == "desc",
    )
    page = jobs[offset:] if limit is None else jobs[offset : offset + limit]
    more = offset + len(page) < len(jobs)
    pagination = {"offset": offset, "limit": limit, "total": len(jobs), "has_more": more}
    return web.json_response({"jobs": page, "pagination": pagination})


def _statuses(query: dict[str, str]) -> list[str] | None:
    if not query.get("status"):
        return None
    statuses = [part.strip().lower() for part in query["status"].split(",") if part.strip()]
    unknown = [status for status in statuses if status not in STATUSES]
    if unknown:
        valid = ", ".join(STATUSES)
        raise _BadQueryError(f"Invalid status value(s): {', '.join(unknown)}. Valid values: {valid}")
    return statuses


def _one_of(query: dict[str, str], name: str, values: tuple[str, str]) -> str:
    """The parameter's value, by default the first."""
    value = query.get(name, values[0]).lower()
    if value not in values:
        first, second = sorted(values)
        raise _BadQueryError(f"{name} must be '{first}' or '{second}'")
    return value


def _integer(text: str, name: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise _BadQueryError(f"{name} must be an integer") from None


def _limit(query: dict[str, str]) -> int | None:
    if "limit" not in query:
        return None
    limit = _integer(query["limit"], "limit")
    if limit <= 0:
        raise _BadQueryError("limit must be a positive integer")
    return limit
