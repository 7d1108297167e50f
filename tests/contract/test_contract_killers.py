"""Submissions that ComfyUI takes with 200 and dies of; the proxy says so instead.

They are not even sent through the proxy to a real ComfyUI: if one slipped through, it would not come back.
"""

import json
import uuid
from collections.abc import Mapping
from typing import Any

import pytest

from tests.contract import prompts
from tests.contract.client import Client
from tests.contract.prompts import node
from tests.contract.refusals import PACKED, is_clear, send, still_runs
from tests.contract.sockets import Socket
from tests.contract.targets import SIMULATED, Target

pytestmark = pytest.mark.parametrize("target", SIMULATED, indirect=True, scope="module")

TEXT = prompts.text("a")

KILLERS: Mapping[str, Any] = {
    "an output without inputs": {"prompt": {**TEXT, "9": {"class_type": "PreviewAny"}}},
    "an unwired node without inputs": {"prompt": {**TEXT, "9": {"class_type": "ImageInvert"}}},
    "client_id is a list": {"prompt": TEXT, "client_id": []},
    "client_id is an object": {"prompt": TEXT, "client_id": {}},
    "client_id is a list, in extra_data": {"prompt": TEXT, "extra_data": {"client_id": []}},
    "inputs is null": {"prompt": {**TEXT, "9": {"class_type": "ImageInvert", "inputs": None}}},
    "inputs is a list": {"prompt": {**TEXT, "9": {"class_type": "ImageInvert", "inputs": []}}},
    "extra_data is null": {"prompt": TEXT, "extra_data": None},
    "extra_data is a number": {"prompt": TEXT, "extra_data": 5},
    "an undeclared link to nowhere": {
        "prompt": {"1": node("PrimitiveString", value="a", undeclared=["77", 0]), "2": TEXT["2"]}
    },
}


@pytest.mark.parametrize("case", KILLERS)
async def test_what_kills_comfyui_is_refused(client: Client, case: str) -> None:
    answer = await send(client, KILLERS[case])
    assert answer.status == 400
    assert is_clear(answer)
    assert await still_runs(client)


@pytest.mark.parametrize("coding", PACKED)
async def test_it_is_refused_compressed_too(client: Client, coding: str) -> None:
    body = PACKED[coding](json.dumps(KILLERS["an unwired node without inputs"]).encode())
    answer = await client.request("POST", "/prompt", body, headers={"Content-Encoding": coding})
    assert answer.status == 400
    assert is_clear(answer)
    assert await still_runs(client)


async def test_one_id_and_one_number_twice(client: Client, socket: Socket, target: Target) -> None:
    """ComfyUI would queue it, answer 500, and stop working when it comes to compare the two."""
    body = {"prompt": prompts.text("twice"), "prompt_id": str(uuid.uuid4()), "number": 5}
    async with target.busy(client, socket):
        answers = [await send(client, body) for _ in range(3)]
    assert answers[0].status == 200
    assert all(answer.status == 200 or is_clear(answer) for answer in answers)
    assert await still_runs(client)
