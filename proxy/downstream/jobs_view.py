"""`/api/jobs`: one list of what waits here, what is at ComfyUI, and what has ended, wherever that is remembered.

While nothing is held ComfyUI answers, restored. A ComfyUI without these routes (0.3.64) has none here either; while it
is away, what is known here is listed.
"""

import json
import logging
import uuid
from collections.abc import Container, Iterator
from typing import Any

from aiohttp import web

from proxy.core.jobs import RUNS, State
from proxy.downstream.answers import respond
from proxy.downstream.bodies import plain_body, post_on
from proxy.downstream.hidden import clients_jobs, shows_warmups
from proxy.downstream.jobs import Selection, finished_job, queued_job
from proxy.downstream.restored import Restored
from proxy.engine import Engine
from proxy.engine.holding import Holding
from proxy.errors import DownstreamError, UpstreamError
from proxy.upstream.client import Answer

log = logging.getLogger(__name__)

_NOT_THERE = frozenset({404, 405})
_COMFYUI_KNOWS = RUNS | {State.STAGED, State.CANCELLING, State.WITHDRAWING}
"""Of prompts in these states ComfyUI tells more, or that they are gone."""


class JobsView:
    """Handlers for `/api/jobs` and what is under it."""

    def __init__(self, engine: Engine, restored: Restored) -> None:
        self._engine = engine
        self._restored = restored

    async def page(self, request: web.Request) -> web.StreamResponse:
        """`GET /api/jobs`."""
        held, selection = self._engine.held, Selection.of(request.query)
        if held is None or selection is None:
            return await self._restored.jobs(request)
        theirs = {}
        try:
            answer = await self._engine.upstream.client.get(selection.question)
        except UpstreamError as error:
            log.debug("only the jobs that are known here are listed: %s", error)
        else:
            if not answer.ok:
                return await respond(request, answer)
            theirs = await self._theirs(held.holding, answer, warmups=shows_warmups(request))
        ours = list(_queued(held.holding, theirs))
        entries = await held.history.besides(theirs) if selection.finished else {}
        ended = [finished_job(key, entry, whole=False) for key, entry in entries.items()]
        return web.json_response(selection.page([*theirs.values(), *ours, *ended]))

    async def _theirs(self, holding: Holding, answer: Answer, *, warmups: bool) -> dict[str, Any]:
        """ComfyUI's jobs by id, restored, without what it is only to validate or what waits here again."""
        sent = {item.prompt_id for item in holding.at_comfyui()}
        hidden = frozenset[str]() if warmups else self._engine.warming.traces.hidden
        jobs = clients_jobs(answer.json(), hidden, self._engine.records.rerunning)["jobs"]
        listed = (job for job in jobs if job["id"] in sent or holding.get(job["id"]) is None)
        return {job["id"]: job for job in await self._restored.restore_jobs(list(listed))}

    async def one(self, request: web.Request) -> web.StreamResponse:
        """`GET /api/jobs/{job_id}`."""
        held, job_id = self._engine.held, request.match_info["job_id"]
        if held is not None:
            waiting, job = held.holding.get(job_id), held.holding.job(job_id)
            if waiting is not None and job is not None and job.answered and job.state not in _COMFYUI_KNOWS:
                return web.json_response(queued_job(waiting, job))
            entry = await held.history.entry(job_id)
            if entry is not None:
                return web.json_response(finished_job(job_id, entry, whole=True))
        return await self._restored.job(request)

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        """`POST /api/jobs/{job_id}/cancel`."""
        held, job_id = self._engine.held, request.match_info["job_id"]
        if held is None or held.holding.get(job_id) is None:
            return await respond(request, await post_on(request, self._engine.upstream.client))
        await held.holding.delete(job_id, interrupt=True)
        return web.json_response({"cancelled": True})

    async def cancel_several(self, request: web.Request) -> web.StreamResponse:
        """`POST /api/jobs/cancel` with `{"job_ids": [id]}`."""
        held = self._engine.held
        job_ids = await self._job_ids(request)
        if held is None or job_ids is None:
            return await respond(request, await post_on(request, self._engine.upstream.client))
        ours = [job_id for job_id in job_ids if held.holding.get(job_id) is not None]
        for job_id in ours:
            await held.holding.delete(job_id, interrupt=True)
        others = [job_id for job_id in job_ids if job_id not in ours]
        answer = await self._engine.upstream.client.post_json("/api/jobs/cancel", {"job_ids": others})
        if not answer.ok and not (ours and answer.status in _NOT_THERE):
            return await respond(request, answer)
        return web.json_response({"cancelled": bool(ours) or bool(answer.json()["cancelled"])})

    async def _job_ids(self, request: web.Request) -> list[str] | None:
        """The ids of a body that ComfyUI would accept; None for one that it refuses."""
        try:
            job_ids = json.loads(await plain_body(request, self._engine.body_limit))["job_ids"]
            if isinstance(job_ids, list) and all(str(uuid.UUID(job_id)) == job_id for job_id in job_ids):
                return job_ids
        except (ValueError, TypeError, KeyError, AttributeError, DownstreamError):
            return None
        return None


def _queued(holding: Holding, told: Container[str]) -> Iterator[dict[str, Any]]:
    """What waits here, and what was sent since ComfyUI told what it has: a prompt must be somewhere."""
    for held in (*holding.at_comfyui(), *holding.lookahead.waiting()):
        job = holding.job(held.prompt_id)
        if job is not None and job.answered and held.prompt_id not in told:
            yield queued_job(held, job)
