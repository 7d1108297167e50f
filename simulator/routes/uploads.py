"""Uploading images: /upload/image and /upload/mask (ComfyUI server.py)."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from aiohttp import web
from multidict import MultiDictProxy

from simulator.process import Process

Form = MultiDictProxy[Any]


def routes(process: Process) -> list[web.RouteDef]:
    """Routes of this module."""

    async def upload_image(request: web.Request) -> web.Response:
        return _store(process, await request.post())

    async def upload_mask(request: web.Request) -> web.Response:
        form = await request.post()
        return _store(process, form, original=json.loads(str(form.get("original_ref"))))

    return [web.post("/upload/image", upload_image), web.post("/upload/mask", upload_mask)]


def _store(process: Process, form: Form, original: Any = None) -> web.Response:
    """Store an upload. In place of a mask its original is stored, where ComfyUI would change that one's alpha."""
    image = form.get("image")
    kind = form.get("type")
    kind = "input" if kind is None else kind
    folder = process.machine.directories.by_type(kind)
    if folder is None:
        raise ValueError(f"unknown type {kind}")  # ComfyUI: UnboundLocalError, a 500 as well
    if not image:
        return web.Response(status=400)
    if not isinstance(image, web.FileField):
        raise TypeError("image is no file")  # ComfyUI: AttributeError, a 500 as well
    subfolder = str(form.get("subfolder", ""))
    target = folder / os.path.normpath(subfolder)
    path = Path(os.path.abspath(target / image.filename))  # noqa: PTH100  # links stay as they are
    if not path.is_relative_to(folder):
        return web.Response(status=400)
    target.mkdir(parents=True, exist_ok=True)
    data = image.file.read()
    name = image.filename
    if form.get("overwrite") not in {"true", "1"}:
        name = _free_name(target, name, data)
    if original is None:
        (target / name).write_bytes(data)
    elif (source := _original(process, original)).is_file():
        shutil.copyfile(source, target / name)
    return web.json_response({"name": name, "subfolder": subfolder, "type": kind})


def _original(process: Process, reference: dict[str, Any]) -> Path:
    directories = process.machine.directories
    name, folder = directories.annotated(reference["filename"])
    folder = folder or directories.by_type(reference.get("type", "output")) or directories.output
    return folder / str(reference.get("subfolder", "")) / name


def _free_name(folder: Path, name: str, data: bytes) -> str:
    """A name that is free, or that holds the same content already."""
    digest = hashlib.sha256(data).digest()
    stem, suffix = os.path.splitext(name)  # noqa: PTH122  # the name may have folders in it
    candidate = name
    index = 1
    while (folder / candidate).exists() and hashlib.sha256((folder / candidate).read_bytes()).digest() != digest:
        candidate = f"{stem} ({index}){suffix}"
        index += 1
    return candidate
