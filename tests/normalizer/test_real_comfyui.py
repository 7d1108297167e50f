"""Rewritten prompts on a real ComfyUI: the same results as direct, more of them from its cache.

``COMFYUI_URL=http://127.0.0.1:8188 pytest -n0 tests/normalizer/test_real_comfyui.py``; the nodes of `comfyui_pack` must
be installed there. Prompts are posted as the normalizer makes them, without the proxy.
"""

import json
import os
import random
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from normalizer import Normalized, Schema, carry, normalize
from tests.normalizer.schemas import node

URL = os.environ.get("COMFYUI_URL", "").rstrip("/")
CLASSES = ("KeepLoader", "KeepLora", "KeepPower", "KeepUnique", "KeepLookup", "KeepShow", "VAELoader", "PreviewAny")
pytestmark = pytest.mark.skipif(not URL, reason="COMFYUI_URL is not set")


def ask(path: str, body: Any = None) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(URL + path, data, {"Content-Type": "application/json"})  # noqa: S310 -- a given URL
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return answer.status, json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


@dataclass(frozen=True)
class Run:
    """What came of a prompt, in the client's terms."""

    entry: Mapping[str, Any]

    @property
    def texts(self) -> dict[str, Any]:
        return {node_id: output["text"] for node_id, output in self.entry["outputs"].items()}

    def message(self, kind: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = next(data for name, data in self.entry["status"]["messages"] if name == kind)
        return found

    @property
    def cached(self) -> set[str]:
        return set(self.message("execution_cached")["nodes"])


def run(normalized: Normalized) -> Run:
    body = {"prompt": normalized.prompt, "extra_data": normalized.way_back.into_extra_data({})}
    status, answer = ask("/prompt", body)
    assert status == 200, answer
    return Run(normalized.way_back.history_entry(finished(answer["prompt_id"])))


def finished(prompt_id: str) -> Any:
    """Wait for a prompt's history entry."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        entries = ask(f"/history/{prompt_id}")[1]
        if prompt_id in entries:
            return entries[prompt_id]
        time.sleep(0.02)
    raise AssertionError(f"{prompt_id} did not finish")


def direct(prompt: dict[str, Any]) -> Run:
    status, answer = ask("/prompt", {"prompt": prompt})
    assert status == 200, answer
    return Run(finished(answer["prompt_id"]))


@pytest.fixture(scope="module")
def schema() -> Schema:
    info: dict[str, Any] = {}
    for name in CLASSES:
        info |= ask(f"/object_info/{name}")[1]
    if len(info) < len(CLASSES):
        pytest.skip("comfyui_pack is not installed there")
    return Schema.from_object_info(info)


@pytest.fixture(autouse=True)
def cold(schema: Schema) -> None:
    """Empty the caches: the flag is honoured after the next prompt at the latest."""
    del schema
    ask("/free", {"unload_models": True, "free_memory": True})
    direct({"1": node("KeepShow", value="cold", salt=salt())})
    direct({"1": node("KeepShow", value="cold", salt=salt())})


def salt() -> str:
    return str(random.random())  # noqa: S311 -- only makes a node new


def shown(nodes: dict[str, Any], source: str, name: str = "out") -> dict[str, Any]:
    return {**nodes, name: node("KeepShow", value=[source, 0], salt=salt())}


def test_two_workflows_share_one_cache_entry(schema: Schema) -> None:
    """Their loaders have other ids and carry keys that ComfyUI counts and nobody reads."""
    vaes = schema.entry("VAELoader")["input"]["required"]["vae_name"][0]
    one = {"4": node("VAELoader", vae_name=vaes[0], junk=1), "5": node("PreviewAny", source=["4", 0])}
    other = {"a:b": node("VAELoader", other="x", vae_name=vaes[0]), "5": node("PreviewAny", source=["a:b", 0])}
    assert direct(one).cached == set()
    assert direct(other).cached == set()
    run(normalize(one, schema))
    assert "a:b" in run(normalize(other, schema)).cached


def lora(strength: float, ids: tuple[str, str] = ("1", "2")) -> dict[str, Any]:
    loader, patch = ids
    return shown(
        {
            loader: node("KeepLoader", ckpt_name="one"),
            patch: node("KeepLora", model=[loader, 0], lora_name="two", strength=strength),
        },
        patch,
    )


def test_a_chain_survives_a_foreign_prompt(schema: Schema) -> None:
    foreign = shown({"1": node("KeepLoader", ckpt_name="three")}, "1")
    first = normalize(lora(0.5), schema)
    run(first)
    run(carry(normalize(foreign, schema), first.chains, schema))
    again = run(normalize(lora(0.5, ("7", "8")), schema))
    assert again.cached == {"7", "8"}
    run(normalize(foreign, schema))
    assert run(normalize(lora(0.5), schema)).cached == set(), "without the pin it is gone"


def test_a_sweep_over_strengths_keeps_the_file(schema: Schema) -> None:
    """The instance that holds the LoRA outlives a foreign prompt, and serves another strength and another client."""
    foreign = shown({"1": node("KeepLoader", ckpt_name="three")}, "1")
    first = normalize(lora(0.5), schema)
    assert "read two" in run(first).texts["out"][0]
    run(carry(normalize(foreign, schema), first.chains, schema))
    assert run(normalize(lora(0.9, ("x", "y")), schema)).texts["out"] == ["model one + held two @ 0.9"]


@pytest.mark.parametrize("given", ["1.0", " 1e0 ", {"__value__": "1"}, True, 1], ids=repr)
def test_values_that_validation_casts_are_pinned_as_cast(schema: Schema, given: Any) -> None:
    prompt = lora(1.0)
    prompt["2"]["inputs"]["strength"] = given
    first = normalize(prompt, schema)
    run(first)
    run(
        carry(
            normalize(shown({}, "out") | {"out": node("KeepShow", value="x", salt=salt())}, schema),
            first.chains,
            schema,
        )
    )
    assert run(normalize(lora(1.0), schema)).cached == {"1", "2"}


def test_an_error_in_a_loader_names_the_clients_node(schema: Schema) -> None:
    prompt = shown({"a:b": node("KeepLoader", ckpt_name="broken")}, "a:b")
    error = run(normalize(prompt, schema)).message("execution_error")
    assert error["node_id"] == "a:b"
    assert error["exception_message"].startswith("cannot read broken")
    assert set(error["current_outputs"]) == {"a:b", "out"}


def test_a_refusal_names_the_clients_node(schema: Schema) -> None:
    prompt = shown({"a:b": node("KeepLoader", ckpt_name="no such file")}, "a:b")
    normalized = normalize(prompt, schema)
    status, answer = ask("/prompt", {"prompt": normalized.prompt})
    expected_status, expected = ask("/prompt", {"prompt": prompt})
    assert (status, normalized.way_back.submission_answer(answer)) == (expected_status, expected)


PINNED = {"1": node("KeepLoader", ckpt_name="two"), "2": node("KeepPower", model=["1", 0])}


@pytest.mark.parametrize(
    "nodes",
    [
        {
            "1": node("KeepLoader", ckpt_name="one"),
            "2": node(
                "KeepPower",
                header={"type": "Header"},
                lora_1={"on": True, "lora": "x", "strength": 1},
                lora_2={"on": False, "lora": "y", "strength": 0.5},
                model=["1", 0],
            ),
        },
        {"1": node("KeepLoader", ckpt_name="one"), "2": node("KeepLookup", node_id="1")},
        {"1": node("KeepUnique", ckpt_name="one"), "2": node("KeepLora", model=["1", 0], lora_name="two", strength=1)},
        {"2": node("KeepPower", model=["3", 1]), "3": node("KeepLoader", ckpt_name="one")},
    ],
    ids=["power lora loader", "look-up by id", "unique id", "second output"],
)
def test_the_result_is_the_same_as_direct(schema: Schema, nodes: dict[str, Any]) -> None:
    prompt = shown(nodes, "2")
    expected = direct(prompt)
    ask("/free", {"unload_models": True, "free_memory": True})
    direct({"1": node("KeepShow", value="cold", salt=salt())})
    pins = normalize(shown(PINNED, "2"), schema).chains
    found = run(carry(normalize(prompt, schema), pins, schema))
    assert found.texts == expected.texts
    assert found.entry["prompt"][2] == expected.entry["prompt"][2]
    assert found.entry["prompt"][4] == expected.entry["prompt"][4]


def test_a_loader_with_unique_id_keeps_its_entry(schema: Schema) -> None:
    one, other = ({name: node("KeepUnique", ckpt_name="one")} for name in ("1", "a:b"))
    first = normalize(shown(one, "1"), schema)
    run(first)
    foreign = normalize({"out": node("KeepShow", value="x", salt=salt())}, schema)
    run(carry(foreign, first.chains, schema))
    assert run(normalize(shown(other, "a:b"), schema)).cached == {"a:b"}
