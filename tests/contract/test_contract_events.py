"""What the client of a prompt is told while it runs: every event, in order, in the client's own ids."""

from typing import Any

from tests.contract import prompts
from tests.contract.client import Client, Run
from tests.contract.normalise import without_time
from tests.contract.prompts import link, node
from tests.contract.sockets import Event, Socket
from tests.contract.targets import Target

STEP = ["progress_state", "executing", "progress_state"]
"""One node that runs and shows nothing."""

OUTPUT = ["progress_state", "executing", "executed", "progress_state"]
"""One node that runs and shows something."""


def told(run: Run) -> list[tuple[str, dict[str, Any]]]:
    return [(event.kind, without_time(event.data)) for event in run.events]


def state(prompt_id: str, **nodes: tuple[float, float, str]) -> dict[str, Any]:
    """The data of a ``progress_state``: value, maximum and state of each node that is not pending."""
    return {
        "prompt_id": prompt_id,
        "nodes": {
            node_id[1:]: {
                "value": value,
                "max": maximum,
                "state": name,
                "node_id": node_id[1:],
                "prompt_id": prompt_id,
                "display_node_id": node_id[1:],
                "parent_node_id": None,
                "real_node_id": node_id[1:],
            }
            for node_id, (value, maximum, name) in nodes.items()
        },
    }


STATUS_OF_ONE = Event("status", {"status": {"exec_info": {"queue_remaining": 1}}})


def remaining(socket: Socket) -> list[int]:
    return [event.data["status"]["exec_info"]["queue_remaining"] for event in socket.named("status")]


RUNNING, FINISHED = (0.0, 1.0, "running"), (1.0, 1.0, "finished")


async def test_every_event_of_a_prompt(client: Client, socket: Socket) -> None:
    value = f"text {prompts.fresh()}"
    run = await client.run(prompts.text(value), socket)
    me = {"prompt_id": run.prompt_id}
    shown = {"node": "2", "display_node": "2", "output": {"text": [value]}} | me
    assert told(run) == [
        ("execution_start", me),
        ("execution_cached", {"nodes": []} | me),
        ("progress_state", state(run.prompt_id, _1=RUNNING)),
        ("executing", {"node": "1", "display_node": "1"} | me),
        ("progress_state", state(run.prompt_id, _1=FINISHED)),
        ("progress_state", state(run.prompt_id, _1=FINISHED, _2=RUNNING)),
        ("executing", {"node": "2", "display_node": "2"} | me),
        ("executed", shown),
        ("progress_state", state(run.prompt_id, _1=FINISHED, _2=FINISHED)),
        ("execution_success", me),
        ("executing", {"node": None} | me),
    ]


async def test_every_event_of_a_cached_prompt(client: Client, socket: Socket) -> None:
    prompt = prompts.text(f"cached {prompts.fresh()}")
    await client.run(prompt, socket)
    run = await client.run(prompt, socket)
    me = {"prompt_id": run.prompt_id}
    shown = {"node": "2", "display_node": "2", "output": {"text": [prompt["1"]["inputs"]["value"]]}} | me
    assert told(run) == [
        ("execution_start", me),
        ("execution_cached", {"nodes": ["1", "2"]} | me),
        ("executed", shown),
        ("progress_state", state(run.prompt_id, _2=FINISHED)),
        ("execution_success", me),
        ("executing", {"node": None} | me),
    ]


async def test_only_what_changed_runs_again(client: Client, socket: Socket) -> None:
    prompt = prompts.image(prompts.fresh())
    await client.run(prompt, socket)
    run = await client.run(prompt | {"2": node("PreviewAny", source="instead"), "3": prompt["2"]}, socket)
    assert run.cached == ["1", "3"]
    assert sorted(run.outputs) == ["2", "3"]
    executing = [event.data["node"] for event in run.events if event.kind == "executing"]
    assert executing == ["2", None]


async def test_timestamps_are_milliseconds(client: Client, socket: Socket) -> None:
    run = await client.run(prompts.text("time"), socket)
    times = [event.data["timestamp"] for event in run.events if event.kind.startswith("execution_")]
    assert len(times) == 3
    assert times == sorted(times)
    assert all(isinstance(time, int) and time > 1_600_000_000_000 for time in times)


async def test_ids_need_not_be_numbers(client: Client, socket: Socket) -> None:
    prompt = {
        "a:b": node("PrimitiveString", value=f"{prompts.fresh()}"),
        "ü 1.0": node("PreviewAny", source=["a:b", 0]),
    }
    run = await client.run(prompt, socket)
    executing = [event.data["node"] for event in run.events if event.kind == "executing"]
    assert executing == ["a:b", "ü 1.0", None]


async def test_nodes_run_in_order_of_their_links(client: Client, socket: Socket) -> None:
    prompt = {
        "3": node("ImageInvert", image=link("2")),
        "1": node("EmptyImage", width=8, height=8, batch_size=1, color=prompts.fresh()),
        "4": node("PreviewImage", images=link("3")),
        "2": node("ImageInvert", image=link("1")),
    }
    run = await client.run(prompt, socket)
    assert run.kinds == ["execution_start", "execution_cached", *STEP * 3, *OUTPUT, "execution_success", "executing"]
    executing = [event.data["node"] for event in run.events if event.kind == "executing"]
    assert executing == ["1", "2", "3", "4", None]


