"""What ComfyUI says about prompts that it will not run, or not all of: every kind of fault, word for word."""

from typing import Any

import pytest

from tests.contract import prompts
from tests.contract.client import Client
from tests.contract.normalise import normalise
from tests.contract.prompts import link, node
from tests.contract.sockets import Socket
from tests.contract.targets import Target

NO_OUTPUTS = {
    "error": {"type": "prompt_no_outputs", "message": "Prompt has no outputs", "details": "", "extra_info": {}},
    "node_errors": {},
}
WIDTH = ["INT", {"default": 512, "min": 1, "max": 16384, "step": 1}]


def failed(details: str, **node_errors: Any) -> dict[str, Any]:
    """The answer when no output is left to run; ``details`` tell only of faults in the outputs themselves."""
    error = {
        "type": "prompt_outputs_failed_validation",
        "message": "Prompt outputs failed validation",
        "details": details,
        "extra_info": {},
    }
    return {"error": error, "node_errors": {key.removeprefix("_"): value for key, value in node_errors.items()}}


def faulty(class_type: str, output: str, *errors: dict[str, Any]) -> dict[str, Any]:
    return {"errors": list(errors), "dependent_outputs": [output], "class_type": class_type}


def fault(kind: str, message: str, details: str, **extra: Any) -> dict[str, Any]:
    return {"type": kind, "message": message, "details": details, "extra_info": extra}


def missing(name: str) -> dict[str, Any]:
    return fault("required_input_missing", "Required input is missing", name, input_name=name)


async def test_no_prompt(client: Client) -> None:
    answer = await client.post("/prompt", {"client_id": "somebody"})
    assert answer.status == 400
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    error = fault("no_prompt", "No prompt provided", "No prompt provided")
    assert answer.json() == {"error": error, "node_errors": {}}


@pytest.mark.parametrize("prompt", [{}, {"1": node("PrimitiveString", value="a")}], ids=["empty", "no output node"])
async def test_no_outputs(client: Client, prompt: prompts.Prompt) -> None:
    assert await client.refuse(prompt) == NO_OUTPUTS


async def test_no_targets(client: Client) -> None:
    assert await client.refuse(prompts.text("a"), partial_execution_targets=[]) == NO_OUTPUTS


@pytest.mark.parametrize("title", [None, "My node"])
async def test_a_node_without_a_class(client: Client, target: Target, title: str | None) -> None:
    broken: dict[str, Any] = {"inputs": {}} | ({"_meta": {"title": title}} if title else {})
    answer = await client.refuse(prompts.text("a") | {"7": broken})
    if target.can.current:
        name = title or "ID #7"
        message = f"Node '{name}' has no class_type. The workflow may be corrupted or a custom node is missing."
        error = fault("missing_node_type", message, "Node ID '#7'", node_id="7", class_type=None, node_title=title)
    else:
        message = "Cannot execute because a node is missing the class_type property."
        error = fault("invalid_prompt", message, "Node ID '#7'")
    assert answer == {"error": error, "node_errors": {}}


@pytest.mark.parametrize("title", [None, "My node"])
async def test_an_unknown_class(client: Client, target: Target, title: str | None) -> None:
    broken = node("NoSuchClass") | ({"_meta": {"title": title}} if title else {})
    answer = await client.refuse(prompts.text("a") | {"7": broken})
    if target.can.current:
        title = title or "NoSuchClass"
        message = f"Node '{title}' not found. The custom node may not be installed."
        named = {"node_id": "7", "class_type": "NoSuchClass", "node_title": title}
        error = fault("missing_node_type", message, "Node ID '#7'", **named)
    else:
        error = fault("invalid_prompt", "Cannot execute because node NoSuchClass does not exist.", "Node ID '#7'")
    assert answer == {"error": error, "node_errors": {}}


async def test_a_missing_input_of_an_output(client: Client) -> None:
    answer = await client.refuse({"2": node("PreviewAny")})
    assert answer == failed("Required input is missing: source", _2=faulty("PreviewAny", "2", missing("source")))


