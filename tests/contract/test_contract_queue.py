"""GET and POST /queue, /prompt, /interrupt and /free: what waits, in which order, and how it is taken back."""

import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.contract import prompts
from tests.contract.allowed import allowed
from tests.contract.client import Client, eventually
from tests.contract.sockets import Socket
from tests.contract.targets import Target


@pytest_asyncio.fixture(loop_scope="module")
async def running(target: Target, client: Client, socket: Socket) -> AsyncIterator[str]:
    """The id of a prompt that runs all through the test; what still waits at the end is thrown away."""
    async with target.busy(client, socket) as prompt_id:
        yield prompt_id
        await client.post("/queue", {"clear": True})


async def put(client: Client, **fields: Any) -> str:
    prompt_id: str = (await client.submit(prompts.text(f"waits {prompts.fresh()}"), **fields))["prompt_id"]
    return prompt_id


async def waiting(client: Client) -> list[str]:
    """Ids of what waits, in the order in which it will run."""
    pending = (await client.queue())[1]
    return [item[1] for item in sorted(pending, key=lambda item: (item[0], item[1]))]


@pytest.mark.parametrize("prefix", ["", "/api"])
async def test_an_empty_queue(client: Client, prefix: str) -> None:
    answer = await client.get(f"{prefix}/queue")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json; charset=utf-8")
    assert answer.json() == {"queue_running": [], "queue_pending": []}
    assert await client.get_json(f"{prefix}/prompt") == {"exec_info": {"queue_remaining": 0}}


async def test_an_item_shows_all_of_its_prompt(client: Client, running: str) -> None:
    prompt = prompts.text("shown") | {"9": prompts.node("ImageInvert") | {"_meta": {"title": "unwired"}}}
    sent: dict[str, Any] = {"extra_pnginfo": {"workflow": {"nodes": []}}}
    answer = await client.submit(prompt, "somebody", extra_data=sent)
    pending = (await client.queue())[1]
    number, prompt_id, shown, extra, outputs = pending[0]
    assert (number, prompt_id, shown, outputs) == (answer["number"], answer["prompt_id"], prompt, ["2"])
    assert isinstance(extra.pop("create_time", 0), int)
    assert extra == sent | {"client_id": "somebody"}
    assert running != prompt_id


async def test_what_runs_is_shown_apart_from_what_waits(client: Client, running: str, socket: Socket) -> None:
    first, second = await put(client), await put(client)
    active, pending = await client.queue()
    assert [(item[1], item[3]["client_id"]) for item in active] == [(running, socket.client_id)]
    assert sorted(item[1] for item in pending) == sorted([first, second])
    assert await client.get_json("/prompt") == {"exec_info": {"queue_remaining": 3}}
    await socket.until_event("status", status={"exec_info": {"queue_remaining": 3}})


@pytest.mark.usefixtures("running")
async def test_secrets_are_not_shown(client: Client, target: Target) -> None:
    await put(client, extra_data={"auth_token_comfy_org": "secret", "api_key_comfy_org": "secret"})
    answer = await client.get("/queue")
    assert (b"secret" in answer.body) is not target.can.current


@pytest.mark.usefixtures("running")
async def test_numbers_decide_the_order(client: Client) -> None:
    plain = [await put(client) for _ in range(2)]
    front = [await put(client, front=True) for _ in range(2)]
    last = await put(client, number=1e9)
    first = await put(client, number=-1e9)
    assert await waiting(client) == [first, *reversed(front), *plain, last]


async def test_they_run_in_that_order(client: Client, target: Target) -> None:
    async with client.socket() as socket:
        async with target.busy(client, socket):
            plain = await put(client)
            late = await put(client, number=1e9)
            front = await put(client, front=True)
        await client.history(late)
    done = list(await client.get_json("/history?max_items=3"))
    assert done == [front, plain, late]


@pytest.mark.usefixtures("running")
async def test_equal_numbers_run_in_order_of_their_ids(client: Client) -> None:
    ids = sorted((str(uuid.uuid4()) for _ in range(4)), reverse=True)
    for prompt_id in ids:
        await put(client, prompt_id=prompt_id, number=12)
    assert await waiting(client) == sorted(ids)


@pytest.mark.usefixtures("running")
async def test_the_first_of_the_list_is_the_next_to_run(client: Client) -> None:
    """The list is a heap: only its first item is certain to be where it belongs."""
    for number in (5, 3, 9, 1, 7):
        await put(client, number=number)
    assert (await client.queue())[1][0][0] == 1.0


async def test_delete_takes_back_what_waits(client: Client, running: str) -> None:
    kept, gone = await put(client), await put(client)
    answer = await client.post("/queue", {"delete": [gone, "unknown", running]})
    assert (answer.status, answer.body, answer.headers["Content-Length"]) == (200, b"", "0")
    assert await waiting(client) == [kept]
    assert [item[1] for item in (await client.queue())[0]] == [running]
    assert await client.get_json(f"/history/{gone}") == {}


