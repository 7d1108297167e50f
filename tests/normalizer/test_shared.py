"""Core loaders exchanged for the Inspire Pack's shared ones, and the way back from there."""

import json
from typing import Any

import pytest

from normalizer import Normalized, Schema, SharedLoaders, WayBack, cache_keys, carry, exchange, is_cache_key, normalize
from normalizer.shared import cache_key
from tests.normalizer.inspire import (
    INSPIRE,
    KEY_AND_MODE,
    SHARED_CHECKPOINT,
    SHARED_DIFFUSION_MODEL,
    SHARED_TEXT_ENCODER,
    core,
    pack,
)
from tests.normalizer.schemas import INFO, entry, node, text_to_image, with_sink

LOADERS = SharedLoaders.of(INSPIRE)


def exchanged(prompt: dict[str, Any], schema: Schema = INSPIRE) -> Normalized:
    return exchange(normalize(prompt, schema), SharedLoaders.of(schema))


def sent(class_type: str, slot: str = "model", **inputs: Any) -> dict[str, Any]:
    """What a loader is sent as."""
    result = exchanged(with_sink({"1": node(class_type, **inputs)}, **{slot: "1"}))
    made: dict[str, Any] = result.prompt[next(iter(result.way_back.ids))]
    return made


def test_siblings_are_found_in_the_schema() -> None:
    assert {name: sibling.shared for name, sibling in LOADERS.siblings.items()} == {
        "CheckpointLoaderSimple": SHARED_CHECKPOINT,
        "UNETLoader": SHARED_DIFFUSION_MODEL,
        "CLIPLoader": SHARED_TEXT_ENCODER,
        "DualCLIPLoader": SHARED_TEXT_ENCODER,
        "TripleCLIPLoader": SHARED_TEXT_ENCODER,
    }


def test_without_the_pack_nothing_is_exchanged() -> None:
    schema = Schema.from_object_info({**INFO, **core()})
    assert not SharedLoaders.of(schema)
    before = normalize(text_to_image(ckpt="a.safetensors"), schema)
    assert exchange(before, SharedLoaders.of(schema)) == before


def test_a_checkpoint() -> None:
    key = cache_key("CheckpointLoaderSimple", {"ckpt_name": "a.safetensors"})
    assert sent("CheckpointLoaderSimple", ckpt_name="a.safetensors") == node(
        SHARED_CHECKPOINT, ckpt_name="a.safetensors", key_opt=key, mode="Auto"
    )


def test_a_diffusion_model_under_another_name_of_its_input() -> None:
    inputs = {"unet_name": "unet_b.safetensors", "weight_dtype": "fp8_e4m3fn"}
    assert sent("UNETLoader", **inputs) == node(
        SHARED_DIFFUSION_MODEL,
        model_name="unet_b.safetensors",
        weight_dtype="fp8_e4m3fn",
        key_opt=cache_key("UNETLoader", inputs),
        mode="Auto",
    )


def test_a_dtype_that_the_shared_loader_does_not_have_stays() -> None:
    made = sent("UNETLoader", unet_name="unet_b.safetensors", weight_dtype="fp8_e5m2")
    assert made["class_type"] == "UNETLoader"


def test_one_to_three_text_encoders() -> None:
    files = ["clip_l.safetensors", "clip_g.safetensors", "t5xxl.safetensors"]
    single = sent("CLIPLoader", "clip", clip_name=files[0], type="stable_diffusion", device="cpu")["inputs"]
    dual = sent("DualCLIPLoader", "clip", clip_name1=files[0], clip_name2=files[2], type="flux")["inputs"]
    triple = sent("TripleCLIPLoader", "clip", **{f"clip_name{i + 1}": file for i, file in enumerate(files)})["inputs"]
    names = [tuple(made[f"model_name{i}"] for i in (1, 2, 3)) for made in (single, dual, triple)]
    assert names == [(files[0], "None", "None"), (files[0], files[2], "None"), tuple(files)]
    assert [made["type"] for made in (single, dual, triple)] == ["stable_diffusion", "flux", "sd3"]
    assert [made.get("device") for made in (single, dual, triple)] == ["cpu", None, None]


@pytest.mark.parametrize(
    ("class_type", "inputs"),
    [
        ("CLIPLoader", {"clip_name": "t5xxl.safetensors", "type": "wan"}),  # no such type there
        ("CLIPLoader", {"clip_name": "t5xxl.safetensors", "type": "ltxv"}),  # no recipe for it
        ("CLIPLoader", {"clip_name": "t5xxl.safetensors", "type": "flux"}),  # a recipe for two files only
        ("CLIPLoader", {"clip_name": "missing.safetensors", "type": "sd3"}),
        ("CLIPLoader", {"clip_name": "t5xxl.safetensors"}),  # incomplete
        ("CLIPLoader", {"clip_name": 5, "type": "sd3"}),
        ("CLIPLoader", {"clip_name": {"__value__": "t5xxl.safetensors"}, "type": "sd3"}),
        ("DualCLIPLoader", {"clip_name1": "clip_l.safetensors", "clip_name2": "clip_l.safetensors", "type": "sd3"}),
        ("QuadrupleCLIPLoader", {f"clip_name{i}": "clip_l.safetensors" for i in (1, 2, 3, 4)}),
    ],
)
def test_what_does_not_map_one_to_one_stays(class_type: str, inputs: dict[str, Any]) -> None:
    prompt = with_sink({"1": node(class_type, **inputs)}, clip="1")
    assert exchanged(prompt) == normalize(prompt, INSPIRE)


