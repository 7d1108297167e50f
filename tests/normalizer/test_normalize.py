"""What is renamed, dropped, left alone and learned, by example."""

import json
import re
from typing import Any

import pytest

from normalizer import MalformedPrompt, ModelRef, Schema, normalize
from normalizer.identity import ORDINALS
from tests.normalizer.schemas import INFO, SCHEMA, node, sent_ids, text_to_image, with_sink


def test_only_chain_nodes_are_renamed_and_everything_else_keeps_its_place() -> None:
    prompt = text_to_image()
    normalized = normalize(prompt, SCHEMA)
    ids = sent_ids(normalized)
    assert set(ids) == {"4", "10"}
    assert all(re.fullmatch(r"9173\d{20}", new) for new in ids.values())
    assert list(normalized.prompt) == [ids.get(node_id, node_id) for node_id in prompt]
    assert list(normalized.prompt["3"]["inputs"]) == list(prompt["3"]["inputs"])
    assert normalized.prompt["3"]["inputs"]["model"] == [ids["10"], 0]
    assert normalized.prompt["8"]["inputs"]["vae"] == [ids["4"], 2]
    assert normalized.prompt["5"] is prompt["5"], "nodes without a change are shared"


def test_the_recipe_of_ids_never_changes() -> None:
    """A new recipe would load every model once more, and orphan the pins of prompts that wait."""
    prompt = text_to_image(ckpt="a.safetensors", lora="l.safetensors")
    assert sent_ids(normalize(prompt, SCHEMA)) == {"4": "917351984481239446518400", "10": "917393420819718772076800"}


def test_one_model_has_one_name_whatever_clients_call_it() -> None:
    one = normalize(text_to_image(), SCHEMA)
    other = normalize(text_to_image(ids=("1", "a:b", "2", "3", "99", "7", "8"), strength=0.3), SCHEMA)
    assert sent_ids(one)["4"] == sent_ids(other)["1"]
    assert sent_ids(one)["10"] == sent_ids(other)["a:b"], "a LoRA at another strength is the same LoRA"
    assert sent_ids(one)["10"] != sent_ids(normalize(text_to_image(lora="other"), SCHEMA))["10"]
    assert sent_ids(one)["10"] != sent_ids(normalize(text_to_image(ckpt="other"), SCHEMA))["10"]


def test_what_tells_models_apart() -> None:
    def name(class_type: str, **inputs: Any) -> str:
        prompt = with_sink({"1": node(class_type, **inputs)}, model="1")
        return sent_ids(normalize(prompt, SCHEMA))["1"]

    base = name("UNETLoader", unet_name="u", weight_dtype="default")
    assert base != name("UNETLoader", unet_name="u", weight_dtype="fp8_e4m3fn"), "a way of loading"
    assert base != name("UNETLoader", unet_name="v", weight_dtype="default"), "a file"
    assert name("EfficientLoader", ckpt_name="m", clip_skip=-1, positive="a cat") == name(
        "EfficientLoader", ckpt_name="m", clip_skip=-2, positive="a dog"
    ), "numbers and prose do not"
    assert name("PathLoader", path="/a") != name("PathLoader", path="/b")
    assert name("SelfLoader", name={"__value__": "m1"}) == name("SelfLoader", name="m1")
    assert name("PathLoader", path=5) == name("PathLoader", path="5"), "as validation casts it"


def test_undeclared_inputs_of_custom_classes_are_part_of_the_name_without_their_numbers() -> None:
    def name(**inputs: Any) -> str:
        nodes = {
            "1": node("CheckpointLoaderSimple", ckpt_name="m"),
            "2": node("PowerLora", **inputs, model=["1", 0], clip=["1", 1]),
        }
        return sent_ids(normalize(with_sink(nodes, model="2"), SCHEMA))["2"]

    one = name(lora_1={"on": True, "lora": "x", "strength": 1}, header={"type": "Header"})
    assert one == name(lora_1={"on": False, "lora": "x", "strength": 0.5}, header={"type": "Header"})
    assert one != name(lora_1={"on": True, "lora": "y", "strength": 1}, header={"type": "Header"})
    assert one != name(lora_2={"on": True, "lora": "x", "strength": 1}, header={"type": "Header"})