async def test_a_missing_input_further_up(client: Client) -> None:
    answer = await client.refuse({"1": node("PrimitiveString"), "2": node("PreviewAny", source=link("1"))})
    assert answer == failed("", _1=faulty("PrimitiveString", "2", missing("value")))


async def test_all_faults_of_a_node_are_told(client: Client) -> None:
    answer = await client.refuse({"1": node("EmptyImage"), "2": node("PreviewImage", images=link("1"))})
    assert answer["node_errors"].keys() == {"1"}
    told = sorted(answer["node_errors"]["1"]["errors"], key=lambda error: str(error["details"]))
    assert told == [missing("batch_size"), missing("color"), missing("height"), missing("width")]


async def test_a_wrong_link_type(client: Client) -> None:
    prompt = {"1": node("PrimitiveString", value="a"), "2": node("PreviewImage", images=link("1"))}
    details = "images, received_type(STRING) mismatch input_type(IMAGE)"
    message = "Return type mismatch between linked nodes"
    error = fault(
        "return_type_mismatch",
        message,
        details,
        input_name="images",
        input_config=["IMAGE", {}],
        received_type="STRING",
        linked_node=["1", 0],
    )
    assert await client.refuse(prompt) == failed(f"{message}: {details}", _2=faulty("PreviewImage", "2", error))


@pytest.mark.parametrize("wrong", [[], ["1"], ["1", 0, 0]])
async def test_a_link_that_is_no_pair(client: Client, wrong: list[Any]) -> None:
    message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
    extra = {"input_name": "images", "input_config": ["IMAGE", {}], "received_value": wrong}
    error = fault("bad_linked_input", message, "images", **extra)
    answer = await client.refuse({"2": node("PreviewImage", images=wrong)})
    assert answer == failed(f"{message}: images", _2=faulty("PreviewImage", "2", error))


@pytest.mark.parametrize(
    ("width", "kind", "message"),
    [
        (0, "value_smaller_than_min", "Value 0 smaller than min of 1"),
        (16385, "value_bigger_than_max", "Value 16385 bigger than max of 16384"),
        (2**64, "value_bigger_than_max", "Value 18446744073709551616 bigger than max of 16384"),
    ],
)
async def test_a_value_out_of_range(client: Client, width: int, kind: str, message: str) -> None:
    error = fault(kind, message, "width", input_name="width", input_config=WIDTH, received_value=width)
    assert await client.refuse(prompts.image(0, width=width)) == failed("", _1=faulty("EmptyImage", "2", error))


async def test_a_value_of_the_wrong_type(client: Client) -> None:
    prompt = prompts.image(0)
    prompt["1"]["inputs"]["width"] = "wide"
    reason = "invalid literal for int() with base 10: 'wide'"
    error = fault(
        "invalid_input_type",
        "Failed to convert an input value to a INT value",
        f"width, wide, {reason}",
        input_name="width",
        input_config=WIDTH,
        received_value="wide",
        exception_message=reason,
    )
    assert await client.refuse(prompt) == failed("", _1=faulty("EmptyImage", "2", error))


async def test_a_value_that_is_no_option(client: Client) -> None:
    options = (await client.get_json("/object_info/VAELoader"))["VAELoader"]["input"]["required"]["vae_name"][0]
    shown = f"(list of length {len(options)})" if len(options) > 20 else str(options)
    error = fault(
        "value_not_in_list",
        "Value not in list",
        f"vae_name: 'no such file' not in {shown}",
        input_name="vae_name",
        input_config=None if len(options) > 20 else [options, {}],
        received_value="no such file",
    )
    answer = await client.refuse(prompts.decoded("no such file"))
    assert answer == failed("", _1=faulty("VAELoader", "4", error))


async def test_a_file_that_is_not_there(client: Client) -> None:
    """LoadImage validates by a function of its own, as many custom nodes do."""
    prompt = {"1": node("LoadImage", image="no such file.png"), "2": node("PreviewImage", images=link("1"))}
    message, details = "Custom validation failed for node", "image - Invalid image file: no such file.png"
    error = fault("custom_validation_failed", message, details, input_name="image")
    assert await client.refuse(prompt) == failed("", _1=faulty("LoadImage", "2", error))