async def test_clear_takes_back_all_that_waits(client: Client, running: str) -> None:
    for _ in range(3):
        await put(client)
    assert (await client.post("/api/queue", {"clear": True})).status == 200
    assert await waiting(client) == []
    assert [item[1] for item in (await client.queue())[0]] == [running]
    assert await client.get_json("/prompt") == {"exec_info": {"queue_remaining": 1}}


@pytest.mark.parametrize("body", [{}, {"clear": False}, {"delete": []}])
@pytest.mark.usefixtures("running")
async def test_a_request_for_nothing_does_nothing(client: Client, body: Any) -> None:
    kept = await put(client)
    assert (await client.post("/queue", body)).status == 200
    assert await waiting(client) == [kept]


@pytest.mark.usefixtures("running")
async def test_deleting_what_waits_is_told_to_all(client: Client, socket: Socket) -> None:
    gone = await put(client)
    await socket.until_event("status", status={"exec_info": {"queue_remaining": 2}})
    before = len(socket.frames)
    await client.post("/queue", {"delete": [gone]})
    one = {"status": {"exec_info": {"queue_remaining": 1}}}
    await socket.until(lambda frames: any(f.kind == "status" and f.data == one for f in frames[before:]))


@pytest.mark.parametrize("body", [b"", b"{", b"5"], ids=["nothing", "no JSON", "a number"])
async def test_a_body_that_says_nothing(client: Client, target: Target, body: bytes) -> None:
    answer = await client.request("POST", "/queue", body)
    assert answer.status == 500 or (allowed(target, "a 4xx for a 500 page") and answer.status == 400)


async def test_an_interrupt_of_another_prompt_does_nothing(client: Client, running: str) -> None:
    kept = await put(client)
    for other in (kept, str(uuid.uuid4())):
        answer = await client.post("/interrupt", {"prompt_id": other})
        assert (answer.status, answer.body) == (200, b"")
    assert [item[1] for item in (await client.queue())[0]] == [running]
    assert await waiting(client) == [kept]


@pytest.mark.parametrize("body", [b"", b"{}", b'{"prompt_id": null}', b'{"prompt_id": ""}'])
async def test_an_interrupt_without_an_id_stops_what_runs(
    client: Client, running: str, socket: Socket, body: bytes
) -> None:
    answer = await client.request("POST", "/api/interrupt", body)
    assert (answer.status, answer.body) == (200, b"")
    await socket.until_event("execution_interrupted", prompt_id=running)


async def test_after_an_interrupt_the_next_one_runs(client: Client, running: str) -> None:
    following = await put(client)
    await client.post("/interrupt", {"prompt_id": running})
    assert (await client.history(following))["status"]["status_str"] == "success"


async def test_an_interrupt_while_nothing_runs_is_forgotten(client: Client, socket: Socket) -> None:
    assert (await client.post("/interrupt", {})).status == 200
    assert (await client.run(prompts.text("after"), socket)).end.kind == "execution_success"


async def test_free_memory_empties_the_caches(client: Client, socket: Socket) -> None:
    prompt = prompts.text(f"kept {prompts.fresh()}")
    await client.run(prompt, socket)
    assert (await client.run(prompt, socket)).cached == ["1", "2"]
    answer = await client.post("/free", {"unload_models": True, "free_memory": True})
    assert (answer.status, answer.body) == (200, b"")

    async def emptied() -> bool:
        return (await client.run(prompt, socket)).cached == []

    await eventually(emptied, "an empty cache")


@pytest.mark.parametrize("body", [{}, {"unload_models": True}, {"free_memory": False}])
async def test_the_caches_stay_when_only_models_are_unloaded(client: Client, socket: Socket, body: Any) -> None:
    prompt = prompts.text(f"stays {prompts.fresh()}")
    await client.run(prompt, socket)
    assert (await client.post("/api/free", body)).status == 200
    assert (await client.run(prompt, socket)).cached == ["1", "2"]


async def test_a_prompt_deleted_and_sent_again_runs(client: Client, target: Target) -> None:
    prompt_id = str(uuid.uuid4())
    async with client.socket() as socket:
        async with target.busy(client, socket):
            await put(client, prompt_id=prompt_id)
            await client.post("/queue", {"delete": [prompt_id]})
            await put(client, prompt_id=prompt_id)
        await client.history(prompt_id)


@pytest.mark.usefixtures("running")
async def test_one_id_twice_under_different_numbers(client: Client, target: Target) -> None:
    """ComfyUI queues it twice. The proxy may take it for the repetition that it is, and answer as before."""
    prompt_id = str(uuid.uuid4())
    answers = [await client.submit(prompts.text("once"), prompt_id=prompt_id) for _ in range(2)]
    assert [answer["prompt_id"] for answer in answers] == [prompt_id] * 2
    queued = (await waiting(client)).count(prompt_id)
    assert queued == 2 or (allowed(target, "a repeated id runs once") and queued == 1)


@pytest.mark.usefixtures("running")
async def test_a_long_queue_is_shown_whole(client: Client) -> None:
    ids = {await put(client) for _ in range(60)}
    answer = await client.get("/queue")
    assert {item[1] for item in json.loads(answer.body)["queue_pending"]} == ids