def test_undeclared_keys_are_dropped_from_core_v1_loaders_only() -> None:
    prompt = {
        "1": node("CheckpointLoaderSimple", junk=1, ckpt_name="m", more={"a": []}),
        "2": node("ModelSamplingSD3", junk=1, model=["1", 0], shift=3),
        "3": node("SelfLoader", junk=1, name="m1"),
        "4": node("KSampler", junk=1, model=["2", 0]),
        "5": node("Sink", model=["2", 0], clip=["3", 0], vae=["4", 0]),
    }
    normalized = normalize(prompt, SCHEMA)
    ids = sent_ids(normalized)
    assert normalized.prompt[ids["1"]]["inputs"] == {"ckpt_name": "m"}
    assert all("junk" in normalized.prompt[node_id]["inputs"] for node_id in (ids["2"], ids["3"], "4"))
    assert json.dumps(normalized.way_back.prompt(normalized.prompt)) == json.dumps(prompt)


def test_an_undeclared_link_is_never_dropped() -> None:
    prompt = with_sink(
        {
            "1": node("VAELoader", vae_name="v"),
            "2": node("CheckpointLoaderSimple", ckpt_name="m", extra=["1", 0]),
        },
        model="2",
    )
    normalized = normalize(prompt, SCHEMA)
    assert normalized.prompt[sent_ids(normalized)["2"]]["inputs"]["extra"] == [sent_ids(normalized)["1"], 0]


def test_a_class_that_only_shares_a_core_name_keeps_its_keys() -> None:
    info = {**INFO, "VAELoader": {**INFO["VAELoader"], "python_module": "custom_nodes.pack"}}
    prompt = with_sink({"1": node("VAELoader", vae_name="v", junk=1)}, vae="1")
    normalized = normalize(prompt, Schema.from_object_info(info))
    assert normalized.prompt[sent_ids(normalized)["1"]]["inputs"] == {"vae_name": "v", "junk": 1}


@pytest.mark.parametrize("value", [0.8, 1, "0.8", True, {"__value__": 0.8}, None, [1, 2], "x"])
def test_values_are_sent_as_they_came(value: Any) -> None:
    prompt = text_to_image(strength=value)
    normalized = normalize(prompt, SCHEMA)
    patch = normalized.prompt[sent_ids(normalized)["10"]]
    assert json.dumps(patch["inputs"]["strength_model"]) == json.dumps(value)


def test_equal_nodes_of_one_prompt_are_numbered() -> None:
    prompt = {
        "a": node("SelfLoader", name="m1", salt=2),
        "b": node("SelfLoader", name="m1", salt=1),
        "c": node("Sink", model=["a", 0], clip=["b", 0]),
    }
    ids = sent_ids(normalize(prompt, SCHEMA))
    assert {new[-2:] for new in ids.values()} == {"00", "01"}
    assert ids["a"][:-2] == ids["b"][:-2]
    turned = sent_ids(normalize(dict(reversed(prompt.items())), SCHEMA))
    assert turned == ids, "nodes that differ keep their numbers when the graph is reordered"


def test_an_id_that_the_client_keeps_is_not_taken() -> None:
    ours = sent_ids(normalize(with_sink({"1": node("SelfLoader", name="m1")}, model="1"), SCHEMA))["1"]
    prompt = {"1": node("SelfLoader", name="m1"), ours: node("Sink", model=["1", 0])}
    assert sent_ids(normalize(prompt, SCHEMA)) == {"1": ours[:-2] + "01"}


def test_ids_swapped_by_the_client_are_set_right() -> None:
    plain = normalize(
        {
            "1": node("SelfLoader", name="m1"),
            "2": node("SelfLoader", name="m2"),
            "3": node("Sink", model=["1", 0], clip=["2", 0]),
        },
        SCHEMA,
    )
    first, second = sent_ids(plain)["1"], sent_ids(plain)["2"]
    swapped = {
        second: node("SelfLoader", name="m1"),
        first: node("SelfLoader", name="m2"),
        "3": node("Sink", model=[second, 0], clip=[first, 0]),
    }
    normalized = normalize(swapped, SCHEMA)
    assert sent_ids(normalized) == {second: first, first: second}
    assert normalized.prompt == plain.prompt
    assert normalized.way_back.prompt(normalized.prompt) == swapped


def test_more_equal_nodes_than_numbers_keep_their_own_ids() -> None:
    nodes = {str(place): node("SelfLoader", name="m1", salt=place) for place in range(ORDINALS + 1)}
    normalized = normalize({**nodes, "sink": node("Sink", model=["0", 0])}, SCHEMA)
    assert not normalized.way_back.ids
    nodes.popitem()
    assert len(normalize(nodes, SCHEMA).way_back.ids) == ORDINALS


