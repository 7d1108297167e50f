"""Warm-ups are no client's prompts: clients see them only where `?comfykeep_warmups=1` asks for it."""

from collections.abc import Iterable, Mapping
from typing import Any

from aiohttp import web

from proxy.engine.recovery import WARMUP_KEY

_QUERY = "comfykeep_warmups"


def shows_warmups(request: web.Request) -> bool:
    """Whether a client asks for all there is."""
    return request.query.get(_QUERY) == "1"


def clients_queue(queue: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """`/queue` without warm-ups."""
    return {key: [item for item in items if WARMUP_KEY not in item[3]] for key, items in queue.items()}


def clients_history(history: Mapping[str, Any]) -> dict[str, Any]:
    """`/history` without warm-ups."""
    return {key: entry for key, entry in history.items() if WARMUP_KEY not in entry["prompt"][3]}


def clients_jobs(answer: dict[str, Any], hidden: Iterable[str]) -> dict[str, Any]:
    """`/api/jobs` without the jobs of these ids."""
    left_out = frozenset(hidden)
    jobs = [job for job in answer["jobs"] if job.get("id") not in left_out]
    pagination = dict(answer["pagination"])
    pagination["total"] -= len(answer["jobs"]) - len(jobs)
    return {**answer, "jobs": jobs, "pagination": pagination}
