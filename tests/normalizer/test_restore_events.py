"""Events, in the client's own ids."""

import json
from typing import Any

import pytest

from normalizer import WayBack, mentions_sent_id, normalize
from tests.normalizer.carried import BACK, LOADER, LORA, PIN
from tests.normalizer.schemas import SCHEMA, text_to_image


def test_the_names_used_here() -> None:
    assert BACK.ids == {LOADER: "4", LORA: "10"}
    assert len(BACK.pins) == 2


EVENTS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("execution_start", {"prompt_id": "p", "timestamp": 1}, {"prompt_id": "p", "timestamp": 1}),
    ("execution_cached", {"nodes": [PIN, "3", LORA, LOADER, *BACK.pins]}, {"nodes": ["3", "10", "4"]}),
    ("executing", {"node": LOADER, "display_node": LOADER}, {"node": "4", "display_node": "4"}),
    ("executing", {"node": None, "prompt_id": "p"}, {"node": None, "prompt_id": "p"}),
    (
        "executing",
        {"node": f"{LORA}.0.0.sampler", "display_node": LORA},
        {"node": "10.0.0.sampler", "display_node": "10"},
    ),
    ("progress", {"value": 1, "max": 2, "node": LORA}, {"value": 1, "max": 2, "node": "10"}),
    (
        "progress_state",
        {
            "nodes": {
                LOADER: {"node_id": LOADER, "display_node_id": LOADER, "real_node_id": LOADER, "parent_node_id": None},
                f"{LORA}.0.0.x": {"node_id": f"{LORA}.0.0.x", "parent_node_id": LORA, "real_node_id": LORA},
                PIN: {"node_id": PIN},
                f"{PIN}.0.0.x": {"parent_node_id": PIN},
            }
        },
        {
            "nodes": {
                "4": {"node_id": "4", "display_node_id": "4", "real_node_id": "4", "parent_node_id": None},
                "10.0.0.x": {"node_id": "10.0.0.x", "parent_node_id": "10", "real_node_id": "10"},
            }
        },
    ),
    (
        "executed",
        {"node": LOADER, "display_node": LOADER, "output": {"text": [f"node {LOADER}"], "images": [{"n": 1}]}},
        {"node": "4", "display_node": "4", "output": {"text": ["node 4"], "images": [{"n": 1}]}},
    ),
    (
        "execution_error",
        {
            "node_id": LOADER,
            "node_type": "CheckpointLoaderSimple",
            "executed": [LORA, PIN],
            "exception_message": f"Node {LOADER} says it needs input x",
            "current_inputs": {"unique_id": [LOADER]},
            "current_outputs": [LOADER, "3", *BACK.pins],
            "traceback": [f"  File {LOADER}"],
        },
        {
            "node_id": "4",
            "node_type": "CheckpointLoaderSimple",
            "executed": ["10"],
            "exception_message": "Node 4 says it needs input x",
            "current_inputs": {"unique_id": [LOADER]},
            "current_outputs": ["4", "3"],
            "traceback": [f"  File {LOADER}"],
        },
    ),
    ("execution_interrupted", {"node_id": LORA, "executed": [LOADER]}, {"node_id": "10", "executed": ["4"]}),
    (
        "pack.event",
        {"id": int(LOADER), "widgets": {LOADER: [LORA]}, "message": f"#{LORA}: done ({LOADER},{LORA})"},
        {"id": 4, "widgets": {"4": ["10"]}, "message": "#10: done (4,10)"},
    ),
]


@pytest.mark.parametrize(("data", "expected"), [pytest.param(*rest, id=type_) for type_, *rest in EVENTS])
def test_events(data: dict[str, Any], expected: dict[str, Any]) -> None:
    before = json.dumps(data)
    assert BACK.event(data) == expected
    assert json.dumps(data) == before


@pytest.mark.parametrize("key", ["node", "node_id", "display_node", "display_node_id", "real_node_id"])
def test_an_event_about_a_pin_is_not_the_clients_business(key: str) -> None:
    assert BACK.event({key: PIN, "value": 1}) is None
    assert BACK.event({key: f"{PIN}.0.0.x"}) is None
    assert BACK.event({key: "3"}) == {key: "3"}


@pytest.mark.parametrize("data", [None, "text", 5, [1, LOADER]])
def test_events_of_any_shape(data: Any) -> None:
    assert BACK.event(data) == ([1, "4"] if isinstance(data, list) else data)


def test_numbers_that_are_no_ids_stay() -> None:
    numbers = [2**64 - 1, 10**23, int(LOADER) + 1, -int(LOADER), float(LOADER), True]
    assert BACK.event({"n": numbers}) == {"n": numbers}
    subgraph = normalize(text_to_image(ids=("a:b", "10", "6", "7", "5", "3", "8")), SCHEMA).way_back
    assert subgraph.event({"n": int(LOADER)}) == {"n": "a:b"}


def test_a_longer_number_is_no_id() -> None:
    assert BACK.text(f"{LOADER}0 0{LOADER} {LOADER[:-1]}") == f"{LOADER}0 0{LOADER} {LOADER[:-1]}"
    assert not BACK.is_pin(f"{PIN}0")


def test_ids_change_places_at_once() -> None:
    """A client may call one loader by the stable id of another."""
    way_back = WayBack(ids={LOADER: LORA, LORA: LOADER})
    assert way_back.event({"nodes": [LOADER, LORA]}) == {"nodes": [LORA, LOADER]}


def test_deep_events() -> None:
    deep: Any = {"node": LOADER}
    for level in range(400):
        deep = {"a": deep} if level % 2 else [deep]
    restored = BACK.event({"deep": deep})
    assert not mentions_sent_id(json.dumps(restored))
