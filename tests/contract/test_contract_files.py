"""/view and /upload: pictures out and in, and what ComfyUI writes into them."""

import hashlib
import io
import json
from typing import Any

import aiohttp
import pytest

from tests.contract import png, prompts
from tests.contract.client import Answer, Client, Run
from tests.contract.sockets import Socket
from tests.contract.targets import Target

WORKFLOW = {"id": "w", "nodes": [{"id": 1, "title": "Größe"}]}


async def saved(client: Client, socket: Socket, **fields: Any) -> tuple[Run, str]:
    """A picture of 40 x 30 in the output folder; its path to view it."""
    prompt = prompts.image(prompts.fresh(), width=40, height=30, prefix="contract/picture")
    run = await client.run(prompt, socket, **fields)
    (image,) = run.outputs["2"]["images"]
    return run, view(**image)


def view(filename: str, subfolder: str = "", type: str = "output") -> str:  # noqa: A002 - the parameter's name at ComfyUI
    return f"/view?filename={filename}&subfolder={subfolder}&type={type}"


def form(name: str, data: bytes, **fields: str) -> aiohttp.FormData:
    sent = aiohttp.FormData()
    sent.add_field("image", io.BytesIO(data), filename=name, content_type="image/png")
    for key, value in fields.items():
        sent.add_field(key, value)
    return sent


async def upload(client: Client, data: bytes, name: str = "picture.png", **fields: str) -> Answer:
    return await client.post("/upload/image", form(name, data, **fields))


def unique(kind: str) -> str:
    return f"{kind}-{prompts.fresh()}.png"


async def test_where_a_picture_went(client: Client, socket: Socket) -> None:
    run, _ = await saved(client, socket)
    (image,) = run.outputs["2"]["images"]
    number = image["filename"].removeprefix("picture_").removesuffix("_.png")
    assert (len(number), int(number) > 0) == (5, True)
    assert image == {"filename": f"picture_{number}_.png", "subfolder": "contract", "type": "output"}
    again, _ = await saved(client, socket)
    assert again.outputs["2"]["images"][0]["filename"] == f"picture_{int(number) + 1:05}_.png"


async def test_each_picture_of_a_batch_is_saved(client: Client, socket: Socket) -> None:
    run = await client.run(prompts.image(prompts.fresh(), batch_size=3), socket)
    names = [image["filename"] for image in run.outputs["2"]["images"]]
    assert {image["type"] for image in run.outputs["2"]["images"]} == {"temp"}
    assert all(name.startswith("ComfyUI_temp_") and name.endswith("_.png") for name in names)
    assert len(set(names)) == 3


@pytest.mark.parametrize("prefix", ["", "/api"])
async def test_a_picture_can_be_viewed(client: Client, socket: Socket, target: Target, prefix: str) -> None:
    run, path = await saved(client, socket)
    answer = await client.get(prefix + path)
    name = run.outputs["2"]["images"][0]["filename"]
    assert (answer.status, png.size(answer.body)) == (200, (40, 30))
    assert answer.headers["Content-Type"] == "image/png"
    assert answer.headers["Content-Disposition"] == f'filename="{name}"'
    assert answer.headers["Content-Length"] == str(len(answer.body))
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert "Content-Encoding" not in answer.headers
    assert all(name in answer.headers for name in ("ETag", "Last-Modified"))
    assert answer.headers.get("X-Content-Type-Options") == ("nosniff" if target.can.current else None)


async def test_a_head_request_tells_the_size(client: Client, socket: Socket) -> None:
    _, path = await saved(client, socket)
    whole = await client.get(path)
    head = await client.request("HEAD", path)
    assert (head.status, head.body) == (200, b"")
    assert head.headers["Content-Length"] == str(len(whole.body))
    assert head.headers["ETag"] == whole.headers["ETag"]


