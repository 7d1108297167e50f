"""Answers of `/prompt`, `/queue`, `/history` and `/api/jobs`, in the client's own terms."""

import json
from dataclasses import replace
from typing import Any

import pytest

from normalizer import WayBack
from tests.normalizer.carried import BACK, LOADER, LORA, PIN, PROMPT, PROMPT_ID, SENT, no_trace
from tests.normalizer.schemas import node

NODE_ERRORS = {
    LOADER: {
        "errors": [
            {
                "type": "value_not_in_list",
                "message": "Value not in list",
                "details": "ckpt_name: 'x' not in ['y']",
                "extra_info": {"input_name": "ckpt_name", "received_value": "x"},
            }
        ],
        "dependent_outputs": ["8.out", PIN],
        "class_type": "CheckpointLoaderSimple",
    },
    "3": {
        "errors": [
            {
                "type": "return_type_mismatch",
                "details": "model, received_type(VAE) mismatch input_type(MODEL)",
                "extra_info": {"linked_node": [LOADER, 2], "traceback": [f"line {LOADER}"]},
            },
            {
                "type": "dependency_cycle",
                "details": f"{LOADER} (A) -> {LORA} (B) -> {LOADER} (A)",
                "extra_info": {"node_id": LORA, "cycle_nodes": [LOADER, LORA]},
            },
        ],
        "dependent_outputs": [],
    },
}


def test_validation_errors() -> None:
    body = {
        "error": {
            "type": "prompt_outputs_failed_validation",
            "details": f"Dependency cycle detected: {LOADER} (A) -> {LORA} (B)",
            "extra_info": {},
        },
        "node_errors": NODE_ERRORS,
    }
    restored = BACK.submission_answer(body)
    assert list(restored["node_errors"]) == ["4", "3"]
    assert restored["node_errors"]["4"]["dependent_outputs"] == ["8.out"]
    mismatch, cycle = restored["node_errors"]["3"]["errors"]
    assert mismatch["extra_info"] == {"linked_node": ["4", 2], "traceback": [f"line {LOADER}"]}
    assert cycle["details"] == "4 (A) -> 10 (B) -> 4 (A)"
    assert cycle["extra_info"] == {"node_id": "10", "cycle_nodes": ["4", "10"]}
    assert restored["error"]["details"] == "Dependency cycle detected: 4 (A) -> 10 (B)"
    assert BACK.pins_named({"node_errors": {PIN: {}}}) == {PIN}
    assert not BACK.pins_named({"error": {"details": f"Node ID '#{LOADER}'"}})


@pytest.mark.parametrize(
    "error",
    [
        {"type": "missing_node_type", "details": f"Node ID '#{PIN}'", "extra_info": {"node_id": PIN}},  # 0.33
        {"type": "invalid_prompt", "details": f"Node ID '#{PIN}'", "extra_info": {}},  # 0.3.64
    ],
)
def test_an_answer_that_blames_a_pin(error: dict[str, Any]) -> None:
    assert BACK.pins_named({"error": error, "node_errors": {}}) == {PIN}
    assert not WayBack().pins_named({"error": error})


def test_a_good_answer_shows_the_clients_number() -> None:
    body = {"prompt_id": PROMPT_ID, "number": 1e15, "node_errors": {}}
    assert BACK.submission_answer(body) == body
    assert replace(BACK, number=7).submission_answer(body) == {**body, "number": 7}
    shown = [replace(BACK, number=number).submission_answer(body)["number"] for number in (7, 7.0)]
    assert json.dumps(shown) == "[7, 7.0]"
    assert BACK.submission_answer(None) is None


def item(way_back: WayBack = BACK, **extra_data: Any) -> list[Any]:
    """A queue item as ComfyUI gives it."""
    data = {**way_back.into_extra_data(extra_data), "client_id": "us", "create_time": 1763880000000}
    return json.loads(json.dumps([1e15, PROMPT_ID, SENT.prompt, data, ["8.out"]]))  # type: ignore[no-any-return]


def test_queue_items() -> None:
    way_back = replace(BACK, added=("client_id",), number=3, create_time=1763870000000)
    restored = way_back.queue_item(item(way_back, token="x"))  # noqa: S106 -- any key of a client
    assert json.dumps(restored) == json.dumps(
        [3, PROMPT_ID, PROMPT, {"token": "x", "create_time": 1763870000000}, ["8.out"]]
    )


def test_the_way_back_is_found_in_the_item_itself() -> None:
    found = WayBack.from_extra_data(item()[3])
    assert found == BACK
    assert found is not None
    assert found.queue_item(item()) == BACK.queue_item(item())
    assert no_trace(found.queue_item(item()))


