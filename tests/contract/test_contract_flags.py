"""What ComfyUI does under --enable-compress-response-body and --enable-cors-header, and the proxy before it too.

A real ComfyUI takes part when it was started with both, the second with the origin that stands here.
"""

import json
import zlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.contract import prompts, targets
from tests.contract.allowed import allowed
from tests.contract.client import Answer, Client, eventually
from tests.contract.sockets import Socket
from tests.contract.targets import Target

ORIGIN = "https://page.example"
FLAGS = {"--enable-compress-response-body", "--enable-cors-header", ORIGIN}

_GZIP = 16
"""Tells zlib to expect a gzip header."""

RESTORED = ["/queue", "/history", "/prompt", "/api/queue", "/api/history"]
"""Answers that hold prompts."""

READABLE = [*RESTORED, "/features", "/object_info/VAELoader"]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=targets.ARRANGEMENTS)
async def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Target]:
    """As everywhere, but started with the flags."""
    folder = tmp_path_factory.mktemp("target")
    async with targets.arranged(request.param, folder, compress=True, cors_origin=ORIGIN) as target:
        async with Client(target.upstream_url) as direct:
            argv = (await direct.get_json("/system_stats"))["system"]["argv"]
        if not set(argv) >= FLAGS:
            pytest.skip("was started without the flags")
        async with Client(target.url) as client:
            await eventually(lambda: _open_to_others(client), "the flags to be known")  # until then, the guard stands
        yield target


async def _open_to_others(client: Client) -> bool:
    return (await client.get("/prompt", Origin=ORIGIN)).status == 200


def content(target: Target, path: str, answer: Answer, coding: str = "gzip") -> bytes:
    """The body, which must be compressed unless the proxy worded it."""
    found = answer.headers.get("Content-Encoding")
    if found is None and path in RESTORED and allowed(target, "plain for packed"):
        return answer.body
    assert found == coding
    return zlib.decompress(answer.body, wbits=zlib.MAX_WBITS | (_GZIP if coding == "gzip" else 0))


def cors(answer: Answer) -> dict[str, str]:
    prefix = "access-control-allow-"
    headers = {name.lower(): value for name, value in answer.headers.items()}
    return {name.removeprefix(prefix): value for name, value in headers.items() if name.startswith(prefix)}


def allowed_origin(target: Target) -> dict[str, str]:
    return {
        "origin": ORIGIN,
        "methods": "POST, GET, DELETE, PUT, OPTIONS" + (", PATCH" if target.can.current else ""),
        "headers": "Content-Type, Authorization",
        "credentials": "true",
    }


@pytest.mark.parametrize("path", READABLE)
async def test_json_is_compressed_for_those_who_take_it(client: Client, target: Target, path: str) -> None:
    plain = await client.get(path)
    assert "Content-Encoding" not in plain.headers
    for accepted, coding in (("gzip", "gzip"), ("gzip, deflate, br", "deflate")):
        packed = await client.get(path, Accept_Encoding=accepted)
        assert json.loads(content(target, path, packed, coding)) == plain.json()
    assert "Content-Encoding" not in (await client.get(path, Accept_Encoding="deflate")).headers


async def test_answers_to_submissions_are_compressed_too(client: Client, target: Target) -> None:
    headers = {"Accept-Encoding": "gzip"}
    taken = await client.request("POST", "/prompt", {"prompt": prompts.text("packed")}, headers=headers)
    assert json.loads(content(target, "/prompt", taken))["node_errors"] == {}
    refused = await client.request("POST", "/prompt", {"prompt": {}}, headers=headers)
    assert refused.status == 400
    assert json.loads(content(target, "/prompt", refused))["error"]["type"] == "prompt_no_outputs"


async def test_pictures_are_not_compressed(client: Client, socket: Socket) -> None:
    run = await client.run(prompts.image(prompts.fresh()), socket)
    (image,) = run.outputs["2"]["images"]
    answer = await client.get(f"/view?filename={image['filename']}&type=temp", Accept_Encoding="gzip")
    assert (answer.status, answer.body[:4]) == (200, b"\x89PNG")
    assert "Content-Encoding" not in answer.headers


@pytest.mark.parametrize("path", [*READABLE, "/", "/view", "/no/such/route", "/userdata?dir=nothing-here"])
async def test_answers_say_who_may_read_them(client: Client, target: Target, path: str) -> None:
    for method in ("GET", "OPTIONS"):
        answer = await client.request(method, path, headers={"Origin": ORIGIN})
        assert cors(answer) == allowed_origin(target)


async def test_answers_to_requests_say_it_too(client: Client, target: Target) -> None:
    for path, body, status in (
        ("/prompt", {"prompt": prompts.text("cors")}, 200),
        ("/prompt", {"prompt": {}}, 400),
        ("/queue", {}, 200),
        ("/interrupt", {}, 200),
        ("/free", {}, 200),
        ("/history", {}, 200),
    ):
        answer = await client.request("POST", path, body, headers={"Origin": ORIGIN})
        assert (answer.status, cors(answer)) == (status, allowed_origin(target))


@pytest.mark.parametrize("headers", [{"Origin": "http://elsewhere.example"}, {"Sec-Fetch-Site": "cross-site"}])
async def test_nobody_is_kept_out(client: Client, headers: dict[str, str]) -> None:
    for path in ("/queue", "/prompt", "/features"):
        assert (await client.request("GET", path, headers=headers)).status == 200
