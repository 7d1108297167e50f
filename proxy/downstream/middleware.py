"""What ComfyUI does around each of its routes, done around ours; and errors as answers.

A route that is passed on is judged by ComfyUI itself. Where the proxy answers instead, it must neither open a door
that ComfyUI keeps shut nor shut one that it opens: by default ComfyUI refuses what foreign pages send (see `guard`),
and with `--enable-cors-header` it allows it and says so in headers (server.py, `create_cors_middleware`).
"""

import json
import logging
from collections.abc import Callable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from proxy.downstream.answers import abort
from proxy.downstream.guard import Judgement, host_name, is_loopback, judge
from proxy.errors import ComfykeepError

log = logging.getLogger(__name__)


def access_rules(cors_origin: Callable[[], str | None], passed_on: Callable[[web.Request], bool]) -> Middleware:
    """The guard, or the CORS headers, around every route that is not passed on.

    `cors_origin` tells what the upstream was given as `--enable-cors-header`, None where it has its guard (or is not
    known yet). `passed_on` tells which requests ComfyUI itself will judge.
    """

    @web.middleware
    async def apply(request: web.Request, handler: Handler) -> web.StreamResponse:
        allowed_origin = cors_origin()
        if allowed_origin is None and not passed_on(request) and await _refused(request):
            log.warning(
                "refused %s %s: Host %r, Origin %r",
                request.method,
                request.path,
                request.headers.get("Host"),
                request.headers.get("Origin"),
            )
            return web.Response(status=403)
        response = await handler(request)
        if allowed_origin is not None:
            response.headers.update(cors_headers(allowed_origin))
        return response

    return apply


def cors_headers(allowed_origin: str) -> dict[str, str]:
    """What ComfyUI adds to every answer under `--enable-cors-header`."""
    return {
        "Access-Control-Allow-Origin": allowed_origin,
        "Access-Control-Allow-Methods": "POST, GET, DELETE, PUT, OPTIONS, PATCH",
        "Access-Control-Allow-Headers": "Content-Type, Authorization",
        "Access-Control-Allow-Credentials": "true",
    }


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn what a handler raises into an answer in ComfyUI's shape. To be the innermost middleware."""
    try:
        return await handler(request)
    except ComfykeepError as error:
        log.info("%s %s: %s", request.method, request.path, error.message)
        answer = error
    except web.HTTPException:
        raise
    except Exception as error:
        if isinstance(error, ConnectionError) and (request.transport is None or request.transport.is_closing()):
            log.debug("the client of %s %s went away", request.method, request.path)
            return web.Response()
        log.exception("%s %s failed", request.method, request.path)
        answer = ComfykeepError("comfykeep failed to handle this request", details=f"{type(error).__name__}: {error}")
    if request.writer.output_size > 0:
        # the head of another answer is out already
        abort(request)
        return web.Response()
    return web.Response(
        status=answer.status,
        body=json.dumps(answer.body()).encode(),
        content_type="application/json",
        charset="utf-8",
        headers=answer.headers,
    )


async def _refused(request: web.Request) -> bool:
    match judge(request.headers):
        case Judgement.ALLOWED:
            return False
        case Judgement.REFUSED:
            return True
        case Judgement.REFUSED_ON_LOOPBACK:
            return await is_loopback(host_name(request.headers))