async def test_an_unwired_node_does_not_run(client: Client, socket: Socket) -> None:
    prompt = prompts.text(f"alone {prompts.fresh()}") | {"9": node("ImageInvert")}
    run = await client.run(prompt, socket)
    assert "9" not in {event.data.get("node") for event in run.events}
    assert run.answer["node_errors"] == {}


async def test_several_outputs_each_show_theirs(client: Client, socket: Socket) -> None:
    prompt = {key: node("PreviewAny", source=f"{key} {prompts.fresh()}") for key in "123"}
    run = await client.run(prompt, socket)
    assert run.outputs == {key: {"text": [prompt[key]["inputs"]["source"]]} for key in "123"}
    assert run.kinds == ["execution_start", "execution_cached", *OUTPUT * 3, "execution_success", "executing"]


async def test_equal_nodes_run_once(client: Client, socket: Socket) -> None:
    """Results are found by what went in, so the second of two equal nodes is served from the first's result."""
    twin = node("PreviewAny", source=f"{prompts.fresh()}")
    run = await client.run({"1": twin, "2": twin}, socket)
    assert run.cached == []
    assert run.outputs["1"] == run.outputs["2"]
    served = ["executed", "progress_state"]
    assert run.kinds == ["execution_start", "execution_cached", *OUTPUT, *served, "execution_success", "executing"]


async def test_status_tells_the_length_of_the_queue(client: Client, socket: Socket) -> None:
    await client.run(prompts.text("status"), socket)
    await socket.until(lambda _: remaining(socket)[-1] == 0)
    assert remaining(socket)[0] == 0
    assert set(remaining(socket)) == {0, 1}
    kinds = [frame.kind for frame in socket.frames]
    first = next(index for index, frame in enumerate(socket.frames) if frame == STATUS_OF_ONE)
    assert first < kinds.index("execution_start")


async def test_an_error_ends_the_prompt(client: Client, socket: Socket) -> None:
    prompt = prompts.failing(prompts.fresh())
    run = await client.run(prompt, socket)
    assert run.kinds == [
        "execution_start",
        "execution_cached",
        *STEP,
        *["progress_state", "executing", "execution_error"],
        "executing",
    ]
    error = without_time(run.end.data)
    message: str = error.pop("exception_message")
    assert message.startswith("**** ERROR: Saving image outside the output folder is not allowed.\n")
    assert message.endswith("\n")
    assert all(isinstance(line, str) for line in error.pop("traceback"))
    assert set(error.pop("current_outputs")) == {"1", "2"}
    inputs = error.pop("current_inputs")
    assert inputs.keys() == {"images", "filename_prefix", "prompt", "extra_pnginfo"}
    assert (inputs["filename_prefix"], inputs["extra_pnginfo"]) == (["../outside/of/it"], [None])
    assert error == {
        "prompt_id": run.prompt_id,
        "node_id": "2",
        "node_type": "SaveImage",
        "executed": ["1"],
        "exception_type": "Exception",
    }


async def test_an_error_shows_the_prompt_that_was_sent(client: Client, socket: Socket) -> None:
    """The failing node's PROMPT input comes with its error, as Python prints it."""
    prompt = prompts.failing(prompts.fresh())
    run = await client.run(prompt, socket)
    assert run.end.data["current_inputs"]["prompt"] == [str(prompt)]


async def test_the_next_prompt_runs_after_an_error(client: Client, socket: Socket) -> None:
    await client.run(prompts.failing(prompts.fresh()), socket)
    assert (await client.run(prompts.text("next"), socket)).end.kind == "execution_success"


async def test_an_interrupt_ends_the_prompt(client: Client, socket: Socket, target: Target) -> None:
    async with target.busy(client, socket) as prompt_id:
        answer = await client.post("/interrupt", {"prompt_id": prompt_id})
        await socket.until_done(prompt_id)
    assert (answer.status, answer.body) == (200, b"")
    *_, end, last = socket.events(prompt_id)
    assert (end.kind, last.kind, last.data["node"]) == ("execution_interrupted", "executing", None)
    assert end.data.keys() == {"prompt_id", "node_id", "node_type", "executed", "timestamp"}
    running = [event.data["node"] for event in socket.events(prompt_id) if event.kind == "executing"]
    assert end.data["node_id"] == running[-2]
    assert set(end.data["executed"]) == set(running[:-2])


async def test_progress_of_one_node(client: Client, socket: Socket) -> None:
    run = await client.run(await prompts.over_the_socket(client), socket)
    progress = [event.data for event in run.events if event.kind == "progress"]
    assert progress == [{"value": step, "max": 3, "prompt_id": run.prompt_id, "node": "2"} for step in range(3)]
    states = [event.data["nodes"]["2"] for event in run.events if "2" in event.data.get("nodes", {})]
    running = [(entry["value"], entry["max"]) for entry in states if entry["state"] == "running"]
    assert running == [(0, 1), (0, 3), (1, 3), (2, 3)]
    assert (states[-1]["value"], states[-1]["state"]) == (3, "finished")
