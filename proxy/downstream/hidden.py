"""What ComfyUI knows of and clients are not to see.

Warm-ups are no client's prompts: they are shown only where `?comfykeep_warmups=1` asks for it. And a run that failed is
not shown while its prompt is run again.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from aiohttp import web

from proxy.engine.recovery import WARMUP_KEY

_FAILED = "failed"
_QUERY = "comfykeep_warmups"


def shows_warmups(request: web.Request) -> bool:
    """Whether a client asks for all there is."""
    return request.query.get(_QUERY) == "1"


def clients_queue(queue: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """`/queue` without warm-ups."""
    return {key: [item for item in items if WARMUP_KEY not in item[3]] for key, items in queue.items()}


def clients_history(history: Mapping[str, Any], rerunning: Collection[str]) -> dict[str, Any]:
    """`/history` without warm-ups, and without the prompts that are being run again."""
    return {
        key: entry for key, entry in history.items() if WARMUP_KEY not in entry["prompt"][3] and key not in rerunning
    }


def clients_jobs(answer: dict[str, Any], hidden: Iterable[str], rerunning: Collection[str]) -> dict[str, Any]:
    """`/api/jobs` without the jobs of these ids, and without failed ones of those that are being run again."""
    left_out = frozenset(hidden)
    jobs = [
        job
        for job in answer["jobs"]
        if job.get("id") not in left_out and not (job.get("id") in rerunning and job.get("status") == _FAILED)
    ]
    pagination = dict(answer["pagination"])
    pagination["total"] -= len(answer["jobs"]) - len(jobs)
    return {**answer, "jobs": jobs, "pagination": pagination}


def clients_job(job: dict[str, Any], rerunning: Collection[str]) -> dict[str, Any]:
    """`/api/jobs/{id}`, where a prompt whose first run failed waits for its second."""
    if job.get("id") not in rerunning or job.get("status") != _FAILED:
        return job
    return {key: value for key, value in job.items() if not key.startswith("execution_")} | {"status": "pending"}