def test_a_forced_reload_stays() -> None:
    prompt = with_sink({"1": {**node("CheckpointLoaderSimple", ckpt_name="a.safetensors"), "is_changed": 1}}, model="1")
    assert exchanged(prompt) == normalize(prompt, INSPIRE)


def test_a_linked_file_name_stays() -> None:
    prompt = with_sink(
        {"1": node("CheckpointLoaderSimple", ckpt_name=["2", 0]), "2": node("PrimitiveString", value="a.safetensors")},
        model="1",
    )
    assert exchanged(prompt) == normalize(prompt, INSPIRE)


@pytest.mark.parametrize("slot", [3, -1, 0.5])
def test_a_slot_that_only_the_shared_loader_has_keeps_the_original(slot: float) -> None:
    prompt = {
        "1": node("CheckpointLoaderSimple", ckpt_name="a.safetensors"),
        "2": node("Sink", model=["1", 0], anything=["1", slot]),
    }
    assert exchanged(prompt) == normalize(prompt, INSPIRE)


def test_a_prompt_in_which_nodes_may_be_looked_up_keeps_its_classes() -> None:
    prompt = {**text_to_image(ckpt="a.safetensors"), "r": node("PromptReader", node_id="4")}
    assert exchanged(prompt) == normalize(prompt, INSPIRE)


@pytest.mark.parametrize(
    "change",
    [
        {"output": ["MODEL", "CLIP", "VAE", "STRING", "STRING"]},
        {"output": ["CLIP", "MODEL", "VAE", "STRING"]},
        {"output_node": True},
        {"input": {"required": {"ckpt_name": [["a.safetensors"]], "mode": KEY_AND_MODE["mode"]}}},
        {"input": {"required": {"ckpt_name": [["a.safetensors"]], **KEY_AND_MODE, "config": [["x", "y"]]}}},
        {"input": {"required": {"ckpt_name": [["a.safetensors"]], **KEY_AND_MODE}, "hidden": {"p": "PROMPT"}}},
    ],
)
def test_a_class_that_is_not_quite_the_same_is_no_sibling(change: dict[str, Any]) -> None:
    other = {**pack(), SHARED_CHECKPOINT: {**pack()[SHARED_CHECKPOINT], **change}}
    siblings = SharedLoaders.of(Schema.from_object_info({**INFO, **core(), **other})).siblings
    assert "CheckpointLoaderSimple" not in siblings
    assert "UNETLoader" in siblings


def test_without_recipes_one_file_or_several_is_anybodys_guess() -> None:
    other = pack()
    del other[SHARED_TEXT_ENCODER]["description"]
    siblings = SharedLoaders.of(Schema.from_object_info({**INFO, **core(), **other})).siblings
    assert set(siblings) == {"CheckpointLoaderSimple", "UNETLoader"}


def test_of_two_siblings_neither_is_taken() -> None:
    twin = {"Twin //Inspire": pack()[SHARED_CHECKPOINT]}
    siblings = SharedLoaders.of(Schema.from_object_info({**INFO, **core(), **pack(), **twin})).siblings
    assert "CheckpointLoaderSimple" not in siblings


def test_an_optional_input_left_out_must_mean_the_same() -> None:
    other = pack()
    other[SHARED_TEXT_ENCODER]["input"]["optional"]["device"] = [["cpu", "default"]]
    schema = Schema.from_object_info({**INFO, **core(), **other})
    assert "CLIPLoader" not in SharedLoaders.of(schema).siblings


def test_the_key_hangs_on_all_that_decides_the_model_and_on_nothing_else() -> None:
    makes = [
        ("CLIPLoader", {"clip_name": "t5xxl.safetensors", "type": "sd3"}),
        ("CLIPLoader", {"clip_name": "t5xxl.safetensors", "type": "mochi"}),
        ("CLIPLoader", {"clip_name": "t5xxl.safetensors", "type": "sd3", "device": "cpu"}),
        ("CLIPLoader", {"clip_name": "clip_l.safetensors", "type": "sd3"}),
        ("OtherLoader", {"clip_name": "clip_l.safetensors", "type": "sd3"}),
    ]
    keys = [cache_key(class_type, inputs) for class_type, inputs in makes]
    assert len(set(keys)) == len(keys)
    assert keys[0] == cache_key("CLIPLoader", {"type": "sd3", "clip_name": "t5xxl.safetensors"})
    assert keys[0] == "comfykeep-956f3290c4ebd0ff1a1e"
    assert all(map(is_cache_key, keys))
    assert not any(map(is_cache_key, ("comfykeep", "t5xxl.safetensors", f"{keys[0]}0", "*")))