@pytest.mark.parametrize(
    ("extra", "renamed"),
    [
        (node("PromptReader", node_id="1"), False),
        (node("LoopOpen", value=1), False),
        (node("NotInTheSchema"), False),
        (node("SaveImage", images=["x", 0]), True),
        (node("ShowText", text="a"), True),
    ],
)
def test_a_prompt_in_which_a_custom_node_may_look_ids_up_is_sent_as_it_came(
    extra: dict[str, Any], renamed: bool
) -> None:
    prompt = {**text_to_image(), "x": extra}
    prompt["4"]["inputs"]["junk"] = 1
    normalized = normalize(prompt, SCHEMA)
    assert bool(normalized.changes) is renamed
    if not renamed:
        assert normalized.prompt == prompt
        assert normalized.chains, "its models are known nevertheless"
        (chain,) = normalized.chains
        assert next(iter(chain.nodes.values()))["inputs"]["junk"] == 1, "carried as it was executed"


def test_the_chain_of_such_a_prompt_is_useless_where_its_key_holds_an_id() -> None:
    reader = {"x": node("PromptReader", node_id="1")}
    assert not normalize({**with_sink({"1": node("UniqueLoader", name="m1")}, model="1"), **reader}, SCHEMA).chains
    assert normalize({**with_sink({"1": node("SelfLoader", name="m1")}, model="1"), **reader}, SCHEMA).chains


def test_a_loader_that_knows_its_place_in_the_workflow_keeps_its_id_and_so_does_what_hangs_on_it() -> None:
    prompt = with_sink(
        {
            "1": node("KeepsIdLoader", ckpt="m1"),
            "2": node("LoraLoaderModelOnly", model=["1", 0], lora_name="l", strength_model=1),
            "3": node("SelfLoader", name="m1"),
        },
        model="2",
        clip="3",
    )
    normalized = normalize(prompt, SCHEMA)
    assert set(sent_ids(normalized)) == {"3"}
    assert normalized.models == {
        ModelRef("KeepsIdLoader", ("m1",)),
        ModelRef("LoraLoaderModelOnly", ("l",)),
        ModelRef("SelfLoader", ("m1",)),
    }


@pytest.mark.parametrize("link", [["1", "0"], {"__value__": ["1", 0]}])
def test_a_node_that_validation_finds_through_no_link_keeps_its_id(link: Any) -> None:
    """Else the client would read of another fault than its own; with `__value__`, ComfyUI would die of it."""
    prompt = {"1": node("SelfLoader", name="m1"), "2": node("Sink", model=link)}
    assert normalize(prompt, SCHEMA).prompt == prompt


@pytest.mark.parametrize("prompt", [None, [], "prompt", 5, [{"class_type": "VAELoader"}]])
def test_what_is_no_object_is_malformed(prompt: Any) -> None:
    with pytest.raises(MalformedPrompt, match=type(prompt).__name__):
        normalize(prompt, SCHEMA)


def test_a_list_in_an_undeclared_input_is_only_data() -> None:
    prompt = with_sink({"1": node("SelfLoader", name="m1"), "2": node("AnySwitch", names=["1", "0"])}, model="1")
    assert set(sent_ids(normalize(prompt, SCHEMA))) == {"1"}


def test_odd_nodes_pass_unchanged() -> None:
    odd: dict[str, Any] = {
        "1": None,
        "2": [],
        "3": {"class_type": "VAELoader"},
        "4": {"class_type": ["VAELoader"], "inputs": {}},
        "5": {"class_type": "VAELoader", "inputs": []},
        "6": {"inputs": {"a": ["7", 0]}},
        "7": node("VAELoader", vae_name="v"),
    }
    normalized = normalize(odd, SCHEMA)
    assert {key: normalized.prompt[key] for key in odd if key != "7"} == {k: v for k, v in odd.items() if k != "7"}


def test_deep_nesting_in_a_loader_leaves_it_alone() -> None:
    deep: Any = "x"
    for _ in range(5000):
        deep = [deep]
    prompt = with_sink({"1": node("SelfLoader", name="m1", deep=deep)}, model="1")
    assert not normalize(prompt, SCHEMA).changes


def test_changes_say_what_and_why() -> None:
    prompt = with_sink({"1": node("VAELoader", vae_name="v", junk=1)}, vae="1")
    normalized = normalize(prompt, SCHEMA)
    renamed, dropped = normalized.changes
    assert (renamed.rule, renamed.node_id, renamed.before) == ("stable-id", "1", "1")
    assert renamed.after in normalized.prompt
    assert (dropped.rule, dropped.node_id, dropped.before, dropped.after) == ("undeclared-keys", "1", {"junk": 1}, None)
    assert all(change.reason for change in normalized.changes)