async def test_values_are_cast_before_they_are_judged(client: Client, socket: Socket) -> None:
    prompt = prompts.image(0)
    prompt["1"]["inputs"] |= {"width": "64", "height": 48.9}
    run = await client.run(prompt, socket)
    inputs = (await client.history(run.prompt_id))["prompt"][2]["1"]["inputs"]
    assert (inputs["width"], inputs["height"]) == (64, 48)


async def test_the_good_outputs_run_though_others_failed(client: Client, socket: Socket) -> None:
    run = await client.run(prompts.text("good") | {"5": node("PreviewAny")}, socket)
    assert run.answer["node_errors"] == {"5": faulty("PreviewAny", "5", missing("source"))}
    assert run.outputs == {"2": {"text": ["good"]}}
    assert (await client.history(run.prompt_id))["prompt"][4] == ["2"]


async def test_one_fault_may_fail_several_outputs(client: Client) -> None:
    prompt = {
        "1": node("EmptyImage", width=0, height=8, batch_size=1, color=0),
        "2": node("PreviewImage", images=link("1")),
        "3": node("PreviewImage", images=link("1")),
    }
    answer = await client.refuse(prompt)
    assert answer["node_errors"].keys() == {"1"}
    assert sorted(answer["node_errors"]["1"]["dependent_outputs"]) == ["2", "3"]


@pytest.mark.parametrize(
    ("wrong", "kind", "details"),
    [
        (["9", 0], "KeyError", "'9'"),
        ([1, 0], "KeyError", "1"),
        ([None, 0], "KeyError", "None"),
        ([["1"], 0], "TypeError", "unhashable type: 'list'"),
        (["1", 5], "IndexError", "tuple index out of range"),
        (["1", "0"], "TypeError", "tuple indices must be integers or slices, not str"),
    ],
    ids=["to nowhere", "by number", "by null", "by list", "to no slot", "to a named slot"],
)
async def test_a_broken_link(client: Client, wrong: list[Any], kind: str, details: str) -> None:
    prompt = {"1": node("ImageInvert", image=link("1")), "2": node("PreviewAny", source=wrong)}
    answer = normalise(await client.refuse(prompt))
    error = fault("exception_during_validation", "Exception when validating node", details)
    error["extra_info"] = {"exception_type": kind, "traceback": "<traceback>"}
    assert answer == failed(f"Exception when validating node: {details}", _2=faulty("PreviewAny", "2", error))


async def test_a_broken_link_further_up(client: Client) -> None:
    prompt = {"1": node("ImageInvert", image=link("9")), "2": node("PreviewImage", images=link("1"))}
    answer = normalise(await client.refuse(prompt))
    error = fault(
        "exception_during_inner_validation",
        "Exception when validating inner node",
        "'9'",
        input_name="images",
        input_config=["IMAGE", {}],
        exception_message="'9'",
        exception_type="KeyError",
        traceback="<traceback>",
        linked_node=["1", 0],
    )
    assert answer == failed("", _1=faulty("ImageInvert", "2", error))


async def test_a_cycle(client: Client, target: Target) -> None:
    prompt = {
        "1": node("ImageInvert", image=link("2")),
        "2": node("ImageInvert", image=link("1")),
        "3": node("PreviewImage", images=link("2")),
    }
    answer = normalise(await client.refuse(prompt))
    if not target.can.current:
        assert answer == failed("")
        return
    path = "2 (ImageInvert) -> 1 (ImageInvert) -> 2 (ImageInvert)"
    one, two = (
        fault("dependency_cycle", "Dependency cycle detected", path, node_id=node_id, cycle_nodes=["2", "1"])
        for node_id in "12"
    )
    assert answer == failed("", _1=faulty("ImageInvert", "3", one), _2=faulty("ImageInvert", "3", two))
