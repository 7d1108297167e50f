"""GET and POST /queue, /prompt, /interrupt and /free: what waits, in which order, and how it is taken back."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import pytest_asyncio

from tests.contract import prompts
from tests.contract.allowed import allowed
from tests.contract.client import Client, eventually
from tests.contract.sockets import Event, Frame, Socket
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


def events(frames: Sequence[Frame]) -> list[Event]:
    return [frame for frame in frames if isinstance(frame, Event) and frame.kind == "status"]


async def count(socket: Socket, remaining: int) -> None:
    """Wait until everybody has been told of so many prompts."""
    await socket.until_event("status", status={"exec_info": {"queue_remaining": remaining}})


async def settled(socket: Socket, remaining: int) -> None:
    """Wait until the last that was told is so many."""
    last = {"status": {"exec_info": {"queue_remaining": remaining}}}
    await socket.until(lambda frames: events(frames)[-1].data == last)


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
    equal = sorted((str(uuid.uuid4()) for _ in range(3)), reverse=True)
    async with client.socket() as socket:
        async with target.busy(client, socket):
            plain = [await put(client) for _ in range(2)]
            late = await put(client, number=1e9)
            for prompt_id in equal:
                await put(client, prompt_id=prompt_id, number=-1e9)
            first = await put(client, number=-2e9)
            front = [await put(client, front=True) for _ in range(2)]
        await client.history(late)
    done = list(await client.get_json("/history?max_items=9"))
    assert done == [first, *sorted(equal), *reversed(front), *plain, late]


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


async def test_delete_looks_for_strings_only(client: Client, running: str) -> None:
    kept, gone = await put(client), await put(client)
    assert (await client.post("/queue", {"delete": [None, 5, [kept], {kept: kept}, gone, gone]})).status == 200
    assert await waiting(client) == [kept]
    assert [item[1] for item in (await client.queue())[0]] == [running]


async def test_what_is_deleted_while_another_ends_is_gone_or_has_run(client: Client, running: str) -> None:
    """It may start while it is being deleted; then it runs to its end like any other."""
    raced, last = await put(client), await put(client)
    await asyncio.gather(
        client.post("/interrupt", {"prompt_id": running}), client.post("/queue", {"delete": [raced, running]})
    )
    await client.history(last)
    await client.idle()
    entries = await client.get_json(f"/history/{raced}")
    assert entries == {} or entries[raced]["status"]["status_str"] == "success"


async def test_delete_goes_through_the_keys_of_an_object(client: Client, running: str) -> None:
    kept, gone = await put(client), await put(client)
    assert (await client.post("/queue", {"delete": {gone: kept}})).status == 200
    assert await waiting(client) == [kept]
    assert [item[1] for item in (await client.queue())[0]] == [running]


@pytest.mark.usefixtures("running")
async def test_what_is_cleared_is_cleared_though_the_rest_makes_no_sense(client: Client, target: Target) -> None:
    await put(client)
    answer = await client.post("/queue", {"clear": 1, "delete": 5})
    assert answer.status == 500 or (allowed(target, "a 4xx for a 500 page") and answer.status == 400)
    assert await waiting(client) == []


async def test_clear_takes_back_all_that_waits(client: Client, running: str) -> None:
    for _ in range(3):
        await put(client)
    assert (await client.post("/api/queue", {"clear": True})).status == 200
    assert await waiting(client) == []
    assert [item[1] for item in (await client.queue())[0]] == [running]
    assert await client.get_json("/prompt") == {"exec_info": {"queue_remaining": 1}}


@pytest.mark.parametrize(
    "body",
    [
        *({}, {"clear": False}, {"clear": ""}, {"clear": None}, {"delete": []}, {"delete": {}}, {"delete": ""}),
        *({"delete": "ids"}, {"delete": {"id": 1}}, {"delete": [[]]}, [], [5, "queue"], b'"queue"'),
    ],
    ids=str,
)
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


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"5", b"null", b"true", b"\xff", b'["clear"]', b'["delete"]', b'"clear all"'),
        *(b'{"delete": null}', b'{"delete": 0}', b'{"delete": false}', b'{"delete": 1.5}'),
    ],
    ids=repr,
)
async def test_a_body_that_says_nothing(client: Client, target: Target, body: bytes) -> None:
    answer = await client.request("POST", "/queue", body)
    assert answer.status == 500 or (allowed(target, "a 4xx for a 500 page") and answer.status == 400)


@pytest.mark.parametrize("body", [b"[]", b"5", b'"now"'])
async def test_an_interrupt_that_is_no_object_stops_nothing(
    client: Client, target: Target, running: str, body: bytes
) -> None:
    answer = await client.request("POST", "/interrupt", body)
    assert answer.status == 500 or (allowed(target, "a 4xx for a 500 page") and answer.status == 400)
    assert [item[1] for item in (await client.queue())[0]] == [running]


async def test_an_interrupt_by_id_stops_what_runs_and_nothing_else(
    client: Client, running: str, socket: Socket
) -> None:
    kept = await put(client, number=1e9)
    await client.post("/interrupt", {"prompt_id": running})
    await socket.until_event("execution_interrupted", prompt_id=running)
    assert (await client.history(kept))["status"]["status_str"] == "success"


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


async def test_an_id_of_the_history_sent_again(client: Client, socket: Socket) -> None:
    """ComfyUI runs it again. Where the queue is held, the first answer is given again; deleted, it is new to both."""
    prompt, prompt_id = prompts.text(f"again {prompts.fresh()}"), str(uuid.uuid4())
    first = await client.run(prompt, socket, prompt_id=prompt_id)
    again = await client.submit(prompt, socket.client_id, prompt_id=prompt_id)
    assert again.keys() == first.answer.keys()
    assert again["prompt_id"] == prompt_id
    await client.idle()
    await client.post("/history", {"delete": [prompt_id]})
    assert await client.get_json(f"/history/{prompt_id}") == {}
    await client.submit(prompt, socket.client_id, prompt_id=prompt_id)
    assert (await client.history(prompt_id))["status"]["status_str"] == "success"


async def test_the_count_that_everybody_is_told(client: Client, target: Target) -> None:
    """Up by one with each submission, down by one with each that is deleted, cleared or ends; nothing else shows."""
    async with client.socket() as watcher, client.socket() as socket:
        begun = len(watcher.frames) - 1
        async with target.busy(client, socket):
            await count(watcher, 1)
            for number in (2, 3, 4):
                gone = await put(client)
                await count(watcher, number)
            await client.post("/queue", {"delete": [gone]})
            await settled(watcher, 3)
            await client.post("/queue", {"clear": True})
            await settled(watcher, 1)
        await settled(watcher, 0)
    told = [frame.data["status"]["exec_info"]["queue_remaining"] for frame in events(watcher.frames[begun:])]
    steps = [number for place, number in enumerate(told) if place == 0 or told[place - 1] != number]
    assert steps[:5] == [0, 1, 2, 3, 4]
    assert steps[5:] in ([3, 1, 0], [3, 2, 1, 0])


@pytest.mark.usefixtures("running")
async def test_a_long_queue_is_shown_whole(client: Client) -> None:
    ids = {await put(client) for _ in range(60)}
    answer = await client.get("/queue")
    assert {item[1] for item in json.loads(answer.body)["queue_pending"]} == ids
