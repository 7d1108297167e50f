"""Warm-ups by hand and on show, and whether this proxy is ready to be given clients."""

import asyncio
import json
from dataclasses import asdict
from typing import Any

from aiohttp import web

from proxy.core.mode import Mode
from proxy.engine import Engine
from proxy.errors import DownstreamError, ShuttingDown
from warmup import Depth, WarmupService


def add_warmup_routes(app: web.Application, engine: Engine, service: WarmupService) -> None:
    """Add the routes to `app`."""
    routes = WarmupRoutes(engine, service)
    app.router.add_get("/comfykeep/warmup", routes.show)
    app.router.add_post("/comfykeep/warmup", routes.warm)
    app.router.add_get("/comfykeep/ready", routes.ready)


class WarmupRoutes:
    """Handlers for people and their tools."""

    def __init__(self, engine: Engine, service: WarmupService) -> None:
        self._engine = engine
        self._service = service

    async def show(self, _request: web.Request) -> web.StreamResponse:
        """`GET /comfykeep/warmup`: the schedule, how each entry stands and how it last went."""
        report = self._service.report()
        return web.json_response(
            {
                "schedule": None if report.path is None else str(report.path),
                "mode": self._engine.mode,
                "entries": [asdict(row) for row in report.rows],
                "faults": [str(fault) for fault in report.faults],
                "rejected": [str(fault) for fault in report.rejected],
            }
        )

    async def warm(self, request: web.Request) -> web.StreamResponse:
        """`POST /comfykeep/warmup` with `{"name": entry}` or `{"model": file}`, and `"to"`; answers at the end.

        Raises:
            DownstreamError: 400 for a body that says neither, 404 for an unknown entry, 409 in the mode `observe`.
            ShuttingDown: the proxy stops before it has ended.
        """
        name, model, depth = _read(await request.text())
        if self._engine.mode is Mode.OBSERVE:
            raise DownstreamError(
                "In the mode observe nothing is warmed up",
                status=409,
                type="observing",
                details="Change it with `comfykeep mode pins`.",
            )
        work = self._service.warm(name, depth) if name else self._service.warm_file(model, depth or Depth.VRAM)
        try:
            outcome = await work
        except KeyError as error:
            raise self._unknown(name) from error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise  # the client has left
            raise ShuttingDown from error
        return web.json_response({"name": name or model, **asdict(outcome)})

    async def ready(self, _request: web.Request) -> web.StreamResponse:
        """`GET /comfykeep/ready`: 200 when clients are served as they should be, else 503 with the reason."""
        reason = self._unready()
        return web.json_response({"ready": reason is None, "reason": reason or ""}, status=503 if reason else 200)

    def _unready(self) -> str | None:
        if not self._engine.feed.up:
            return f"ComfyUI at {self._engine.upstream.client.base_url} does not answer"
        if not self._service.ready():
            return "models are being warmed up for the ComfyUI that has just started"
        return None

    def _unknown(self, name: str) -> DownstreamError:
        report = self._service.report()
        out = [row.reason for row in report.rows if row.name == name]
        known = ", ".join(self._service.schedule.definitions) or "none"
        return DownstreamError(
            f"There is no warm-up {name!r}" if not out else f"The warm-up {name!r} is out",
            status=404,
            type="unknown_warmup",
            details=out[0] if out else f"Those of the schedule: {known}. A model file goes under model, or --model.",
        )


def _read(text: str) -> tuple[str, str, Depth | None]:
    try:
        body: Any = json.loads(text)
        name, model = body.get("name") or "", body.get("model") or ""
        depth = None if body.get("to") is None else Depth(body["to"])
    except (ValueError, AttributeError) as error:
        raise _bad_body() from error
    if not isinstance(name, str) or not isinstance(model, str) or bool(name) == bool(model):
        raise _bad_body()
    return name, model, depth


def _bad_body() -> DownstreamError:
    return DownstreamError(
        "That is no order for a warm-up",
        type="bad_warmup",
        details='Send {"name": "an entry"} or {"model": "a file"}, and perhaps "to": "ram" or "vram".',
    )