async def test_parts_of_a_picture(client: Client, socket: Socket) -> None:
    _, path = await saved(client, socket)
    whole = (await client.get(path)).body
    length = len(whole)
    for wanted, start, end in (("0-7", 0, 8), ("10-", 10, length), ("-8", length - 8, length)):
        answer = await client.get(path, Range=f"bytes={wanted}")
        assert (answer.status, answer.body) == (206, whole[start:end])
        assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/{length}"
        assert answer.headers["Content-Length"] == str(end - start)
    for nonsense in ("bytes=999999-", "bytes=0-1,4-5", "junk"):
        answer = await client.get(path, Range=nonsense)
        assert (answer.status, answer.body) == (416, b"")
        assert answer.headers["Content-Range"] == f"bytes */{length}"


async def test_a_picture_that_has_not_changed(client: Client, socket: Socket) -> None:
    _, path = await saved(client, socket)
    first = await client.get(path)
    for answer in (
        await client.get(path, If_None_Match=first.headers["ETag"]),
        await client.get(path, If_Modified_Since=first.headers["Last-Modified"]),
    ):
        assert (answer.status, answer.body) == (304, b"")
        assert answer.headers["ETag"] == first.headers["ETag"]
    assert (await client.get(path, If_None_Match='"another"')).status == 200
    assert (await client.get(path, If_Match='"another"')).status == 412


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 404),
        ("?filename=no-such-file.png", 404),
        ("?filename=", 400),
        ("?filename=../secret.png", 400),
        ("?filename=/etc/passwd", 400),
        ("?filename=a.png&type=nowhere", 400),
        ("?filename=a.png&subfolder=../..", 403),
    ],
)
async def test_what_cannot_be_viewed(client: Client, query: str, status: int) -> None:
    answer = await client.get(f"/view{query}")
    assert (answer.status, answer.body) == (status, b"")


@pytest.mark.parametrize(
    ("query", "content_type", "magic"),
    [
        ("&preview=webp", "image/webp", b"RIFF"),
        ("&preview=jpeg;50", "image/jpeg", b"\xff\xd8"),
        ("&channel=a", "image/png", b"\x89PNG"),
    ],
)
async def test_a_picture_can_be_converted(
    client: Client, socket: Socket, target: Target, query: str, content_type: str, magic: bytes
) -> None:
    if not target.real:
        pytest.skip("the simulator converts no pictures")
    _, path = await saved(client, socket)
    answer = await client.get(path + query)
    assert (answer.status, answer.headers["Content-Type"]) == (200, content_type)
    assert answer.body.startswith(magic)


async def test_a_picture_carries_the_prompt_that_was_sent(client: Client, socket: Socket) -> None:
    run, path = await saved(client, socket, extra_data={"extra_pnginfo": {"workflow": WORKFLOW}})
    texts = png.texts((await client.get(path)).body)
    sent = (await client.history(run.prompt_id))["prompt"][2]
    assert json.loads(texts.pop("prompt")) == sent
    assert json.loads(texts.pop("workflow")) == WORKFLOW
    assert texts == {}


async def test_a_picture_of_a_loader_carries_the_prompt_that_was_sent(client: Client, socket: Socket) -> None:
    """Loaders are what the proxy renames; none of that is to be seen."""
    vae_name = (await prompts.vae_names(client))[0]
    prompt = prompts.decoded(vae_name, width=64 + 8 * (prompts.fresh() % 32))
    prompt["4"] = prompts.node("SaveImage", images=["3", 0], filename_prefix="contract/loader")
    run = await client.run(prompt, socket)
    (image,) = run.outputs["4"]["images"]
    texts = png.texts((await client.get(view(**image))).body)
    assert {name: json.loads(value) for name, value in texts.items()} == {"prompt": prompt}


async def test_extra_pnginfo_of_the_name_prompt_wins(client: Client, socket: Socket) -> None:
    """ComfyUI writes it after the executed prompt, and readers keep the last of a name."""
    _, path = await saved(client, socket, extra_data={"extra_pnginfo": {"prompt": {"mine": 1}, "workflow": WORKFLOW}})
    assert json.loads(png.texts((await client.get(path)).body)["prompt"]) == {"mine": 1}


