"""Classes known only by their schema."""

import json
from pathlib import Path
from typing import Any

import pytest

from simulator import CacheMode
from simulator.config import GB
from tests.simulator.support import image, messages, node, simulated


def entry(required: dict[str, Any], output: list[Any], **more: Any) -> dict[str, Any]:
    inputs = {"required": required, **more.pop("kinds", {})}
    return {
        "input": inputs,
        "input_order": {kind: list(names) for kind, names in inputs.items()},
        "is_input_list": False,
        "output": output,
        "output_is_list": [False] * len(output),
        "output_name": output,
        "output_node": False,
        **more,
    }


GROWING = {"template": {"input": {"required": {"image": ["IMAGE", {}]}}, "prefix": "image", "min": 1, "max": 3}}
MODES = [
    {"key": "by size", "inputs": {"required": {"width": ["INT", {"min": 1, "max": 10}]}}},
    {"key": "not at all", "inputs": {"required": {}}},
]
SCHEMA = {
    "ControlNetLoader": entry({"control_net_name": [[]]}, ["CONTROL_NET"]),
    "SomeLoader": entry({"name": [["big.safetensors", "None"]]}, ["MODEL", "CLIP"]),
    "SomePatch": entry({"model": ["MODEL"], "strength": ["FLOAT", {"min": 0.0, "max": 1.0}]}, ["MODEL"]),
    "SomeShow": entry({"value": ["*", {}]}, [], output_node=True),
    "SomeBatch": entry({"images": ["COMFY_AUTOGROW_V3", GROWING]}, ["IMAGE"]),
    "SomeResize": entry({"image": ["IMAGE", {}], "mode": ["COMFY_DYNAMICCOMBO_V3", {"options": MODES}]}, ["IMAGE"]),
    "SomeSwitch": entry({"first": ["*", {"lazy": True}], "second": ["*", {"lazy": True}]}, ["*"]),
    "SomeRemote": entry({"text": ["STRING", {}]}, ["STRING"], api_node=True),
    "CheckpointLoaderSimple": entry(
        {"ckpt_name": [["theirs.safetensors"], {"tooltip": "a file"}]}, ["MODEL", "CLIP", "VAE"]
    ),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "object_info.json"
    path.write_text(json.dumps(SCHEMA))
    return path


async def test_classes_of_the_file_are_there_and_the_built_in_ones_too(file: Path) -> None:
    async with simulated(object_info_file=file, models={"controlnet": {"canny.pth": GB}}) as driver:
        info = await driver.get("/object_info")
        assert set(SCHEMA) < set(info)
        assert "KSampler" in info
        assert info["SomeResize"] == SCHEMA["SomeResize"]
        assert info["ControlNetLoader"]["input"]["required"]["control_net_name"] == [["canny.pth"]]


async def test_a_built_in_class_takes_its_schema_from_the_file_and_its_files_from_the_simulator(file: Path) -> None:
    async with simulated(object_info_file=file) as driver:
        info = await driver.get("/object_info/CheckpointLoaderSimple")
        spec = info["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"]
        assert spec == [["a", "b", "c", "d"], {"tooltip": "a file"}]
        assert (await driver.run(image("a")))["status"]["completed"]


async def test_a_loader_reads_the_files_that_it_names_and_a_patch_keeps_them(file: Path) -> None:
    def prompt(strength: float) -> dict[str, Any]:
        return {
            "1": node("SomeLoader", name="big.safetensors"),
            "2": node("SomePatch", model=["1", 0], strength=strength),
            "3": node("SomeShow", value=["2", 0]),
        }

    settings: dict[str, Any] = {"cache": CacheMode.CLASSIC, "default_model_bytes": 3 * GB}
    async with simulated(object_info_file=file, **settings) as driver:
        await driver.run(prompt(0.5))
        await driver.run(prompt(0.6))
        assert [(read.file, read.bytes) for read in driver.sim.loads()] == [("big.safetensors", 3 * GB)]
        assert driver.memory.residency()["big.safetensors"].bytes == 3 * GB
        await driver.run({"1": node("SomeShow", value="nothing of it")})
        assert driver.memory.residency() == {}


async def test_inputs_are_validated_by_the_schema(file: Path) -> None:
    async with simulated(object_info_file=file) as driver:
        prompt = {
            "1": node("SomeLoader", name="other.safetensors"),
            "2": node("SomePatch", model=["1", 1], strength=2),
            "3": node("SomeShow", value=["2", 0]),
        }
        status, body = await driver.post("/prompt", {"prompt": prompt})
        assert status == 400
        assert [error["type"] for error in body["node_errors"]["2"]["errors"]] == [
            "return_type_mismatch",
            "value_bigger_than_max",
        ]


@pytest.mark.parametrize(
    ("inputs", "errors"),
    [
        ({}, [("required_input_missing", "image0")]),
        ({"images.image0": ["1", 0]}, []),
        ({"images.image0": ["1", 0], "images.image2": ["1", 0]}, []),
        ({"images.image1": ["1", 0]}, [("required_input_missing", "image0")]),
    ],
)
async def test_growing_inputs(file: Path, inputs: dict[str, Any], errors: list[tuple[str, str]]) -> None:
    await check(file, "SomeBatch", inputs, errors)


@pytest.mark.parametrize(
    ("inputs", "errors"),
    [
        ({"mode": "by size"}, [("required_input_missing", "width")]),
        ({"mode": "by size", "mode.width": 11}, [("value_bigger_than_max", "mode.width")]),
        ({"mode": "by size", "mode.width": "7"}, []),
        ({"mode": "not at all"}, []),
        ({"mode": "unheard of"}, []),
        ({}, []),
    ],
)
async def test_dynamic_inputs(file: Path, inputs: dict[str, Any], errors: list[tuple[str, str]]) -> None:
    await check(file, "SomeResize", {"image": ["1", 0], **inputs}, errors)


async def check(file: Path, name: str, inputs: dict[str, Any], errors: list[tuple[str, str]]) -> None:
    """Submit one node and compare the type and details of its errors."""
    prompt = {
        "1": node("EmptyImage", width=8, height=8, batch_size=1, color=0),
        "2": {"class_type": name, "inputs": inputs},
        "3": node("PreviewImage", images=["2", 0]),
    }
    async with simulated(object_info_file=file) as driver:
        status, body = await driver.post("/prompt", {"prompt": prompt})
        found = body["node_errors"].get("2", {"errors": []})["errors"]
        assert [(error["type"], error["details"]) for error in found] == errors
        assert status == (400 if errors else 200)


async def test_lazy_inputs_are_evaluated_in_the_end(file: Path) -> None:
    prompt = {
        "1": node("PrimitiveString", value="x"),
        "2": node("SomeSwitch", first=["1", 0], second="y"),
        "3": node("SomeShow", value=["2", 0]),
    }
    async with simulated(object_info_file=file) as driver:
        assert (await driver.run(prompt))["status"]["completed"]


async def test_remote_nodes_run_side_by_side(file: Path) -> None:
    """Both are started before the node that was there first."""
    prompt = {
        "1": node("PrimitiveString", value="x"),
        "2": node("SomeRemote", text="a"),
        "3": node("SomeRemote", text="b"),
        "4": node("SomeShow", value=["1", 0]),
        "5": node("SomeShow", value=["2", 0]),
        "6": node("SomeShow", value=["3", 0]),
    }
    async with simulated(object_info_file=file, time_scale=100) as driver:
        async with driver.session.ws_connect(f"{driver.sim.url}/ws?clientId=c") as socket:
            entry = await driver.run(prompt, client_id="c")
            executing: list[str] = []
            while True:
                message = (await socket.receive_json())["data"]
                if "node" in message and "output" not in message:
                    executing.append(message["node"])
                    if message["node"] is None:
                        break
        assert entry["status"]["completed"]
        assert executing[:3] == ["2", "3", "1"]
        assert messages(entry)["execution_cached"]["nodes"] == []


@pytest.mark.parametrize("content", ["[]", '{"a": 1}', '{"a": {}}'])
async def test_another_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="no answer of GET /object_info"):
        async with simulated(object_info_file=path):
            pass
