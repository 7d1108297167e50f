"""Bodies that are no submissions at all, and submissions that would end ComfyUI.

Where ComfyUI answers with its 500 page, the proxy may say what is wrong instead; `CLEARER` lists where, and why that
is no breach of the contract.
"""

import json
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from tests.contract import prompts
from tests.contract.client import Answer, Client
from tests.contract.prompts import node
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

CLEARER = dict.fromkeys(
    BODIES, "a 500 page tells the client nothing; nothing is queued either way, and a 4xx names the fault"
)


def is_clear(answer: Answer) -> bool:
    """A 4xx with an error in ComfyUI's shape."""
    if not 400 <= answer.status < 500:
        return False
    body = answer.json()
    shaped: bool = body["error"].keys() == {"type", "message", "details", "extra_info"}
    return shaped and body["node_errors"] == {}


async def still_runs(client: Client) -> bool:
    """Whether a prompt submitted now is run to its end."""
    async with client.socket() as socket:
        return (await client.run(prompts.text("alive"), socket)).end.kind == "execution_success"


async def send(client: Client, body: Any) -> Answer:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await client.request("POST", "/prompt", raw, headers={"Content-Type": "application/json"})


@pytest.mark.parametrize("case", BODIES)
async def test_a_body_that_is_no_submission(client: Client, target: Target, case: str) -> None:
    if case in ONLY_CURRENT and not target.can.current:
        pytest.skip("0.3.64 differs")
    answer = await send(client, BODIES[case])
    if target.proxied and case in CLEARER and is_clear(answer):
        return
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


KILLERS: Mapping[str, Any] = {
    "an output without inputs": {"prompt": {**TEXT, "9": {"class_type": "PreviewAny"}}},
    "an unwired node without inputs": {"prompt": {**TEXT, "9": {"class_type": "ImageInvert"}}},
    "client_id is a list": {"prompt": TEXT, "client_id": []},
    "client_id is an object": {"prompt": TEXT, "client_id": {}},
    "client_id is a list, in extra_data": {"prompt": TEXT, "extra_data": {"client_id": []}},
    "an undeclared link to nowhere": {
        "prompt": {"1": node("PrimitiveString", value="a", undeclared=["77", 0]), "2": TEXT["2"]}
    },
}
"""Submissions that ComfyUI takes with 200 and dies of. Never sent to a real one by itself: it would not come back."""


@pytest.mark.parametrize("case", KILLERS)
async def test_what_kills_comfyui_is_refused(client: Client, target: Target, case: str) -> None:
    if not target.proxied:
        pytest.skip("only the proxy refuses it")
    answer = await send(client, KILLERS[case])
    assert answer.status == 400
    assert is_clear(answer)
    assert await still_runs(client)


async def test_one_id_and_one_number_twice(client: Client, socket: Socket, target: Target) -> None:
    """ComfyUI would queue it, answer 500, and stop working when it comes to compare the two."""
    if not target.proxied:
        pytest.skip("only the proxy survives it")
    body = {"prompt": prompts.text("twice"), "prompt_id": str(uuid.uuid4()), "number": 5}
    async with target.busy(client, socket):
        answers = [await send(client, body) for _ in range(3)]
    assert answers[0].status == 200
    assert all(answer.status == 200 or is_clear(answer) for answer in answers)
    assert await still_runs(client)
