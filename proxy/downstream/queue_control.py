"""`/comfykeep/queue…`: the held queue for its operator."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from aiohttp import web

from proxy.engine import Engine
from proxy.engine.operating import Operations, Row
from proxy.errors import DownstreamError

_LISTED = 100
"""Waiting prompts that are listed unless more are asked for."""


class QueueControl:
    """Handlers for people and their tools. All raise DownstreamError 409 while the queue is not held here."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def show(self, request: web.Request) -> web.StreamResponse:
        """`GET /comfykeep/queue[?limit=100]`: what runs, is staged and waits, in the order in which it will run.

        Raises:
            DownstreamError: 400 for a limit that is no number.
        """
        operations = self._operations
        listing = operations.listing(_limit(request))
        return web.json_response(
            {
                "paused_by": operations.paused_by,
                "upstream_up": self._engine.feed.up,
                "reconciled": operations.reconciled,
                "foreign": operations.foreign,
                "running": [_shown(row) for row in listing.running],
                "staged": [_shown(row) for row in listing.staged],
                "waiting": [_shown(row) for row in listing.waiting],
                "waiting_total": listing.waiting_total,
            }
        )

    async def pause(self, _request: web.Request) -> web.StreamResponse:
        """`POST /comfykeep/queue/pause`: what runs finishes, nothing more is sent; submissions are still taken."""
        self._operations.pause()
        return web.json_response({"paused_by": self._operations.paused_by})

    async def resume(self, _request: web.Request) -> web.StreamResponse:
        """`POST /comfykeep/queue/resume`."""
        self._operations.resume()
        return web.json_response({"paused_by": self._operations.paused_by})

    async def front(self, request: web.Request) -> web.StreamResponse:
        """`POST /comfykeep/queue/front` with `{"prompt_id": id}`.

        Raises:
            DownstreamError: 404 for a prompt that is not in the queue, 409 for one that runs.
        """
        prompt_id = await _prompt_id(request)
        self._operations.move_to_front(prompt_id)
        return web.json_response({"prompt_id": prompt_id})

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        """`POST /comfykeep/queue/cancel` with `{"prompt_id": id}`; a running prompt is interrupted.

        Raises:
            DownstreamError: 404 for a prompt that is not in the queue.
        """
        prompt_id = await _prompt_id(request)
        self._operations.cancel(prompt_id)
        return web.json_response({"prompt_id": prompt_id})

    async def story(self, request: web.Request) -> web.StreamResponse:
        """`GET /comfykeep/prompts/{prompt_id}/story`: why it waits, or when and why what happened to it.

        Raises:
            DownstreamError: 404 for a prompt that is not known here.
        """
        prompt_id = request.match_info["prompt_id"]
        passages = await self._operations.story(prompt_id)
        return web.json_response({"prompt_id": prompt_id, "story": [asdict(passage) for passage in passages]})

    @property
    def _operations(self) -> Operations:
        if self._engine.held is None:
            raise DownstreamError(
                f"comfykeep does not hold the queue in mode {self._engine.mode}",
                status=409,
                type="queue_not_held",
                details="ComfyUI holds it itself: see GET /queue. `comfykeep mode full` holds it here.",
            )
        return self._engine.held.operations


def _shown(row: Row) -> Mapping[str, Any]:
    return {
        "prompt_id": row.prompt_id,
        "state": row.state,
        "priority": row.priority,
        "client": row.client,
        "models": sorted(ref.label for ref in row.models),
        "submitted": row.submitted,
        "expected_start": row.start,
        "expected_end": row.end,
    }


def _limit(request: web.Request) -> int:
    given = request.query.get("limit", str(_LISTED))
    if not given.isdecimal():
        raise DownstreamError("The limit is no number", type="bad_limit", details="Send ?limit=100, for example.")
    return int(given)


async def _prompt_id(request: web.Request) -> str:
    try:
        prompt_id = json.loads(await request.text())["prompt_id"]
    except (ValueError, TypeError, KeyError) as error:
        raise _no_prompt_id() from error
    if not isinstance(prompt_id, str):
        raise _no_prompt_id()
    return prompt_id


def _no_prompt_id() -> DownstreamError:
    return DownstreamError("The body names no prompt", type="bad_body", details='Send {"prompt_id": "…"}.')
