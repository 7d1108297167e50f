"""POST /prompt: what is answered, and which number and id a prompt gets."""

import uuid
from typing import Any

import pytest

from tests.contract import prompts
from tests.contract.allowed import allowed
from tests.contract.client import Client
from tests.contract.sockets import Socket
from tests.contract.targets import Target


@pytest.mark.parametrize("path", ["/prompt", "/api/prompt"])
async def test_the_answer_names_the_prompt(client: Client, path: str) -> None:
    answer = await client.post(path, {"prompt": prompts.text("hello")})
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    body = answer.json()
    assert list(body) == ["prompt_id", "number", "node_errors"]
    assert str(uuid.UUID(body["prompt_id"])) == body["prompt_id"]
    assert body["node_errors"] == {}
    assert (await client.history(body["prompt_id"]))["status"]["status_str"] == "success"


async def test_numbers_count_up(client: Client) -> None:
    first, second = [(await client.submit(prompts.text("n")))["number"] for _ in range(2)]
    assert (type(first), type(second)) == (int, int)
    assert second == first + 1


async def test_front_negates_the_count(client: Client) -> None:
    plain = (await client.submit(prompts.text("n")))["number"]
    front = (await client.submit(prompts.text("n"), front=True))["number"]
    not_front = (await client.submit(prompts.text("n"), front=False))["number"]
    assert (front, not_front) == (-(plain + 1), plain + 2)


@pytest.mark.parametrize(
    ("given", "taken"),
    [(7, b"7.0"), (-3, b"-3.0"), (0.5, b"0.5"), ("7", b"7.0"), (2**64, b"1.8446744073709552e+19")],
    ids=["whole", "negative", "half", "text", "huge"],
)
async def test_a_given_number_is_taken_as_a_float(client: Client, given: Any, taken: bytes) -> None:
    answer = await client.post("/prompt", {"prompt": prompts.text("n"), "number": given})
    assert answer.status == 200
    assert b'"number": ' + taken + b"," in answer.body


async def test_a_given_number_does_not_count(client: Client) -> None:
    before = (await client.submit(prompts.text("n")))["number"]
    await client.submit(prompts.text("n"), number=99)
    assert (await client.submit(prompts.text("n")))["number"] == before + 1


async def test_a_given_number_beats_front(client: Client) -> None:
    assert (await client.submit(prompts.text("n"), number=5, front=True))["number"] == 5.0


async def test_a_refused_prompt_counts_too(client: Client) -> None:
    before = (await client.submit(prompts.text("n")))["number"]
    await client.refuse({})
    assert (await client.submit(prompts.text("n")))["number"] == before + 2


async def test_a_given_prompt_id_is_kept(client: Client, socket: Socket) -> None:
    prompt_id = str(uuid.uuid4())
    run = await client.run(prompts.text("id"), socket, prompt_id=prompt_id)
    assert run.prompt_id == prompt_id
    assert run.end.kind == "execution_success"
    assert (await client.history(prompt_id))["prompt"][1] == prompt_id


async def test_a_prompt_id_of_null_asks_for_one(client: Client, target: Target) -> None:
    prompt_id = (await client.submit(prompts.text("null"), prompt_id=None))["prompt_id"]
    if target.can.current or (allowed(target, "an id for null") and prompt_id != "None"):
        assert str(uuid.UUID(prompt_id)) == prompt_id
    else:
        assert prompt_id == "None"


@pytest.mark.parametrize(
    "wrong", ["abc", "", 5, "6BA7B810-9DAD-11D1-80B4-00C04FD430C8", "6ba7b8109dad11d180b400c04fd430c8"]
)
async def test_a_prompt_id_must_be_a_canonical_uuid(client: Client, target: Target, wrong: Any) -> None:
    if not target.can.current:
        if wrong != "":  # an id that no path can name again
            assert (await client.submit(prompts.text("id"), prompt_id=wrong))["prompt_id"] == str(wrong)
        return
    assert await client.refuse(prompts.text("id"), prompt_id=wrong) == {
        "error": {
            "type": "invalid_prompt_id",
            "message": "prompt_id must be a valid UUID",
            "details": "prompt_id must be a UUID string in canonical lowercase hyphenated form; "
            "omit it to let the server generate one",
            "extra_info": {},
        },
        "node_errors": {},
    }


