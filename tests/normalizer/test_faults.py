"""What is known to kill ComfyUI is found; what it survives is not called a fault."""

from typing import Any

import pytest

from normalizer import fatal_faults
from normalizer.faults import MAX_DEPTH, MAX_ROW
from tests.normalizer.schemas import SCHEMA, node

SINK = node("Sink", model=["1", 0])
LOADER = node("VAELoader", vae_name="v")


def places(body: dict[str, Any]) -> list[str | None]:
    faults = fatal_faults(body, SCHEMA)
    assert all(fault.what and fault.remedy for fault in faults)
    return [fault.node_id for fault in faults]


def nested(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("client_id", [[], {}, ["a"], {"a": 1}])
def test_client_ids_that_cannot_be_looked_up(client_id: Any) -> None:
    assert places({"prompt": {}, "client_id": client_id}) == [None]
    assert places({"prompt": {}, "extra_data": {"client_id": client_id}}) == [None]


@pytest.mark.parametrize("client_id", ["a", "", 5, None, True])
def test_other_client_ids_only_reach_nobody(client_id: Any) -> None:
    assert not places({"prompt": {}, "client_id": client_id, "extra_data": {"client_id": client_id}})


@pytest.mark.parametrize("extra_data", [None, [], 5, "text"])
def test_extra_data_that_is_no_object(extra_data: Any) -> None:
    assert places({"prompt": {}, "extra_data": extra_data}) == [None]


NO_INPUTS: list[dict[str, Any]] = [
    {"class_type": "VAELoader"},
    {**LOADER, "inputs": None},
    {**LOADER, "inputs": []},
    {**LOADER, "inputs": "a"},
    {**LOADER, "inputs": 1},
]


@pytest.mark.parametrize("broken", NO_INPUTS)
def test_a_node_without_inputs(broken: dict[str, Any]) -> None:
    assert places({"prompt": {"1": broken, "2": LOADER, "3": broken}}) == ["1", "3"]


@pytest.mark.parametrize("other", [{"inputs": {}}, [], "text", None])
def test_a_prompt_that_is_refused_for_another_node_kills_nobody(other: Any) -> None:
    assert not places({"prompt": {"1": {"class_type": "VAELoader"}, "2": other}})


@pytest.mark.parametrize("body", [{}, {"prompt": None}, {"prompt": []}, {"prompt": 5}, {"number": 1}])
def test_what_is_no_prompt_at_all_is_refused_by_comfyui(body: dict[str, Any]) -> None:
    assert not places(body)


@pytest.mark.parametrize("place", ["input", "meta", "extra_data"])
def test_nesting(place: str) -> None:
    def body(levels: int) -> dict[str, Any]:
        deep = nested(levels)
        prompt = {"1": {**LOADER, "_meta": deep if place == "meta" else {}}}
        if place == "input":
            prompt["1"] = node("VAELoader", junk=deep)
        return {"prompt": prompt, "extra_data": {"x": deep if place == "extra_data" else 1}}

    assert not places(body(MAX_DEPTH - 4))
    assert places(body(MAX_DEPTH + 1)) == [None]
    assert places(body(100_000)) == [None]


def test_nodes_in_a_row() -> None:
    def row(length: int) -> dict[str, Any]:
        nodes = {"0": node("SelfLoader", name="m1")}
        for place in range(1, length):
            nodes[str(place)] = node("ModelSamplingSD3", model=[str(place - 1), 0], shift=1)
        return {"prompt": nodes}

    assert not places(row(MAX_ROW))
    assert places(row(MAX_ROW + 1)) == [str(MAX_ROW)]


def test_a_great_many_nodes_side_by_side_are_no_fault() -> None:
    nodes = {str(place): node("Sink", model=["ring", 0]) for place in range(MAX_ROW + 50)}
    ring = {"ring": node("AnySwitch", a=["knot", 0]), "knot": node("AnySwitch", a=["ring", 0])}
    assert not places({"prompt": {**nodes, **ring}})


@pytest.mark.parametrize(
    "nodes",
    [
        {"1": node("VAELoader", vae_name="v", junk=["99", 0])},
        {"1": node("AnySwitch", a={"__value__": ["99", 0]})},
        {"1": node("PowerLora", model=["2", 0]), "2": node("LoraLoader", model=["99", 0])},
        {"1": node("PowerLora", model=["2", 1]), "2": node("SelfLoader", name="m1")},
        {"1": node("PowerLora", model=["2", 0.0]), "2": node("SelfLoader", name="m1")},
        {"1": node("PowerLora", model=["2", -2]), "2": node("SelfLoader", name="m1")},
    ],
)
def test_links_that_validation_does_not_see(nodes: dict[str, Any]) -> None:
    assert len(places({"prompt": {**nodes, "sink": SINK}})) == 1
    assert not places({"prompt": nodes}), "nothing runs"
    assert not fatal_faults({"prompt": {**nodes, "sink": SINK}}), "without a schema nothing is known"


@pytest.mark.parametrize(
    "nodes",
    [
        {},  # the sink's own link leads nowhere, and validation says so
        {"1": node("AnySwitch", a=["99", 0])},
        {"1": node("AnySwitch", a=["2", 7]), "2": node("SelfLoader", name="m1")},
        {"1": node("PowerLora", model=["2", -1]), "2": node("SelfLoader", name="m1")},
        {"1": node("PowerLora", model=["2", True], lora={"on": 1}), "2": node("CheckpointLoaderSimple", ckpt_name="m")},
        {"1": node("VAELoader", vae_name="v", junk=["99"]), "2": node("NotInTheSchema", x=["99", 0])},
        {"1": node("NotInTheSchema", junk=["99", 0])},
        {"1": node("AnySwitch", a={"__value__": 5}, b={"__value__": ["2", 0]}), "2": LOADER},
    ],
)
def test_links_that_do_no_harm(nodes: dict[str, Any]) -> None:
    assert not places({"prompt": {**nodes, "sink": SINK}})