def test_extra_data_without_anything_of_the_clients() -> None:
    way_back = WayBack(added=("client_id", "extra_pnginfo"))
    data = way_back.into_extra_data({"extra_pnginfo": {"prompt": {}}, "client_id": "us"})
    assert way_back.extra_data(data) == {}
    assert way_back.extra_data({**data, "create_time": 5}) == {"create_time": 5}


def test_create_time_is_only_put_back_where_comfyui_set_one() -> None:
    """0.3.64 knows none."""
    assert WayBack(create_time=5).extra_data({}) == {}
    assert WayBack(create_time=5).extra_data({"create_time": 7}) == {"create_time": 5}


def test_history_entries() -> None:
    way_back = replace(BACK, added=("client_id",))
    entry = {
        "prompt": item(way_back),
        "outputs": {"8.out": {"images": []}, f"{LORA}.0.0.preview": {"text": ["a"]}, LOADER: {"text": [LOADER]}},
        "status": {
            "status_str": "error",
            "completed": False,
            "messages": [
                ["execution_cached", {"nodes": [LOADER, PIN], "prompt_id": PROMPT_ID}],
                ["execution_error", {"node_id": LOADER, "executed": [], "traceback": [], "current_outputs": [PIN]}],
            ],
        },
        "meta": {
            f"{LORA}.0.0.preview": {
                "node_id": f"{LORA}.0.0.preview",
                "display_node": LORA,
                "parent_node": LORA,
                "real_node_id": LORA,
            }
        },
    }
    restored = way_back.history_entry(entry)
    assert restored["prompt"][2] == PROMPT
    assert restored["outputs"] == {
        "8.out": {"images": []},
        "10.0.0.preview": {"text": ["a"]},
        "4": {"text": ["4"]},
    }
    assert restored["status"]["messages"] == [
        ["execution_cached", {"nodes": ["4"], "prompt_id": PROMPT_ID}],
        ["execution_error", {"node_id": "4", "executed": [], "traceback": [], "current_outputs": []}],
    ]
    assert restored["meta"] == {
        "10.0.0.preview": {
            "node_id": "10.0.0.preview",
            "display_node": "10",
            "parent_node": "10",
            "real_node_id": "10",
        }
    }
    assert no_trace(restored)


def test_jobs_of_the_list() -> None:
    way_back = replace(BACK, number=2, create_time=5)
    job = {
        "id": PROMPT_ID,
        "status": "failed",
        "priority": 1e15,
        "create_time": 9,
        "execution_error": {"node_id": LOADER, "executed": [PIN], "traceback": ["t"]},
        "outputs_count": 1,
        "preview_output": {"filename": "a.png", "nodeId": f"{LORA}.0.0.p", "mediaType": "images"},
        "workflow_id": "w",
    }
    assert way_back.job(job) == {
        **job,
        "priority": 2,
        "create_time": 5,
        "execution_error": {"node_id": "4", "executed": [], "traceback": ["t"]},
        "preview_output": {"filename": "a.png", "nodeId": "10.0.0.p", "mediaType": "images"},
    }
    assert BACK.job({"id": PROMPT_ID}) == {"id": PROMPT_ID}


def test_one_job() -> None:
    number, _, prompt, extra_data, _ = item()
    job = {
        "id": PROMPT_ID,
        "priority": number,
        "outputs": {LOADER: {"text": ["a"]}},
        "execution_status": {"messages": [["execution_cached", {"nodes": [PIN, LOADER]}]]},
        "workflow": {"prompt": prompt, "extra_data": extra_data},
    }
    restored = BACK.job(job)
    assert json.dumps(restored["workflow"]["prompt"]) == json.dumps(PROMPT)
    assert restored["workflow"]["extra_data"] == {"client_id": "us", "create_time": 1763880000000}
    assert restored["outputs"] == {"4": {"text": ["a"]}}
    assert restored["execution_status"]["messages"] == [["execution_cached", {"nodes": ["4"]}]]
    assert list(restored) == list(job)
    assert no_trace(restored)


@pytest.mark.parametrize("value", [None, "text", 5, [], [1, 2, 3]])
def test_what_has_no_such_shape_is_left_alone(value: Any) -> None:
    assert BACK.queue_item(value) == value
    assert BACK.history_entry(value) == value
    assert BACK.job(value) == value
    assert BACK.prompt(value) == value
    assert BACK.extra_data(value) == value


def test_a_prompt_that_somebody_changed_on_the_way_is_restored_as_far_as_it_goes() -> None:
    changed = json.loads(json.dumps(SENT.prompt))
    del changed[LOADER]
    changed["3"]["inputs"]["seed"] = 5
    changed["new"] = node("Sink", model=[LORA, 0])
    changed["odd"] = None
    restored = BACK.prompt(changed)
    assert "4" not in restored
    assert restored["3"] == {**PROMPT["3"], "inputs": {**PROMPT["3"]["inputs"], "seed": 5}}
    assert restored["new"]["inputs"] == {"model": ["10", 0]}
    assert restored["odd"] is None
