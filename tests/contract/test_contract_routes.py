"""Every family of routes: there with and without /api, with the status, type and shape that clients count on."""

from typing import Any

import pytest

from tests.contract.allowed import allowed
from tests.contract.client import Client
from tests.contract.targets import Target

JSON = "application/json; charset=utf-8"

READABLE = [
    "/system_stats",
    "/features",
    "/prompt",
    "/queue",
    "/history",
    "/embeddings",
    "/models",
    "/models/vae",
    "/experiment/models",
    "/experiment/models/vae",
    "/extensions",
    "/object_info/VAELoader",
    "/users",
    "/settings",
    "/workflow_templates",
    "/i18n",
]


@pytest.mark.parametrize("prefix", ["", "/api"])
@pytest.mark.parametrize("path", READABLE)
async def test_what_can_be_read(client: Client, target: Target, prefix: str, path: str) -> None:
    answer = await client.get(prefix + path)
    assert (answer.status, answer.headers["Content-Type"]) == (200, JSON)
    if path != "/queue" or not allowed(target, "a queue in pieces"):
        assert answer.headers["Content-Length"] == str(len(answer.body))
    assert isinstance(answer.json(), dict | list)


@pytest.mark.parametrize("path", READABLE)
async def test_a_head_request_has_no_body(client: Client, path: str) -> None:
    answer = await client.request("HEAD", path)
    assert (answer.status, answer.headers["Content-Type"], answer.body) == (200, JSON, b"")


@pytest.mark.parametrize("prefix", ["", "/api"])
@pytest.mark.parametrize(
    "path", ["/no/such/route", "/models/nothing", "/experiment/models/nothing", "/interrupt", "/view_metadata/vae"]
)
async def test_what_is_not_there(client: Client, prefix: str, path: str) -> None:
    assert (await client.get(prefix + path)).status == 404


@pytest.mark.parametrize(
    ("method", "path"), [("DELETE", "/queue"), ("PUT", "/prompt"), ("PATCH", "/history"), ("DELETE", "/api/prompt")]
)
async def test_methods_that_are_not_allowed(client: Client, method: str, path: str) -> None:
    answer = await client.request(method, path)
    assert (answer.status, answer.body) == (405, b"405: Method Not Allowed")
    assert set(answer.headers["Allow"].split(",")) == {"GET", "HEAD", "POST"}


@pytest.mark.parametrize("path", ["/prompt", "/api/queue", "/history", "/view", "/no/such/route"])
async def test_an_options_request_is_always_fine(client: Client, path: str) -> None:
    answer = await client.request("OPTIONS", path)
    assert (answer.status, answer.body) == (200, b"")
    assert "Access-Control-Allow-Origin" not in answer.headers


async def test_the_page(client: Client, target: Target) -> None:
    answer = await client.get("/")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html")
    assert answer.headers["Cache-Control"] == ("no-store, must-revalidate" if target.can.current else "no-cache")
    assert answer.headers["Expires"] == "0"
    assert "<html" in answer.body.decode().lower()


async def test_bodies_are_not_compressed_unasked(client: Client) -> None:
    """ComfyUI compresses only when it was started with --enable-compress-response-body."""
    answer = await client.get("/object_info/KSampler", Accept_Encoding="gzip, deflate")
    assert "Content-Encoding" not in answer.headers
    assert answer.json()["KSampler"]["name"] == "KSampler"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://elsewhere.example"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "http://elsewhere.example", "Host": "somewhere.example"}, 200),
    ],
)
@pytest.mark.parametrize("path", ["/queue", "/api/prompt", "/history", "/system_stats"])
async def test_other_sites_are_kept_out(client: Client, path: str, headers: dict[str, str], status: int) -> None:
    answer = await client.request("GET", path, headers=headers)
    assert answer.status == status
    assert (answer.body == b"") == (status == 403)


async def test_what_another_site_embeds_is_kept_out(client: Client, target: Target) -> None:
    """0.3.64 does not look at this header."""
    answer = await client.request("GET", "/queue", headers={"Sec-Fetch-Site": "cross-site"})
    expected = 403 if target.can.current else 200
    assert answer.status == expected or (allowed(target, "the newer origin guard") and answer.status == 403)


async def test_the_own_site_is_let_in(client: Client) -> None:
    answer = await client.get("/queue", Origin=client.url)
    assert answer.status == 200


async def test_a_submission_from_another_site_is_not_queued(client: Client) -> None:
    sent = {"prompt": {"1": {"class_type": "PreviewAny", "inputs": {"source": "evil"}}}}
    for path in ("/prompt", "/queue", "/interrupt", "/free", "/history"):
        answer = await client.request("POST", path, sent, headers={"Origin": "http://elsewhere.example"})
        assert (answer.status, answer.body) == (403, b"")
    assert await client.queue() == ([], [])


async def test_system_stats(client: Client, target: Target) -> None:
    stats = await client.get_json("/system_stats")
    system: dict[str, Any] = stats["system"]
    common = {
        "os",
        "ram_total",
        "ram_free",
        "comfyui_version",
        "required_frontend_version",
        "installed_templates_version",
        "required_templates_version",
        "python_version",
        "pytorch_version",
        "embedded_python",
        "argv",
    }
    current = {"comfy_package_versions", "deploy_environment"} if target.can.current else set()
    assert system.keys() == common | current
    assert 0 < system["ram_free"] <= system["ram_total"]
    assert all(isinstance(word, str) for word in system["argv"])
    for device in stats["devices"]:
        memory = {"vram_total", "vram_free", "torch_vram_total", "torch_vram_free"}
        assert device.keys() == {"name", "type", "index"} | memory
        assert all(isinstance(device[name], int) for name in memory)


async def test_features(client: Client) -> None:
    features = await client.get_json("/features")
    assert features["supports_preview_metadata"] is True
    assert isinstance(features["max_upload_size"], int)


async def test_object_info_of_all(client: Client) -> None:
    info = await client.get_json("/object_info")
    for name in ("VAELoader", "KSampler", "SaveImage", "PreviewAny"):
        assert info[name] == (await client.get_json(f"/object_info/{name}"))[name]
    assert all(entry["name"] == name for name, entry in info.items())
    assert len((await client.get("/api/object_info")).body) > 0


async def test_object_info_of_one(client: Client, target: Target) -> None:
    info = (await client.get_json("/object_info/SaveImage"))["SaveImage"]
    assert info["input"]["required"]["images"][0] == "IMAGE"
    assert info["input"]["hidden"] == {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}
    assert info["input_order"] == {"required": ["images", "filename_prefix"], "hidden": ["prompt", "extra_pnginfo"]}
    assert (info["output_node"], info["name"], info["python_module"]) == (True, "SaveImage", "nodes")
    assert info["output"] == (["IMAGE"] if target.can.current else [])


async def test_object_info_of_a_list_of_files(client: Client) -> None:
    info = (await client.get_json("/object_info/VAELoader"))["VAELoader"]
    files = await client.get_json("/models/vae")
    options = info["input"]["required"]["vae_name"][0]
    assert set(files) <= set(options)
    assert info["output"] == ["VAE"]


async def test_object_info_of_nothing(client: Client) -> None:
    answer = await client.get("/object_info/NoSuchClass")
    assert (answer.status, answer.body) == (200, b"{}")


async def test_model_files_have_sizes(client: Client) -> None:
    listed = await client.get_json("/experiment/models/vae")
    assert sorted(entry["name"] for entry in listed) == sorted(await client.get_json("/models/vae"))
    for entry in listed:
        assert {"name", "pathIndex", "size", "modified", "created"} <= entry.keys()
        assert entry["size"] > 0
