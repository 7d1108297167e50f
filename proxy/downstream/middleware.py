"""What ComfyUI does around each of its routes, done around ours; and errors as answers.

A route that is passed on is judged by ComfyUI itself. Where the proxy answers instead, it must neither open a door
that ComfyUI keeps shut nor shut one that it opens: by default ComfyUI refuses what foreign pages send (see `guard`),
and with `--enable-cors-header` it allows it and says so in headers (server.py, `create_cors_middleware`).
"""

import json
import logging
from collections.abc import Callable

from aiohttp import web
from aiohttp.typedefs import Handler

from proxy.core.flags import CORS_PATCH, UpstreamFlags
from proxy.downstream.answers import PassedResponse, abort
from proxy.downstream.guard import Judgement, host_name, is_loopback, judge
from proxy.errors import ComfykeepError

log = logging.getLogger(__name__)


def install_access_rules(
    app: web.Application, flags: Callable[[], UpstreamFlags], passed_on: Callable[[web.Request], bool]
) -> None:
    """Put the guard, or the CORS headers, around what the proxy answers itself.

    `flags` tells how the upstream was started; until that is known, the guard stands. `passed_on` tells which requests
    ComfyUI itself will judge. To be the outermost middleware.
    """

    @web.middleware
    async def judge_first(request: web.Request, handler: Handler) -> web.StreamResponse:
        if flags().cors_origin is None and not passed_on(request) and await _refused(request):
            log.warning(
                "refused %s %s: Host %r, Origin %r",
                request.method,
                request.path,
                request.headers.get("Host"),
                request.headers.get("Origin"),
            )
            return web.Response(status=403)
        return await handler(request)

    async def allow(_request: web.Request, response: web.StreamResponse) -> None:
        # as they begin: a long answer is on its way when its handler returns
        if not isinstance(response, PassedResponse | web.WebSocketResponse):
            response.headers.update(cors_headers(flags()))

    app.middlewares.insert(0, judge_first)
    app.on_response_prepare.append(allow)


def cors_headers(flags: UpstreamFlags) -> dict[str, str]:
    """What ComfyUI adds to every answer under `--enable-cors-header`; nothing without it."""
    if flags.cors_origin is None:
        return {}
    patch = ", PATCH" if flags.version >= CORS_PATCH else ""
    return {
        "Access-Control-Allow-Origin": flags.cors_origin,
        "Access-Control-Allow-Methods": "POST, GET, DELETE, PUT, OPTIONS" + patch,
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
