"""Which nodes are chain nodes, what a chain is, and what it holds."""

import json
from typing import Any

import pytest

from normalizer import ModelRef, normalize
from tests.normalizer.schemas import SCHEMA, node, sent_ids, text_to_image, with_sink


@pytest.mark.parametrize(
    ("value", "cast"),
    [("0.8", "0.8"), (1, "1.0"), ({"__value__": "2"}, "2.0"), ("x", '"x"'), (None, "null"), (True, "1.0")],
)
def test_chains_carry_values_as_validation_leaves_them(value: Any, cast: str) -> None:
    (chain,) = normalize(text_to_image(strength=value), SCHEMA).chains
    patch = list(chain.nodes.values())[-1]
    assert json.dumps(patch["inputs"]["strength_model"]) == cast


def test_a_node_that_validation_does_not_reach_is_carried_as_it_is() -> None:
    """The model of a Power Lora Loader comes in by an undeclared input, which validation never looks at."""
    prompt = with_sink(
        {
            "1": node("SelfLoader", name="m1", salt="7"),
            "2": node("PowerLora", model=["1", 0]),
        },
        model="2",
    )
    (chain,) = normalize(prompt, SCHEMA).chains
    loader = next(iter(chain.nodes.values()))
    assert loader["inputs"]["salt"] == "7"


@pytest.mark.parametrize(
    "inputs",
    [
        {"model": ["3", 0], "lora_name": "l"},  # from a switch
        {"model": ["1", 0], "lora_name": ["3", 0]},  # its file from another node
        {"model": ["1", 0], "lora_name": "l", "undeclared": ["3", 0]},
        {"model": ["1", 0], "lora_name": "l", "undeclared": ["nowhere", 0]},
        {"model": ["1", 0.0], "lora_name": "l"},
        {"model": ["1", True], "lora_name": "l"},
        {"model": ["2", 0], "lora_name": "l"},  # itself
        {"model": ["1", 0], "lora_name": "l", "strength_model": {"__value__": ["1", 0]}},
    ],
)
def test_a_node_with_other_links_is_no_chain_node(inputs: dict[str, Any]) -> None:
    nodes = {
        "1": node("SelfLoader", name="m1"),
        "2": node("LoraLoaderModelOnly", **inputs),
        "3": node("AnySwitch", a=["1", 0]),
    }
    normalized = normalize(with_sink(nodes, model="2", clip="3"), SCHEMA)
    assert "2" not in sent_ids(normalized)
    json.dumps(normalized.prompt)


def test_a_cycle_is_no_chain() -> None:
    nodes = {
        "1": node("LoraLoaderModelOnly", model=["2", 0], lora_name="l", strength_model=1),
        "2": node("LoraLoaderModelOnly", model=["1", 0], lora_name="l", strength_model=1),
    }
    assert not normalize(with_sink(nodes, model="2"), SCHEMA).changes


def test_settings_belong_to_the_chain_of_the_loader_that_takes_them() -> None:
    nodes = {
        "1": node("WanCompile", backend="inductor", fullgraph=False),
        "2": node("WanLora", lora="l1.safetensors", strength=1.0),
        "3": node("WanLoader", model="wan.safetensors", quantization="off", compile_args=["1", 0], lora=["2", 0]),
        "4": node("WanCompile", backend="cudagraphs", fullgraph=True),
    }
    normalized = normalize(with_sink(nodes, model="3", clip="4"), SCHEMA)
    assert set(sent_ids(normalized)) == {"1", "2", "3"}, "settings that no loader takes are nobody's business"
    (chain,) = normalized.chains
    assert [item["class_type"] for item in chain.nodes.values()] == ["WanCompile", "WanLora", "WanLoader"]
    assert chain.models == {
        ModelRef("WanLoader", ("wan.safetensors",)),
        ModelRef("WanLora", ("l1.safetensors",)),
    }


def test_settings_whose_loader_does_not_run_are_no_chain() -> None:
    nodes = {
        "1": node("WanCompile", backend="inductor", fullgraph=False),
        "2": node("WanLoader", model="wan.safetensors", quantization="off", compile_args=["1", 0]),
    }
    assert not normalize(with_sink(nodes, model="1"), SCHEMA).chains