async def test_a_finished_id_may_be_used_again(client: Client, socket: Socket) -> None:
    """A rerun under the old id replaces the old history entry."""
    prompt_id = str(uuid.uuid4())
    first = await client.run(prompts.text("first"), socket, prompt_id=prompt_id)
    await client.post("/history", {"delete": [prompt_id]})
    async with client.socket() as other:
        again = await client.run(prompts.text("second"), other, prompt_id=prompt_id)
    assert first.outputs["2"] == {"text": ["first"]}
    assert again.outputs["2"] == {"text": ["second"]}
    assert (await client.history(prompt_id))["outputs"] == {"2": {"text": ["second"]}}


async def test_unknown_top_level_keys_are_ignored(client: Client, socket: Socket) -> None:
    run = await client.run(prompts.text("keys"), socket, surprise=[1, {"a": None}], workflow={"nodes": []})
    assert run.end.kind == "execution_success"
    entry = (await client.history(run.prompt_id))["prompt"]
    assert "surprise" not in entry[3]
    assert entry[2] == prompts.text("keys")


async def test_extra_data_comes_back_as_it_was_sent(client: Client, socket: Socket, target: Target) -> None:
    sent = {"extra_pnginfo": {"workflow": {"id": "w", "nodes": []}}, "mine": [1, None, "ü", 2**64, 0.1]}
    run = await client.run(prompts.text("extra"), socket, extra_data=sent)
    extra = (await client.history(run.prompt_id))["prompt"][3]
    if target.can.current:
        assert isinstance(extra.pop("create_time"), int)
    assert extra == sent | {"client_id": socket.client_id}


async def test_api_keys_are_kept_out_of_sight(client: Client, socket: Socket) -> None:
    """``execution.SENSITIVE_EXTRA_DATA_KEYS`` never reach the history."""
    secrets = {"auth_token_comfy_org": "a", "api_key_comfy_org": "b"}
    run = await client.run(prompts.text("secret"), socket, extra_data=secrets)
    extra = (await client.history(run.prompt_id))["prompt"][3]
    assert secrets.keys().isdisjoint(extra)


async def test_a_client_id_of_null_is_no_client(client: Client) -> None:
    answer = await client.post("/prompt", {"prompt": prompts.text("nobody"), "client_id": None})
    assert answer.status == 200
    entry = await client.history(answer.json()["prompt_id"])
    assert entry["prompt"][3]["client_id"] is None
    assert entry["status"]["status_str"] == "success"


async def test_the_usage_source_is_taken_from_the_header(client: Client, target: Target) -> None:
    answer = await client.request(
        "POST", "/prompt", {"prompt": prompts.text("usage")}, headers={"Comfy-Usage-Source": "contract"}
    )
    extra = (await client.history(answer.json()["prompt_id"]))["prompt"][3]
    assert extra.get("comfy_usage_source") == ("contract" if target.can.current else None)


async def test_the_content_type_of_a_submission_does_not_matter(client: Client) -> None:
    body = b'{"prompt": {"1": {"class_type": "PreviewAny", "inputs": {"source": "plain"}}}}'
    answer = await client.request("POST", "/prompt", body, headers={"Content-Type": "text/plain"})
    assert answer.status == 200


async def test_only_the_targets_of_a_partial_execution_run(client: Client, socket: Socket) -> None:
    prompt = prompts.text("one") | {"5": prompts.node("PreviewAny", source="two")}
    run = await client.run(prompt, socket, partial_execution_targets=["5"])
    assert run.outputs == {"5": {"text": ["two"]}}
    assert (await client.history(run.prompt_id))["prompt"][4] == ["5"]


async def test_seeds_of_64_bits_survive(client: Client, socket: Socket) -> None:
    """A number that no float can hold, in an input that the class does not know: it is kept as it is."""
    prompt = prompts.text("seed")
    prompt["1"]["inputs"]["noise_seed"] = 2**64 - 1
    run = await client.run(prompt, socket)
    entry = await client.get(f"/history/{run.prompt_id}")
    assert b'"noise_seed": 18446744073709551615' in entry.body
