"""The proxy's own routes, all under `/comfykeep/`: what it does, and the switch that takes it out of the picture."""

import json
from typing import Any

from aiohttp import web

from proxy.core.mode import Mode
from proxy.engine import Engine
from proxy.engine.instance import INSTANCE
from proxy.errors import DownstreamError


class Control:
    """Handlers for people and their tools."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def get_mode(self, _request: web.Request) -> web.StreamResponse:
        """`GET /comfykeep/mode`, what waits in the held queue whatever the mode is, and which comfykeep this is."""
        engine = self._engine
        return web.json_response(
            {
                "mode": engine.mode,
                "waiting_here": engine.waiting_here,
                "paused_by": engine.paused_by,
                "instance": INSTANCE,
            }
        )

    async def set_mode(self, request: web.Request) -> web.StreamResponse:
        """`PUT /comfykeep/mode` with `{"mode": "observe" | "pins" | "full"}`; holds from the next prompt on.

        Raises:
            DownstreamError: when the body names no mode.
        """
        try:
            body: Any = json.loads(await request.text())
            mode = Mode(body["mode"])
        except (ValueError, TypeError, KeyError) as error:
            choices = ", ".join(f'"{mode.value}"' for mode in Mode)
            raise DownstreamError(
                "That is no mode", type="bad_mode", details=f'Send {{"mode": …}} with one of {choices}.'
            ) from error
        await self._engine.change_mode(mode)
        return await self.get_mode(request)

    async def prompt(self, request: web.Request) -> web.StreamResponse:
        """`GET /comfykeep/prompts/{prompt_id}`: what the client sent, what ComfyUI got, and each change with its rule.

        Raises:
            DownstreamError: 404 when the prompt is not known, not yet sent, or forgotten.
        """
        prompt_id = request.match_info["prompt_id"]
        record = self._engine.records.get(prompt_id)
        if record is None or record.archive is None:
            held = self._engine.held
            if held is not None and held.holding.get(prompt_id) is not None:
                raise DownstreamError(
                    f"Prompt {prompt_id} has not been sent to ComfyUI yet",
                    status=404,
                    type="not_sent",
                    details="What ComfyUI gets is made when it is sent. `comfykeep explain` says why it waits.",
                )
            raise DownstreamError(
                f"No prompt {prompt_id} is known here",
                status=404,
                type="unknown_prompt",
                details="Only prompts that came through this proxy since its start are, the last 1,000 that ended.",
            )
        return web.json_response(
            {
                "prompt_id": prompt_id,
                "handling": record.handling,
                "pins": [sorted(ref.label for ref in chain.models) for chain in record.pins],
                **record.archive.content(),
            }
        )