def test_a_number_far_up_changes_the_signature_of_the_whole_chain() -> None:
    def chain(strength: float) -> Any:
        nodes = {
            "1": node("SelfLoader", name="m1"),
            "2": node("LoraLoaderModelOnly", model=["1", 0], lora_name="l", strength_model=strength),
            "3": node("ModelSamplingSD3", model=["2", 0], shift=3.0),
        }
        return normalize(with_sink(nodes, model="3"), SCHEMA).chains[0]

    assert chain(0.5).key == chain(0.7).key
    assert chain(0.5).signature != chain(0.7).signature


@pytest.mark.parametrize("value", [["a", "b", "c"], ["a"], []])
def test_lists_are_links_to_validation_and_never_cast(value: list[str]) -> None:
    (chain,) = normalize(with_sink({"1": node("PathLoader", path=value)}, vae="1"), SCHEMA).chains
    assert chain.nodes[chain.key]["inputs"] == {"path": value}


def test_chains_end_at_the_last_node_that_runs() -> None:
    prompt = text_to_image()
    prompt["unwired"] = node("LoraLoaderModelOnly", model=["10", 0], lora_name="other", strength_model=1)
    normalized = normalize(prompt, SCHEMA)
    (chain,) = normalized.chains
    ids = sent_ids(normalized)
    assert list(chain.nodes) == [ids["4"], ids["10"]]
    assert chain.key == ids["10"]
    assert "unwired" in ids, "it is named like any other, but there is nothing in it to keep"
    assert ModelRef("LoraLoaderModelOnly", ("other",)) not in normalized.models


def test_of_variants_in_one_prompt_one_chain_is_given() -> None:
    nodes = {
        "1": node("SelfLoader", name="m1"),
        "2": node("LoraLoaderModelOnly", model=["1", 0], lora_name="l", strength_model=0.5),
        "3": node("LoraLoaderModelOnly", model=["1", 0], lora_name="l", strength_model=0.7),
    }
    normalized = normalize(with_sink(nodes, model="2", clip="3"), SCHEMA)
    (chain,) = normalized.chains
    assert chain.key == list(chain.nodes)[-1]
    assert len(set(sent_ids(normalized).values())) == 3


def test_what_is_given_as_is_changed_belongs_to_the_key() -> None:
    def chain(**more: Any) -> Any:
        prompt = with_sink({"1": {**node("SelfLoader", name="m1"), **more}}, model="1")
        return normalize(prompt, SCHEMA).chains[0]

    assert chain(is_changed=["x"]).signature != chain().signature
    assert chain(is_changed=None).signature != chain().signature
    assert chain(is_changed=["x"]).key == chain().key
    assert next(iter(chain(is_changed=["x"]).nodes.values()))["is_changed"] == ["x"]


@pytest.mark.parametrize(
    ("class_type", "inputs", "files"),
    [
        ("CheckpointLoader", {"config_name": "v1.yaml", "ckpt_name": "m.ckpt"}, ("v1.yaml", "m.ckpt")),
        ("CLIPLoader", {"clip_name": "t5.safetensors", "type": "flux", "device": "cpu"}, ("t5.safetensors",)),
        ("UNETLoader", {"weight_dtype": "fp8", "unet_name": "u"}, ("u",)),
        ("SelfLoader", {"salt": 3, "name": "m1"}, ("m1",)),
        ("RepoLoader", {"model": "org/base"}, ("org/base",)),
        (
            "PowerLora",
            {"a": {"on": True, "lora": "x.safetensors"}, "b": {"on": False, "lora": "y.pt"}},
            ("x.safetensors",),
        ),
        ("DynamicLoader", {"source": "file", "source.name": "m2"}, ("m2",)),
    ],
)
def test_components_name_the_files(class_type: str, inputs: dict[str, Any], files: tuple[str, ...]) -> None:
    nodes = {"1": node(class_type, **inputs)}
    assert normalize(with_sink(nodes, model="1"), SCHEMA).models == {ModelRef(class_type, files)}


@pytest.mark.parametrize("name", ["None", "none", ""])
def test_no_file_is_no_component(name: str) -> None:
    prompt = text_to_image(lora=name)
    assert normalize(prompt, SCHEMA).models == {ModelRef("CheckpointLoaderSimple", ("sdxl.safetensors",))}


def test_a_long_row_of_patches_is_one_chain() -> None:
    nodes = {"0": node("SelfLoader", name="m1")}
    for place in range(1, 1500):
        nodes[str(place)] = node("ModelSamplingSD3", model=[str(place - 1), 0], shift=1.0)
    (chain,) = normalize(with_sink(nodes, model="1499"), SCHEMA).chains
    assert len(chain.nodes) == 1500
