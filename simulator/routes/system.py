"""The rest: the page, /system_stats, /features, what a page asks for at start (ComfyUI server.py and app/)."""

import os
import platform
import sys

from aiohttp import web

from simulator.process import Process

_PACKAGES = (("comfyui-frontend-package", "1.49.6"), ("comfyui-workflow-templates", "0.11.44"))


def routes(process: Process) -> list[web.RouteDef]:
    """Routes of this module."""
    web_root = process.machine.directories.web

    async def get_root(_: web.Request) -> web.FileResponse:
        headers = {"Cache-Control": "no-store, must-revalidate", "Pragma": "no-cache", "Expires": "0"}
        return web.FileResponse(web_root / "index.html", headers=headers)

    async def get_extensions(_: web.Request) -> web.Response:
        found = sorted((web_root / "extensions").rglob("*.js"))
        return web.json_response([f"/{path.relative_to(web_root).as_posix()}" for path in found])

    async def get_stats(_: web.Request) -> web.Response:
        return web.json_response(stats(process))

    async def get_features(_: web.Request) -> web.Response:
        return web.json_response(process.features)

    async def get_nothing(_: web.Request) -> web.Response:
        return web.json_response({})

    async def get_no_subgraph(_: web.Request) -> web.Response:
        return web.json_response(None)

    async def get_assets(_: web.Request) -> web.Response:
        text = "Assets system is disabled. Start the server with --enable-assets to use this feature."
        return web.json_response({"error": {"code": "SERVICE_DISABLED", "message": text, "details": {}}}, status=503)

    empty = ("/i18n", "/workflow_templates", "/node_replacements", "/global_subgraphs")
    return [
        web.get("/", get_root),
        web.get("/extensions", get_extensions),
        web.get("/system_stats", get_stats),
        web.get("/features", get_features),
        *(web.get(path, get_nothing) for path in empty),
        web.get("/global_subgraphs/{id}", get_no_subgraph),
        web.get("/api/assets", get_assets),
        web.get("/api/tags", get_assets),
    ]


def stats(process: Process) -> dict[str, object]:
    """The answer of /system_stats: the simulated machine's memories, this Python."""
    machine = process.machine
    memory = machine.memory
    system = {
        "os": sys.platform,
        "ram_total": memory.ram_total,
        "ram_free": memory.ram_free,
        "comfyui_version": machine.config.version,
        "required_frontend_version": "1.49.6",
        "installed_templates_version": "0.11.44",
        "required_templates_version": "0.11.44",
        "comfy_package_versions": [
            {"name": name, "installed": version, "required": version} for name, version in _PACKAGES
        ],
        "python_version": sys.version,
        "pytorch_version": "2.9.0+cu129",
        "embedded_python": False,
        "deploy_environment": "local-git",
        "argv": machine.config.argv(process.port),
    }
    device = {
        "name": f"cuda:0 Simulated {platform.machine()} GPU : cudaMallocAsync",
        "type": "cuda",
        "index": 0,
        "vram_total": memory.vram_total,
        "vram_free": memory.vram_free,
        "torch_vram_total": memory.vram_total - memory.vram_free,
        "torch_vram_free": 0,
    }
    return {"system": system, "devices": [device]}


def internal(process: Process) -> web.Application:
    """The /internal application (ComfyUI api_server/routes/internal)."""
    machine = process.machine

    async def get_folder_paths(_: web.Request) -> web.Response:
        root = machine.directories.root / "models"
        return web.json_response({folder: [str(root / folder)] for folder in machine.folders()})

    async def get_files(request: web.Request) -> web.Response:
        kind = request.match_info["directory_type"]
        folder = machine.directories.by_type(kind)
        if folder is None:
            return web.json_response({"error": "Invalid directory type"}, status=400)
        files = [entry for entry in os.scandir(folder) if entry.is_file() and not entry.name.startswith(".")]
        files.sort(key=lambda entry: -entry.stat().st_mtime)
        return web.json_response([f"{entry.name} [{kind}]" for entry in files])

    async def get_logs(_: web.Request) -> web.Response:
        return web.json_response("")

    app = web.Application()
    app.add_routes(
        [
            web.get("/folder_paths", get_folder_paths),
            web.get("/files/{directory_type}", get_files),
            web.get("/logs", get_logs),
        ]
    )
    return app
