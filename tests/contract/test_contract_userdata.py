"""/userdata and /settings: the page's files on the server, whose paths hold encoded slashes."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.contract import prompts
from tests.contract.client import Answer, Client
from tests.contract.normalise import normalise
from tests.contract.targets import Target

JSON = "application/json; charset=utf-8"


@pytest_asyncio.fixture(loop_scope="module")
async def folder(client: Client) -> AsyncIterator[str]:
    """A folder of its own name; what a test leaves in it is deleted."""
    name = f"contract{prompts.fresh()}"
    yield name
    left = await client.get(f"/userdata?dir={name}&recurse=true")
    for path in left.json() if left.status == 200 else []:
        await client.request("DELETE", f"/userdata/{name}%2F{path.replace('/', '%2F')}")


async def write(client: Client, path: str, content: bytes = b"{}", query: str = "") -> Answer:
    return await client.request("POST", f"/userdata/{path}{query}", content)


@pytest.mark.parametrize("prefix", ["", "/api"])
async def test_a_file_is_written_and_read(client: Client, folder: str, target: Target, prefix: str) -> None:
    path = f"{prefix}/userdata/{folder}%2Fmy%20flow.json"
    written = await client.request("POST", path, b'{"a":  1}')
    assert (written.status, written.headers["Content-Type"]) == (200, JSON)
    assert written.json() == f"{folder}/my flow.json"
    read = await client.get(path)
    assert (read.status, read.body) == (200, b'{"a":  1}')
    assert read.headers["Content-Type"] == "application/json"
    assert all(name in read.headers for name in ("ETag", "Last-Modified", "Accept-Ranges"))
    guards = [read.headers.get(name) for name in ("X-Content-Type-Options", "Content-Disposition")]
    assert guards == (["nosniff", "attachment"] if target.can.current else [None, None])


async def test_slashes_must_be_encoded(client: Client, folder: str) -> None:
    await write(client, f"{folder}%2Fa.json")
    assert (await client.get(f"/userdata/{folder}/a.json")).status == 404
    assert (await client.get(f"/userdata/{folder}%2fa.json")).status == 200
    assert (await client.get(f"/userdata/{folder}%252Fa.json")).status == 200


async def test_names_need_not_be_ascii(client: Client, folder: str) -> None:
    written = await write(client, f"{folder}%2FGr%C3%B6%C3%9Fe%20%26%20+%23.json", b"1")
    assert written.json() == f"{folder}/Größe & +#.json"
    assert await client.get_json(f"/userdata?dir={folder}") == ["Größe & +#.json"]


async def test_a_file_that_is_not_there(client: Client, folder: str) -> None:
    answer = await client.get(f"/userdata/{folder}%2Fnothing.json")
    assert (answer.status, answer.body) == (404, b"")
    assert (await client.request("DELETE", f"/userdata/{folder}%2Fnothing.json")).status == 404


async def test_a_file_is_overwritten_unless_forbidden(client: Client, folder: str) -> None:
    await write(client, f"{folder}%2Fa.json", b"1")
    assert (await write(client, f"{folder}%2Fa.json", b"2")).status == 200
    refused = await write(client, f"{folder}%2Fa.json", b"3", "?overwrite=false")
    assert (refused.status, refused.body) == (409, b"File already exists")
    assert (await client.get(f"/userdata/{folder}%2Fa.json")).body == b"2"


async def test_a_file_tells_about_itself_when_asked(client: Client, folder: str) -> None:
    answer = await write(client, f"{folder}%2Fa.json", b"12345", "?full_info=true")
    told = {"path": f"{folder}/a.json", "size": 5, "modified": "<time>", "created": "<time>"}
    assert normalise(answer.json()) == told


async def test_a_file_is_deleted(client: Client, folder: str) -> None:
    await write(client, f"{folder}%2Fa.json")
    answer = await client.request("DELETE", f"/api/userdata/{folder}%2Fa.json")
    assert (answer.status, answer.body) == (204, b"")
    assert (await client.get(f"/userdata/{folder}%2Fa.json")).status == 404


async def test_a_file_is_moved(client: Client, folder: str) -> None:
    await write(client, f"{folder}%2Fa.json", b"moved")
    answer = await client.post(f"/userdata/{folder}%2Fa.json/move/{folder}%2Fdeep%2Fb.json")
    assert (answer.status, answer.json()) == (200, f"{folder}/deep/b.json")
    assert (await client.get(f"/userdata/{folder}%2Fdeep%2Fb.json")).body == b"moved"
    assert (await client.get(f"/userdata/{folder}%2Fa.json")).status == 404


async def test_a_file_is_not_moved_over_another_when_forbidden(client: Client, folder: str) -> None:
    await write(client, f"{folder}%2Fa.json", b"a")
    await write(client, f"{folder}%2Fb.json", b"b")
    answer = await client.post(f"/userdata/{folder}%2Fa.json/move/{folder}%2Fb.json?overwrite=false")
    assert answer.status == 409
    assert (await client.get(f"/userdata/{folder}%2Fb.json")).body == b"b"


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_nothing_outside_is_touched(client: Client, method: str) -> None:
    answer = await client.request(method, "/userdata/..%2F..%2Foutside.json", b"x" if method == "POST" else None)
    assert (answer.status, answer.body) == (403, b"")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["a.json"]),
        ("&recurse=true", ["a.json", "deep/b.json"]),
        ("&recurse=true&split=true", [["a.json", "a.json"], ["deep/b.json", "deep", "b.json"]]),
    ],
)
async def test_files_are_listed(client: Client, folder: str, query: str, expected: list[Any]) -> None:
    await write(client, f"{folder}%2Fa.json")
    await write(client, f"{folder}%2Fdeep%2Fb.json")
    assert sorted(await client.get_json(f"/userdata?dir={folder}{query}")) == expected


async def test_files_are_listed_with_all_there_is(client: Client, folder: str) -> None:
    await write(client, f"{folder}%2Fa.json", b"123")
    listed = await client.get_json(f"/api/userdata?dir={folder}&full_info=true")
    assert normalise(listed) == [{"path": "a.json", "size": 3, "modified": "<time>", "created": "<time>"}]


async def test_folders_are_listed_too(client: Client, folder: str) -> None:
    await write(client, f"{folder}%2Fa.json", b"123")
    await write(client, f"{folder}%2Fdeep%2Fb.json")
    listed = await client.get_json(f"/v2/userdata?path={folder}")
    assert normalise(listed) == [
        {"name": "deep", "path": f"{folder}/deep", "type": "directory"},
        {"name": "a.json", "path": f"{folder}/a.json", "type": "file", "size": 3, "modified": "<time>"},
        {"name": "b.json", "path": f"{folder}/deep/b.json", "type": "file", "size": 2, "modified": "<time>"},
    ]


@pytest.mark.parametrize(
    ("query", "status", "text"),
    [
        ("", 400, b"Directory not provided"),
        ("?dir=no-such-folder-anywhere", 404, b"Directory not found"),
        ("?dir=..%2F..", 403, b"Invalid directory"),
    ],
)
async def test_what_cannot_be_listed(client: Client, query: str, status: int, text: bytes) -> None:
    answer = await client.get(f"/userdata{query}")
    assert (answer.status, answer.body) == (status, text)
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"


async def test_settings_are_kept(client: Client) -> None:
    key = f"Contract.{prompts.fresh()}"
    answer = await client.post(f"/settings/{key}", {"nested": [1, None]})
    assert (answer.status, answer.body) == (200, b"")
    assert await client.get_json(f"/settings/{key}") == {"nested": [1, None]}
    assert (await client.post("/api/settings", {f"{key}.b": True})).status == 200
    settings = await client.get_json("/api/settings")
    assert (settings[key], settings[f"{key}.b"]) == ({"nested": [1, None]}, True)
    assert await client.get_json(f"/settings/{key}.nothing") is None
