import copy
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from proxy.core.budget import Machine
from proxy.core.flags import CacheMode
from proxy.core.readings import RamReading, ReadingFailed, VramReading
from proxy.errors import UpstreamError
from proxy.upstream.client import UpstreamClient
from proxy.upstream.stats import StatsReader, parse_stats

GB = 1024**3
ANSWER: dict[str, Any] = {
    "system": {
        "ram_total": 64 * GB,
        "ram_free": 40 * GB,
        "comfyui_version": "0.33.0",
        "pytorch_version": "2.9.0+cu128",
        "argv": ["main.py", "--cache-classic"],
        "comfy_package_versions": [{"name": "comfy-aimdo", "installed": "0.4.13", "required": "0.4.13"}],
    },
    "devices": [
        {"name": "cuda:0 NVIDIA X : native", "type": "cuda", "index": 0, "vram_total": 24 * GB, "vram_free": 20 * GB}
    ],
}


def test_an_answer_is_read() -> None:
    stats = parse_stats(ANSWER, None)
    assert (stats.version, stats.flags.cache, stats.device) == ("0.33.0", CacheMode.CLASSIC, "cuda:0 NVIDIA X : native")
    assert stats.flags.dynamic_vram
    assert stats.machine == Machine(64 * GB, 64 * GB, 24 * GB)
    assert stats.ram == RamReading(64 * GB, 40 * GB, 40 * GB)
    assert stats.vram == VramReading(24 * GB, 20 * GB)


@pytest.mark.parametrize(
    ("packages", "dynamic"),
    [([], False), ([{"name": "comfy-aimdo", "installed": None}], False), (None, True)],
)
def test_dynamic_vram_needs_its_package(packages: Any, dynamic: bool) -> None:
    answer = copy.deepcopy(ANSWER)
    if packages is None:
        del answer["system"]["comfy_package_versions"]
    else:
        answer["system"]["comfy_package_versions"] = packages
    assert parse_stats(answer, None).flags.dynamic_vram is dynamic


def test_a_configured_limit_is_kept() -> None:
    stats = parse_stats(ANSWER, 32 * GB)
    assert stats.machine == Machine(32 * GB, 64 * GB, 24 * GB)
    assert stats.ram == RamReading(32 * GB, 8 * GB, 40 * GB)
    assert parse_stats(ANSWER, 128 * GB).ram == parse_stats(ANSWER, None).ram


@pytest.mark.parametrize("kind", ["cpu", "mps"])
def test_memory_shared_with_the_processor_is_no_vram(kind: str) -> None:
    answer = copy.deepcopy(ANSWER)
    answer["devices"][0]["type"] = kind
    stats = parse_stats(answer, None)
    assert (stats.vram, stats.machine.vram) == (None, 0)


def test_an_old_version_says_little() -> None:
    stats = parse_stats({"system": {}}, None)
    assert (stats.version, stats.machine) == ("", Machine(0, 0, 0))


async def reader(answers: dict[str, Any]) -> tuple[TestServer, UpstreamClient]:
    async def answer(request: web.Request) -> web.Response:
        if request.path not in answers:
            return web.Response(status=404)
        return web.json_response(answers[request.path])

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    server = TestServer(app)
    await server.start_server()
    return server, UpstreamClient(str(server.make_url("")))


async def test_sizes_over_all_folders() -> None:
    server, client = await reader(
        {
            "/experiment/models": [{"name": "checkpoints"}, {"name": "loras"}],
            "/experiment/models/checkpoints": [{"name": "a.safetensors", "size": 10}],
            "/experiment/models/loras": [{"name": "a.safetensors", "size": 3}, {"name": "b.safetensors", "size": 4}],
        }
    )
    async with server, client:
        assert await StatsReader(client).read_sizes() == {"a.safetensors": 10, "b.safetensors": 4}


@pytest.mark.parametrize("answer", [None, [], {"system": None}, {"system": {"ram_total": "x"}}, {"system": 5}])
async def test_what_is_no_comfyui_is_an_upstream_error(answer: Any) -> None:
    server, client = await reader({"/system_stats": answer, "/experiment/models": answer or [1]})
    async with server, client:
        with pytest.raises(UpstreamError):
            await StatsReader(client).read()
        with pytest.raises(UpstreamError):
            await StatsReader(client).read_sizes()


async def test_readings() -> None:
    server, client = await reader({"/system_stats": ANSWER})
    async with server, client:
        assert await StatsReader(client).read_ram() == RamReading(64 * GB, 40 * GB, 40 * GB)
        assert await StatsReader(client).read_vram() == VramReading(24 * GB, 20 * GB)


async def test_without_a_gpu_there_is_no_vram_reading() -> None:
    answer = copy.deepcopy(ANSWER)
    answer["devices"][0]["type"] = "cpu"
    server, client = await reader({"/system_stats": answer})
    async with server, client:
        with pytest.raises(ReadingFailed):
            await StatsReader(client).read_vram()
