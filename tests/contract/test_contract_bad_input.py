"""Bodies that are no submissions, and values that JSON does not know. ComfyUI's answer to most is its 500 page."""

import json
import zlib
from collections.abc import AsyncIterator, Mapping

import pytest

from tests.contract import prompts
from tests.contract.allowed import allowed
from tests.contract.client import Client
from tests.contract.prompts import node
from tests.contract.refusals import PACKED, is_clear, send, still_runs
from tests.contract.sockets import Socket
from tests.contract.targets import Target

TEXT = prompts.text("a")

BODIES: Mapping[str, bytes] = {
    "nothing": b"",
    "no JSON": b"{",
    "no UTF-8": b'{"prompt": "\xff"}',
    "null": b"null",
    "a number": b"5",
    "a string": b'"prompt"',
    "prompt is null": b'{"prompt": null}',
    "prompt is a list": b'{"prompt": []}',
    "prompt is a string": b'{"prompt": "x"}',
    "a node is null": b'{"prompt": {"1": null}}',
    "a node is a number": b'{"prompt": {"1": 5}}',
    "a node is a list": b'{"prompt": {"1": []}}',
    "a class is a list": b'{"prompt": {"1": {"class_type": [], "inputs": {}}}}',
    "number is a word": json.dumps({"prompt": TEXT, "number": "x"}).encode(),
    "number is null": json.dumps({"prompt": TEXT, "number": None}).encode(),
    "targets are a number": json.dumps({"prompt": TEXT, "partial_execution_targets": 5}).encode(),
    "extra_data is a list, with a client": json.dumps({"prompt": TEXT, "extra_data": [], "client_id": "x"}).encode(),
}
"""Bodies that ComfyUI answers with 500."""

ONLY_CURRENT = {"a node is null", "a node is a number", "a node is a list", "prompt is a list", "prompt is a string"}
"""Those that 0.3.64 answers in other ways."""


@pytest.mark.parametrize("case", BODIES)
async def test_a_body_that_is_no_submission(client: Client, target: Target, case: str) -> None:
    if case in ONLY_CURRENT and not target.can.current:
        pytest.skip("0.3.64 differs")
    answer = await send(client, BODIES[case])
    if not (allowed(target, "a 4xx for a 500 page") and is_clear(answer)):
        assert (answer.status, answer.headers["Content-Type"]) == (500, "text/plain; charset=utf-8")
    assert await client.queue() == ([], [])


async def test_a_list_has_no_prompt(client: Client) -> None:
    answer = await send(client, [1, 2])
    assert (answer.status, answer.json()["error"]["type"]) == (400, "no_prompt")


async def test_it_keeps_running_after_all_of_them(client: Client, target: Target) -> None:
    for case, body in BODIES.items():
        if case not in ONLY_CURRENT or target.can.current:
            await send(client, body)
    assert await still_runs(client)


async def test_a_body_over_the_limit(client: Client) -> None:
    limit: int = (await client.get_json("/features"))["max_upload_size"]

    async def too_much() -> AsyncIterator[bytes]:
        for _ in range(limit // 2**20 + 1):
            yield b" " * 2**20

    answer = await client.request("POST", "/prompt", too_much())
    assert answer.status == 413


@pytest.mark.parametrize("coding", PACKED)
async def test_a_compressed_body_is_read(client: Client, socket: Socket, coding: str) -> None:
    prompt = prompts.text(f"packed {prompts.fresh()}")
    body = PACKED[coding](json.dumps({"prompt": prompt, "client_id": socket.client_id}).encode())
    answer = await client.request("POST", "/prompt", body, headers={"Content-Encoding": coding})
    prompt_id = answer.json()["prompt_id"]
    await socket.until_done(prompt_id)
    assert (await client.history(prompt_id))["prompt"][2] == prompt


async def test_an_unknown_coding_is_none(client: Client) -> None:
    body = json.dumps({"prompt": prompts.text("plain")}).encode()
    answer = await client.request("POST", "/prompt", body, headers={"Content-Encoding": "x-none"})
    assert answer.status == 200


async def test_a_body_that_is_not_compressed_as_it_says(client: Client, target: Target) -> None:
    answer = await client.request("POST", "/prompt", b"{}", headers={"Content-Encoding": "gzip"})
    if not (allowed(target, "a 4xx for a 500 page") and is_clear(answer)):
        assert (answer.status, answer.headers["Content-Type"]) == (500, "text/plain; charset=utf-8")


async def test_a_body_that_unpacks_to_more_than_the_limit(client: Client) -> None:
    limit: int = (await client.get_json("/features"))["max_upload_size"]
    packer = zlib.compressobj(1)
    body = b"".join(packer.compress(b" " * 2**20) for _ in range(limit // 2**20 + 1)) + packer.flush()
    answer = await client.request("POST", "/prompt", body, headers={"Content-Encoding": "deflate"})
    assert answer.status == 413


@pytest.mark.parametrize("class_type", [None, 5])
async def test_a_class_that_is_no_name_is_missing(client: Client, target: Target, class_type: object) -> None:
    answer = await send(client, {"prompt": {"1": {"class_type": class_type, "inputs": {}}}})
    missing = "missing_node_type" if target.can.current else "invalid_prompt"
    assert (answer.status, answer.json()["error"]["type"]) == (400, missing)


async def test_nan_is_a_number(client: Client, socket: Socket) -> None:
    """ComfyUI reads and writes bare ``NaN``, which strict JSON does not know."""
    prompt = {"1": node("PrimitiveFloat", value=float("nan")), "2": node("PreviewAny", source=["1", 0])}
    run = await client.run(prompt, socket)
    assert run.outputs == {"2": {"text": ["nan"]}}
    assert b'"value": NaN' in (await client.get(f"/history/{run.prompt_id}")).body


async def test_infinity_is_out_of_range(client: Client) -> None:
    prompt = {"1": node("PrimitiveFloat", value=float("inf")), "2": node("PreviewAny", source=["1", 0])}
    answer = await send(client, {"prompt": prompt})
    assert answer.status == 400
    assert b'"received_value": Infinity' in answer.body


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
async def test_a_number_that_is_no_number(client: Client, number: float) -> None:
    answer = await send(client, {"prompt": TEXT, "number": number})
    assert answer.status == 200
    assert f'"number": {json.dumps(number)}'.encode() in answer.body
