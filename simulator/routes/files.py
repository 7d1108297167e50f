"""Looking at images: /view (ComfyUI server.py)."""

import mimetypes
import os
from pathlib import Path

from aiohttp import web

from simulator import png
from simulator.process import Process
from simulator.stills import JPEG, WEBP

# ComfyUI folder_paths.py: what a browser may execute is never shown inline.
_DANGEROUS = frozenset(
    (
        "text/html", "text/html-sandboxed", "application/xhtml+xml", "text/javascript", "application/javascript",
        "application/x-javascript", "application/ecmascript", "text/css", "image/svg+xml", "application/xml",
        "text/xml", "message/rfc822",
    )
)  # fmt: skip


def routes(process: Process) -> list[web.RouteDef]:
    """Routes of this module."""

    async def get_view(request: web.Request) -> web.StreamResponse:
        found = locate(process, request)
        return found if isinstance(found, web.StreamResponse) else _show(request, found)

    return [web.get("/view", get_view)]


def locate(process: Process, request: web.Request) -> Path | web.Response:
    """The file that a request names, or why not."""
    query = request.rel_url.query
    directories = process.machine.directories
    if "filename" not in query:
        return web.Response(status=404)
    name, folder = directories.annotated(query["filename"])
    if not name or name[0] == "/" or ".." in name:
        return web.Response(status=400)
    if folder is None:
        folder = directories.by_type(query.get("type", "output"))
    if folder is None:
        return web.Response(status=400)
    if "subfolder" in query:
        inner = folder / query["subfolder"]
        if not Path(os.path.abspath(inner)).is_relative_to(folder):  # noqa: PTH100  # links stay as they are
            return web.Response(status=403)
        folder = inner
    path = folder / Path(name).name
    return path if path.is_file() else web.Response(status=404)


def _show(request: web.Request, path: Path) -> web.StreamResponse:
    query = request.rel_url.query
    plain = {"Content-Disposition": f'filename="{path.name}"'}
    if "preview" in query:
        wanted = query["preview"].split(";")[0]
        kind = wanted if wanted in {"webp", "jpeg"} and "a" not in query.get("channel", "") else "webp"
        body = JPEG if kind == "jpeg" else WEBP
        return web.Response(body=body, content_type=f"image/{kind}", headers=plain)
    if query.get("channel") == "rgb":
        return web.Response(body=path.read_bytes(), content_type="image/png", headers=plain)
    if query.get("channel") == "a":
        width, height = png.size(path.read_bytes()) or (1, 1)
        body = png.encode(width, height, (255, 255, 255))
        return web.Response(body=body, content_type="image/png", headers=plain)
    return _whole(request, path)


def _whole(request: web.Request, path: Path) -> web.FileResponse:
    content_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    escaped = path.name.replace("\\", "\\\\").replace('"', '\\"')
    disposition = f'filename="{escaped}"'
    headers = {"X-Content-Type-Options": "nosniff"}
    if is_dangerous(content_type):
        headers["Vary"] = "Sec-Fetch-Dest"
        headers["Cache-Control"] = "no-store"
        if not (request.headers.get("Sec-Fetch-Dest") == "image" and content_type == "image/svg+xml"):
            content_type = "application/octet-stream"
            disposition = f"attachment; {disposition}"
    headers["Content-Disposition"] = disposition
    headers["Content-Type"] = content_type
    return web.FileResponse(path, headers=headers)


def is_dangerous(content_type: str) -> bool:
    """Whether a browser may execute or render this inline (ComfyUI folder_paths.py)."""
    return content_type in _DANGEROUS or content_type.endswith(("+xml", "/xml"))
