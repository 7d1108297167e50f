"""Submitting: /prompt, and the socket (ComfyUI server.py)."""

import time
import uuid
from typing import Any

from aiohttp import web

from simulator.jobs import check_job_id
from simulator.process import Process
from simulator.validation import validate_prompt

_SENSITIVE = ("auth_token_comfy_org", "api_key_comfy_org")


def routes(process: Process) -> list[web.RouteDef]:
    """Routes of this module."""

    async def get_prompt(_: web.Request) -> web.Response:
        return web.json_response(process.queue_info())

    async def post_prompt(request: web.Request) -> web.Response:
        return submit(process, await request.json(), request.headers.get("Comfy-Usage-Source"))

    return [
        web.get("/ws", process.sockets.handle),
        web.get("/prompt", get_prompt),
        web.post("/prompt", post_prompt),
    ]


def submit(process: Process, body: Any, usage_source: str | None) -> web.Response:
    """Answer a submission. Whatever it raises is a 500, as it is in ComfyUI."""
    number = _number(process, body)
    if "prompt" not in body:
        return _refusal("no_prompt", "No prompt provided", "No prompt provided")
    prompt_id = body.get("prompt_id")
    if prompt_id is None:
        prompt_id = str(uuid.uuid4())
    try:
        check_job_id(prompt_id)
    except ValueError:
        details = (
            "prompt_id must be a UUID string in canonical lowercase hyphenated form; omit it to let the server "
            "generate one"
        )
        return _refusal("invalid_prompt_id", "prompt_id must be a valid UUID", details)
    prompt = body["prompt"]
    _check_shape(prompt)
    verdict = validate_prompt(prompt, body.get("partial_execution_targets"), process.classes, process.machine)
    extra_data = body.get("extra_data", {})
    if "client_id" in body:
        extra_data["client_id"] = body["client_id"]
    if "comfy_usage_source" not in extra_data and usage_source:
        extra_data["comfy_usage_source"] = usage_source
    if verdict.error is not None:
        return web.json_response({"error": verdict.error, "node_errors": verdict.node_errors}, status=400)
    sensitive = {key: extra_data.pop(key) for key in _SENSITIVE if key in extra_data}
    extra_data["create_time"] = int(time.time() * 1000)
    process.queue.put((number, prompt_id, prompt, extra_data, verdict.outputs, sensitive))
    return web.json_response({"prompt_id": prompt_id, "number": number, "node_errors": verdict.node_errors})


def _number(process: Process, body: Any) -> float:
    if "number" in body:
        return float(body["number"])
    number = process.numbers
    if "front" in body and body["front"]:  # noqa: RUF019  # a list has no get, and is no error
        number = -number
    process.numbers += 1
    return number


def _check_shape(prompt: Any) -> None:
    """Trip over what ComfyUI trips over before it validates (app/node_replace_manager.py)."""
    for node in prompt.values():
        if "class_type" in node and "inputs" in node:
            node["inputs"].items()


def _refusal(kind: str, message: str, details: str) -> web.Response:
    error = {"type": kind, "message": message, "details": details, "extra_info": {}}
    return web.json_response({"error": error, "node_errors": {}}, status=400)