@pytest.mark.parametrize("path", ["/upload/image", "/api/upload/image"])
async def test_an_upload_can_be_viewed(client: Client, path: str) -> None:
    name, picture = unique("upload"), png.plain(8, 8)
    answer = await client.post(path, form(name, picture))
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json; charset=utf-8")
    assert answer.json() == {"name": name, "subfolder": "", "type": "input"}
    assert (await client.get(view(name, type="input"))).body == picture


async def test_an_upload_is_not_overwritten_unasked(client: Client) -> None:
    name = unique("twice")
    first, second, third = (png.plain(size, 8) for size in (1, 2, 3))
    stem = name.removesuffix(".png")
    steps = [
        (first, {}, name),
        (first, {}, name),
        (second, {}, f"{stem} (1).png"),
        (third, {"overwrite": "true"}, name),
        (second, {"overwrite": "1"}, name),
        (first, {"overwrite": "false"}, f"{stem} (2).png"),
    ]
    for picture, fields, expected in steps:
        assert (await upload(client, picture, name, **fields)).json()["name"] == expected
    assert (await client.get(view(name, type="input"))).body == second


@pytest.mark.parametrize("fields", [{"subfolder": "a/b"}, {"type": "temp"}, {"type": "output", "subfolder": "deep"}])
async def test_an_upload_goes_where_it_is_told(client: Client, fields: dict[str, str]) -> None:
    name, picture = unique("where"), png.plain(4, 4)
    answer = (await upload(client, picture, name, **fields)).json()
    assert answer == {"name": name, "subfolder": "", "type": "input"} | fields
    assert (await client.get(view(name, answer["subfolder"], answer["type"]))).body == picture


async def test_an_upload_cannot_leave_its_folder(client: Client) -> None:
    answer = await upload(client, b"x", subfolder="../../elsewhere")
    assert (answer.status, answer.body) == (400, b"")


async def test_an_upload_without_a_picture(client: Client) -> None:
    nothing = aiohttp.FormData({"overwrite": "true"})
    for body in (nothing, b""):
        answer = await client.post("/upload/image", body)
        assert (answer.status, answer.body) == (400, b"")


async def test_a_large_upload_arrives_whole(client: Client) -> None:
    name, data = unique("large"), bytes(range(256)) * 32_768
    assert (await upload(client, data, name)).status == 200
    answer = await client.get(view(name, type="input"))
    assert answer.headers["Content-Length"] == str(len(data))
    assert hashlib.sha256(answer.body).digest() == hashlib.sha256(data).digest()


async def test_a_mask_is_laid_over_its_picture(client: Client, socket: Socket) -> None:
    run, _ = await saved(client, socket, extra_data={"extra_pnginfo": {"workflow": WORKFLOW}})
    (image,) = run.outputs["2"]["images"]
    name = unique("mask")
    sent = form(name, png.plain(40, 30), original_ref=json.dumps(image), subfolder="clipspace")
    answer = await client.post("/upload/mask", sent)
    assert (answer.status, answer.json()) == (200, {"name": name, "subfolder": "clipspace", "type": "input"})
    masked = (await client.get(view(name, "clipspace", "input"))).body
    assert png.size(masked) == (40, 30)
    assert json.loads(png.texts(masked)["workflow"]) == WORKFLOW


async def test_an_uploaded_picture_can_be_loaded(client: Client, socket: Socket) -> None:
    name = unique("load")
    await upload(client, png.plain(12, 10), name)
    prompt = {
        "1": prompts.node("LoadImage", image=name),
        "2": prompts.node("PreviewImage", images=["1", 0]),
    }
    run = await client.run(prompt, socket)
    (image,) = run.outputs["2"]["images"]
    assert png.size((await client.get(view(**image))).body) == (12, 10)
