"""Model files: /models, /embeddings, /experiment/models (ComfyUI server.py, app/model_manager.py)."""

import time
from pathlib import PurePosixPath

from aiohttp import web

from simulator.machine import Machine
from simulator.process import Process

_EXTENSIONS = [".bin", ".ckpt", ".pkl", ".pt", ".pt2", ".pth", ".safetensors", ".sft"]
_NO_MODELS = ("configs", "custom_nodes")


def routes(process: Process) -> list[web.RouteDef]:
    """Routes of this module."""
    machine = process.machine
    installed = time.time()

    async def get_embeddings(_: web.Request) -> web.Response:
        return web.json_response([str(PurePosixPath(name).with_suffix("")) for name in machine.files("embeddings")])

    async def get_folders(_: web.Request) -> web.Response:
        return web.json_response(machine.folders())

    async def get_files(request: web.Request) -> web.Response:
        folder = request.match_info["folder"]
        if folder not in machine.folders():
            return web.Response(status=404)
        return web.json_response(list(machine.files(folder)))

    async def get_folder_details(_: web.Request) -> web.Response:
        folders = [folder for folder in machine.folders() if folder not in _NO_MODELS]
        root = machine.directories.root / "models"
        details = [{"name": name, "folders": [str(root / name)], "extensions": _EXTENSIONS} for name in folders]
        return web.json_response(details)

    async def get_file_details(request: web.Request) -> web.Response:
        folder = request.match_info["folder"]
        if folder not in machine.folders():
            return web.Response(status=404)
        details = [
            {"name": name, "pathIndex": 0, "modified": installed, "created": installed, "size": size}
            for name, size in machine.files(folder).items()
        ]
        return web.json_response(details)

    async def get_preview(request: web.Request) -> web.Response:
        return web.Response(status=_preview_status(machine, **request.match_info))

    async def get_metadata(_: web.Request) -> web.Response:
        return web.Response(status=404)

    return [
        web.get("/embeddings", get_embeddings),
        web.get("/models", get_folders),
        web.get("/models/{folder}", get_files),
        web.get("/experiment/models", get_folder_details),
        web.get("/experiment/models/{folder}", get_file_details),
        web.get("/experiment/models/preview/{folder}/{path_index}/{filename:.*}", get_preview),
        web.get("/view_metadata/{folder_name}", get_metadata),
    ]


def _preview_status(machine: Machine, folder: str, path_index: str, filename: str) -> int:
    """Why there is no preview: no such folder, a path that is none, or no picture beside the model."""
    if folder not in machine.folders():
        return 404
    return 404 if filename and path_index.lstrip("-").isdecimal() else 400