def test_pins_are_exchanged_like_the_nodes_that_ran() -> None:
    ran = exchanged(text_to_image(ckpt="a.safetensors"))
    chains = normalize(text_to_image(ckpt="a.safetensors"), INSPIRE).chains
    other = normalize(text_to_image(ckpt="b.safetensors", lora="other.safetensors"), INSPIRE)
    result = exchange(carry(other, chains, INSPIRE), LOADERS)
    loader = next(iter(ran.way_back.ids))
    assert result.prompt[loader]["inputs"] == ran.prompt[loader]["inputs"]
    assert len(cache_keys(result.prompt)) == 2
    assert list(result.way_back.exchanged) == [next(iter(result.way_back.ids))]


PROMPT = {
    "4": node("CheckpointLoaderSimple", junk=1, ckpt_name="a.safetensors"),
    "5": {**node("UNETLoader", unet_name="unet_a.safetensors", weight_dtype="default"), "_meta": {"title": "mine"}},
    "6": node("Sink", model=["4", 0], vae=["4", 2]),
    "7": node("Sink", model=["5", 0]),
}
SENT = exchanged(PROMPT)
BACK = SENT.way_back
CHECKPOINT, UNET = BACK.ids


def test_the_client_reads_its_own_prompt() -> None:
    assert {SENT.prompt[CHECKPOINT]["class_type"], SENT.prompt[UNET]["class_type"]} == {
        SHARED_CHECKPOINT,
        SHARED_DIFFUSION_MODEL,
    }
    back = WayBack.from_json(json.loads(json.dumps(BACK.to_json())))
    assert back == BACK
    assert json.dumps(BACK.prompt(SENT.prompt)) == json.dumps(PROMPT)
    item = [0, "id", SENT.prompt, BACK.into_extra_data({}), ["6"]]
    assert BACK.queue_item(item) == [0, "id", PROMPT, {}, ["6"]]


def test_diff_shows_the_exchange_with_its_rule() -> None:
    (change,) = [change for change in SENT.changes if change.rule == "shared-loader" and change.node_id == "5"]
    assert change.before == {"class_type": "UNETLoader", "inputs": PROMPT["5"]["inputs"]}
    assert change.after["class_type"] == SHARED_DIFFUSION_MODEL
    assert "keeps them by key" in change.reason


def test_an_error_of_the_shared_loader_is_the_clients_loaders() -> None:
    data = {
        "prompt_id": "p",
        "node_id": UNET,
        "node_type": SHARED_DIFFUSION_MODEL,
        "executed": [CHECKPOINT],
        "current_inputs": {"model_name": ["unet_a.safetensors"], "key_opt": ["k"]},
        "current_outputs": [CHECKPOINT],
    }
    assert BACK.event(data) == {
        "prompt_id": "p",
        "node_id": "5",
        "node_type": "UNETLoader",
        "executed": ["4"],
        "current_inputs": {"unet_name": ["unet_a.safetensors"], "weight_dtype": ["default"]},
        "current_outputs": ["4"],
    }
    entry_of = {"prompt": [0, "p", SENT.prompt, {}, []], "status": {"messages": [["execution_error", data]]}}
    assert SHARED_DIFFUSION_MODEL not in json.dumps(BACK.history_entry(entry_of))
    assert SHARED_DIFFUSION_MODEL not in json.dumps(BACK.job({"id": "p", "execution_error": data}))


def test_an_error_without_inputs_gets_none() -> None:
    data = {"node_id": UNET, "node_type": SHARED_DIFFUSION_MODEL, "current_inputs": {}}
    assert BACK.event(data) == {"node_id": "5", "node_type": "UNETLoader", "current_inputs": {}}


def test_validation_errors_name_the_clients_inputs() -> None:
    errors = [
        {
            "type": "value_not_in_list",
            "details": "model_name: 'x' not in []",
            "extra_info": {"input_name": "model_name", "received_value": "x"},
        },
        {"type": "other", "details": "model_name", "extra_info": {}},
    ]
    body = {"node_errors": {UNET: {"errors": errors, "dependent_outputs": ["7"], "class_type": SHARED_DIFFUSION_MODEL}}}
    told = BACK.submission_answer(body)["node_errors"]["5"]
    assert told["class_type"] == "UNETLoader"
    assert told["errors"][0]["details"] == "unet_name: 'x' not in []"
    assert told["errors"][0]["extra_info"] == {"input_name": "unet_name", "received_value": "x"}
    assert told["errors"][1] == errors[1]


def test_other_nodes_errors_are_left_alone() -> None:
    data = {"node_id": "6", "node_type": "Sink", "current_inputs": {"model_name": ["x"]}}
    assert BACK.event(data) == data


def test_an_entry_of_the_pack_that_is_no_loader_is_not_asked() -> None:
    odd = {"Odd //Inspire": entry(["MODEL"], {"ckpt_name": [["a.safetensors"]]})}
    schema = Schema.from_object_info({**INFO, **core(), **pack(), **odd})
    assert SharedLoaders.of(schema) == LOADERS
