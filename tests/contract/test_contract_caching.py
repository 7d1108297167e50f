"""Two workflows in turn: what ComfyUI keeps of one while the other runs, and what the proxy makes it keep."""

from typing import Any

import pytest

from tests.contract import prompts
from tests.contract.client import Client, Run
from tests.contract.sockets import Socket
from tests.contract.targets import Target

ROUNDS = 3


async def in_turn(client: Client, socket: Socket, workflows: list[str]) -> list[list[Run]]:
    """Rounds of all workflows in turn, from cold caches; nothing but the loaders can be cached."""
    await client.post("/free", {"unload_models": True, "free_memory": True})
    await client.run(prompts.text(f"cold {prompts.fresh()}"), socket)
    return [
        [await client.run(prompts.decoded(name, width=next_width()), socket) for name in workflows]
        for _ in range(ROUNDS)
    ]


def next_width() -> int:
    """A latent of a size that the round before did not have."""
    return 64 + 8 * (prompts.fresh() % 16)


async def test_loaders_survive_only_before_the_proxy(client: Client, socket: Socket, target: Target) -> None:
    """In the default cache a loader is gone when the other workflow comes; through the proxy it never is."""
    names = await prompts.vae_names(client, at_least=2)
    first, *later = await in_turn(client, socket, names[:2])
    assert [run.cached for run in first] == [[], []]
    kept = ["1"] if target.proxied else []
    assert [[run.cached for run in runs] for runs in later] == [[kept, kept]] * (ROUNDS - 1)


async def test_one_workflow_alone_keeps_its_loader_anyway(client: Client, socket: Socket) -> None:
    (name,) = (await prompts.vae_names(client))[:1]
    first, *later = await in_turn(client, socket, [name])
    assert first[0].cached == []
    assert [runs[0].cached for runs in later] == [["1"]] * (ROUNDS - 1)


async def test_a_loader_that_is_kept_is_not_run_again(client: Client, socket: Socket, target: Target) -> None:
    names = await prompts.vae_names(client, at_least=2)
    last = (await in_turn(client, socket, names[:2]))[-1]
    executing = [[event.data["node"] for event in run.events if event.kind == "executing"] for run in last]
    alone = ["2", "3", "4", None]
    if target.proxied:
        assert executing == [alone, alone]
    else:
        assert all("1" in nodes for nodes in executing)


async def test_nothing_of_it_is_to_be_seen(client: Client, socket: Socket) -> None:
    """Prompts, events and history of the second round name the client's four nodes and no others."""
    names = await prompts.vae_names(client, at_least=2)
    run = (await in_turn(client, socket, names[:2]))[1][0]
    entry = await client.history(run.prompt_id)
    assert entry["prompt"][2].keys() == {"1", "2", "3", "4"}
    assert entry["prompt"][2]["1"] == prompts.node("VAELoader", vae_name=names[0])
    assert entry["prompt"][3].keys() <= {"client_id", "create_time"}
    assert set(named_nodes([event.data for event in run.events])) <= {"1", "2", "3", "4"}
    assert set(named_nodes(entry["status"])) <= {"1", "2", "3", "4"}


async def test_nothing_of_it_is_to_be_seen_in_the_queue(client: Client, socket: Socket, target: Target) -> None:
    names = await prompts.vae_names(client, at_least=2)
    await in_turn(client, socket, names[:2])
    prompt = prompts.decoded(names[0], width=next_width())
    async with target.busy(client, socket):
        prompt_id = (await client.submit(prompt, socket.client_id))["prompt_id"]
        running, ((_, waiting_id, waiting, extra, outputs),) = await client.queue()
    assert (waiting_id, waiting, outputs) == (prompt_id, prompt, ["4"])
    assert extra.keys() <= {"client_id", "create_time"}
    assert all(len(node_id) < 4 for node_id in running[0][2])


async def test_a_loader_of_a_vanished_file_is_told_as_ever(client: Client, socket: Socket) -> None:
    await client.run(prompts.decoded((await prompts.vae_names(client))[0]), socket)
    answer = await client.refuse(prompts.decoded("no such file"))
    assert answer["node_errors"].keys() == {"1"}
    assert answer["node_errors"]["1"]["dependent_outputs"] == ["4"]


@pytest.mark.parametrize("field", ["node", "display_node"])
async def test_an_error_behind_a_loader_names_the_clients_nodes(client: Client, socket: Socket, field: str) -> None:
    name = (await prompts.vae_names(client))[0]
    prompt = prompts.decoded(name, width=next_width())
    prompt["4"] = prompts.node("SaveImage", images=["3", 0], filename_prefix="../outside")
    run = await client.run(prompt, socket)
    assert (run.end.kind, run.end.data["node_id"]) == ("execution_error", "4")
    assert set(run.end.data["executed"]) <= {"1", "2", "3"}
    assert set(run.end.data["current_outputs"]) <= {"1", "2", "3", "4"}
    assert {event.data.get(field) for event in run.events if event.kind == "executing"} <= {None, *"1234"}


def named_nodes(data: Any) -> list[str]:
    """All node ids that some events name, wherever ComfyUI puts them."""
    if isinstance(data, list):
        lists = [named_nodes(item) for item in data]
        return [node_id for ids in lists for node_id in ids]
    if not isinstance(data, dict):
        return []
    found = [data[key] for key in ("node", "display_node", "node_id", "display_node_id") if data.get(key)]
    found += data.get("nodes", [])
    return found + named_nodes(list(data.values()))
