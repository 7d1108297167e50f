"""GET and POST /history: what is left of a prompt when it is done."""

from typing import Any

import pytest
import pytest_asyncio

from tests.contract import prompts
from tests.contract.allowed import allowed
from tests.contract.client import Client
from tests.contract.normalise import normalise, without_time
from tests.contract.sockets import Socket
from tests.contract.targets import Target


@pytest_asyncio.fixture(loop_scope="module")
async def history(client: Client, socket: Socket) -> list[str]:
    """A history of five prompts and nothing else; their ids, oldest first."""
    await client.post("/history", {"clear": True})
    return [(await client.run(prompts.text(f"history {n}"), socket)).prompt_id for n in range(5)]


def shown(value: str, node_id: str = "2") -> tuple[dict[str, Any], dict[str, Any]]:
    """``outputs`` and ``meta`` of one node that showed a text."""
    meta = {"node_id": node_id, "display_node": node_id, "parent_node": None, "real_node_id": node_id}
    return {node_id: {"text": [value]}}, {node_id: meta}


async def test_the_entry_of_a_success(client: Client, socket: Socket, target: Target) -> None:
    prompt = prompts.text(f"entry {prompts.fresh()}")
    run = await client.run(prompt, socket, extra_data={"mine": 1})
    entry = await client.history(run.prompt_id)
    outputs, meta = shown(prompt["1"]["inputs"]["value"])
    extra = {"mine": 1, "client_id": socket.client_id} | ({"create_time": "<time>"} if target.can.current else {})
    assert list(entry) == ["prompt", "outputs", "status", "meta"]
    assert entry["prompt"][1] == run.prompt_id
    me = {"prompt_id": "<uuid>", "timestamp": "<time>"}
    assert normalise(entry) == {
        "prompt": [run.answer["number"], "<uuid>", prompt, extra, ["2"]],
        "outputs": outputs,
        "status": {
            "status_str": "success",
            "completed": True,
            "messages": [
                ["execution_start", me],
                ["execution_cached", {"nodes": []} | me],
                ["execution_success", me],
            ],
        },
        "meta": meta,
    }


async def test_messages_are_the_events_that_were_sent(client: Client, socket: Socket) -> None:
    run = await client.run(prompts.failing(prompts.fresh()), socket)
    messages = (await client.history(run.prompt_id))["status"]["messages"]
    sent = [[event.kind, event.data] for event in run.events if event.kind.startswith("execution_")]
    assert messages == sent


async def test_the_entry_of_a_cached_prompt_has_its_outputs_again(client: Client, socket: Socket) -> None:
    prompt = prompts.text(f"again {prompts.fresh()}")
    await client.run(prompt, socket)
    run = await client.run(prompt, socket)
    entry = await client.history(run.prompt_id)
    assert (entry["outputs"], entry["meta"]) == shown(prompt["1"]["inputs"]["value"])
    assert entry["status"]["messages"][1][1]["nodes"] == ["1", "2"]


async def test_the_entry_of_a_failure(client: Client, socket: Socket) -> None:
    run = await client.run(prompts.failing(prompts.fresh()), socket)
    entry = await client.history(run.prompt_id)
    assert (entry["outputs"], entry["meta"]) == ({}, {})
    status = entry["status"]
    assert (status["status_str"], status["completed"]) == ("error", False)
    kind, data = status["messages"][-1]
    assert (kind, data["node_id"], data["node_type"]) == ("execution_error", "2", "SaveImage")


async def test_a_failure_keeps_what_was_shown_before_it(client: Client, socket: Socket) -> None:
    shown_first = prompts.text(f"before {prompts.fresh()}")
    failing = {"7": prompts.node("SaveImage", images=["6", 0], filename_prefix="../../x")}
    failing["6"] = prompts.node("EmptyImage", width=8, height=8, batch_size=1, color=prompts.fresh())
    run = await client.run(shown_first | failing, socket)
    entry = await client.history(run.prompt_id)
    assert run.end.kind == "execution_error"
    assert entry["outputs"].keys() == run.outputs.keys()
    assert entry["outputs"].keys() <= {"2"}


async def test_the_entry_of_an_interrupted_prompt(client: Client, socket: Socket, target: Target) -> None:
    async with target.busy(client, socket) as prompt_id:
        await client.post("/interrupt", {"prompt_id": prompt_id})
        entry = await client.history(prompt_id)
    status = entry["status"]
    assert (status["status_str"], status["completed"]) == ("error", False)
    kind, data = status["messages"][-1]
    assert kind == "execution_interrupted"
    assert without_time(data).keys() == {"prompt_id", "node_id", "node_type", "executed"}


async def test_messages_are_kept_without_a_client(client: Client) -> None:
    prompt_id = (await client.submit(prompts.text(f"unseen {prompts.fresh()}")))["prompt_id"]
    entry = await client.history(prompt_id)
    assert "client_id" not in entry["prompt"][3]
    kinds = [kind for kind, _ in entry["status"]["messages"]]
    assert kinds == ["execution_start", "execution_cached", "execution_success"]


async def test_the_oldest_comes_first(client: Client, history: list[str]) -> None:
    assert list(await client.get_json("/history")) == history
    assert list(await client.get_json("/api/history")) == history


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("max_items=2", [3, 4]),
        ("max_items=9", [0, 1, 2, 3, 4]),
        ("max_items=1&offset=0", [0]),
        ("max_items=2&offset=1", [1, 2]),
        ("offset=3", [3, 4]),
        ("offset=-1", [0, 1, 2, 3, 4]),
        ("max_items=2&offset=-4", [3, 4]),
        ("offset=9", []),
        ("max_items=0", []),
        ("max_items=0&offset=1", [1]),
    ],
)
async def test_a_part_of_it(client: Client, history: list[str], query: str, expected: list[int]) -> None:
    assert list(await client.get_json(f"/history?{query}")) == [history[index] for index in expected]


@pytest.mark.parametrize("query", ["max_items=x", "offset=x", "max_items="])
async def test_a_part_that_is_no_number(client: Client, target: Target, query: str) -> None:
    answer = await client.get(f"/history?{query}")
    assert answer.status == 500 or (allowed(target, "a 4xx for a 500 page") and answer.status == 400)


async def test_one_of_it(client: Client, history: list[str]) -> None:
    whole = await client.get_json("/history")
    for prefix in ("", "/api"):
        assert await client.get_json(f"{prefix}/history/{history[2]}") == {history[2]: whole[history[2]]}


async def test_one_that_is_not_there(client: Client) -> None:
    answer = await client.get("/history/never-heard-of-it")
    assert (answer.status, answer.body) == (200, b"{}")


async def test_one_can_be_deleted(client: Client, history: list[str]) -> None:
    answer = await client.post("/history", {"delete": [history[1], "unknown"]})
    assert (answer.status, answer.body) == (200, b"")
    assert list(await client.get_json("/history")) == [history[0], *history[2:]]
    assert await client.get_json(f"/history/{history[1]}") == {}


async def test_all_can_be_deleted(client: Client, history: list[str]) -> None:
    assert len(history) == 5
    assert (await client.post("/api/history", {"clear": True})).status == 200
    assert await client.get_json("/history") == {}


async def test_what_waits_is_not_history(client: Client, socket: Socket, target: Target) -> None:
    async with target.busy(client, socket) as running:
        waiting = (await client.submit(prompts.text("waits")))["prompt_id"]
        assert await client.get_json(f"/history/{running}") == {}
        assert await client.get_json(f"/history/{waiting}") == {}
