"""Files and settings of users: /userdata, /settings, /users (ComfyUI app/user_manager.py, app/app_settings.py)."""

import json
import mimetypes
import os
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from simulator.process import Process

from .files import is_dangerous

Answer = web.StreamResponse


def _inside(root: Path, name: str, *, make: bool = True) -> Path | None:
    """The path of a user's file, or None where it leads out of the user's folder."""
    if "%" in name:
        name = unquote(name)
    path = Path(os.path.abspath(root / name))  # noqa: PTH100  # links stay as they are
    if not path.is_relative_to(root):
        return None
    if make:
        path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _info(path: Path, root: Path) -> dict[str, Any]:
    stat = path.stat()
    return {
        "path": path.relative_to(root).as_posix(),
        "size": stat.st_size,
        "modified": int(stat.st_mtime * 1000),
        "created": int(stat.st_ctime * 1000),
    }


def _is_true(request: web.Request, name: str) -> bool:
    return request.rel_url.query.get(name, "").lower() == "true"


def _user_file(root: Path, request: web.Request, *, exists: bool = False, part: str = "file") -> Path | web.Response:
    name = request.match_info.get(part)
    if not name:
        return web.Response(status=400)
    path = _inside(root, name)
    if path is None:
        return web.Response(status=403)
    if exists and not path.exists():
        return web.Response(status=404)
    return path


def _stored(path: Path, root: Path, request: web.Request) -> web.Response:
    return web.json_response(_info(path, root) if _is_true(request, "full_info") else str(path.relative_to(root)))


def routes(process: Process) -> list[web.RouteDef]:
    """Routes of this module."""
    root = process.machine.directories.user / "default"

    async def get_users(_: web.Request) -> Answer:
        return web.json_response({"storage": "server", "migrated": root.exists()})

    async def list_files(request: web.Request) -> Answer:
        return _list(root, request)

    async def list_v2(request: web.Request) -> Answer:
        return _list_v2(root, request)

    async def get_file(request: web.Request) -> Answer:
        path = _user_file(root, request, exists=True)
        return path if isinstance(path, web.Response) else _send(root, path)

    async def post_file(request: web.Request) -> Answer:
        return _write(root, request, await request.read())

    async def delete_file(request: web.Request) -> Answer:
        path = _user_file(root, request, exists=True)
        if isinstance(path, web.Response):
            return path
        path.unlink()
        return web.Response(status=204)

    async def move_file(request: web.Request) -> Answer:
        return _move(root, request)

    return [
        web.get("/users", get_users),
        web.get("/userdata", list_files),
        web.get("/v2/userdata", list_v2),
        web.get("/userdata/{file}", get_file),
        web.post("/userdata/{file}", post_file),
        web.delete("/userdata/{file}", delete_file),
        web.post("/userdata/{file}/move/{dest}", move_file),
        *_settings_routes(root),
    ]


def _taken(request: web.Request, path: Path) -> bool:
    return request.query.get("overwrite", "true") == "false" and path.exists()


def _write(root: Path, request: web.Request, body: bytes) -> web.Response:
    path = _user_file(root, request)
    if isinstance(path, web.Response):
        return path
    if _taken(request, path):
        return web.Response(status=409, text="File already exists")
    try:
        path.write_bytes(body)
    except OSError:
        return web.Response(status=400, reason='Invalid filename. Please avoid special characters like :\\/*?"<>|')
    return _stored(path, root, request)


def _move(root: Path, request: web.Request) -> web.Response:
    source = _user_file(root, request, exists=True)
    if isinstance(source, web.Response):
        return source
    target = _user_file(root, request, part="dest")
    if isinstance(target, web.Response):
        return target
    if _taken(request, target):
        return web.Response(status=409, text="File already exists")
    shutil.move(source, target)
    return _stored(target, root, request)


def _list(root: Path, request: web.Request) -> web.Response:
    directory = request.rel_url.query.get("dir", "")
    if not directory:
        return web.Response(status=400, text="Directory not provided")
    path = _inside(root, directory)
    if path is None:
        return web.Response(status=403, text="Invalid directory")
    if not path.exists():
        return web.Response(status=404, text="Directory not found")
    files = [each for each in path.glob("**/*" if _is_true(request, "recurse") else "*") if each.is_file()]
    if _is_true(request, "full_info"):
        return web.json_response([_info(each, path) for each in files])
    names = [each.relative_to(path).as_posix() for each in files]
    if _is_true(request, "split"):
        return web.json_response([[name, *name.split("/")] for name in names])
    return web.json_response(names)


def _list_v2(root: Path, request: web.Request) -> web.Response:
    wanted = unquote(request.rel_url.query.get("path", ""))
    path = _inside(root, wanted, make=False) if wanted else root
    if path is None:
        return web.Response(status=400, text="Invalid path requested")
    if not path.exists():
        if path == root:
            return web.json_response([])
        return web.Response(status=404, text="Requested path not found")
    if not path.is_dir():
        return web.Response(status=400, text="Requested path is not a directory")
    entries: list[dict[str, Any]] = []
    for each in path.rglob("*"):
        entry: dict[str, Any] = {"name": each.name, "path": each.relative_to(root).as_posix(), "type": "directory"}
        if each.is_file():
            stat = each.stat()
            entry.update(type="file", size=stat.st_size, modified=stat.st_mtime)
        entries.append(entry)
    entries.sort(key=lambda entry: (entry["type"] != "directory", entry["name"].lower()))
    return web.json_response(entries)


def _send(root: Path, path: Path) -> web.FileResponse:
    content_type = mimetypes.guess_type(path)[0] or "application/octet-stream"
    disposition = "attachment"
    if path == root / "user.css":
        content_type, disposition = "text/css", "inline"
    elif is_dangerous(content_type):
        content_type = "application/octet-stream"
    headers = {
        "Content-Type": content_type,
        "X-Content-Type-Options": "nosniff",
        "Content-Disposition": disposition,
    }
    return web.FileResponse(path, headers=headers)


def _settings_routes(root: Path) -> list[web.RouteDef]:
    path = root / "comfy.settings.json"

    def load() -> dict[str, Any]:
        try:
            settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return settings

    def save(settings: dict[str, Any]) -> web.Response:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings, indent=4), encoding="utf-8")
        return web.Response(status=200)

    async def get_all(_: web.Request) -> web.Response:
        return web.json_response(load())

    async def get_one(request: web.Request) -> web.Response:
        return web.json_response(load().get(request.match_info["id"]))

    async def post_all(request: web.Request) -> web.Response:
        return save({**load(), **(await request.json())})

    async def post_one(request: web.Request) -> web.Response:
        return save({**load(), request.match_info["id"]: await request.json()})

    return [
        web.get("/settings", get_all),
        web.get("/settings/{id}", get_one),
        web.post("/settings", post_all),
        web.post("/settings/{id}", post_one),
    ]
