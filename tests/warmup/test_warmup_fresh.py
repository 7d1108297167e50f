"""What makes a warm-up prompt new each time, and what must never be made new: the loaders."""

import copy
from typing import Any

from normalizer import Schema, normalize
from tests.warmup.schemas import CUSTOM, Prompt, custom, info, node, schema
from tests.warmup.test_warmup_smallest import TEXT_TO_IMAGE
from warmup.fresh import NONCE, fresh, varied

SAMPLER = custom({"model": ["MODEL"], "seed": ["INT", {"min": 0}]}, ["LATENT"])


def test_every_core_node_that_uses_a_model_is_new() -> None:
    assert varied(TEXT_TO_IMAGE, schema(), {}) == {"6": NONCE, "3": NONCE, "8": NONCE}


def test_the_loaders_stay_the_same_and_the_prompt_is_not_changed() -> None:
    before = copy.deepcopy(TEXT_TO_IMAGE)
    made = [fresh(TEXT_TO_IMAGE, varied(TEXT_TO_IMAGE, schema(), {}), nonce) for nonce in (1, 2)]
    assert before == TEXT_TO_IMAGE
    assert [prompt["8"]["inputs"][NONCE] for prompt in made] == [1, 2]
    chains = [{chain.signature for chain in normalize(prompt, schema()).chains} for prompt in (*made, TEXT_TO_IMAGE)]
    assert chains[0] == chains[1] == chains[2]


def test_what_a_loader_depends_on_is_left_alone() -> None:
    known = info() | {"FileFromClip": {**CUSTOM["UseNames"], **core({"clip": ["CLIP"]}, ["STRING"])}}
    workflow: Prompt = {
        "1": node("CLIPLoader", clip_name="t5.safetensors", type="sd3"),
        "2": node("FileFromClip", clip=["1", 0]),
        "3": node("VAELoader", vae_name=["2", 0]),
        "4": node("VAEDecode", samples=["5", 0], vae=["3", 0]),
        "5": node("EmptyLatentImage", width=16, height=16, batch_size=1),
    }
    assert varied(workflow, Schema.from_object_info(known), {}) == {"4": NONCE}


def core(inputs: dict[str, Any], output: list[str]) -> dict[str, Any]:
    return custom(inputs, output) | {"python_module": "nodes"}


def test_custom_classes_get_another_seed_and_nothing_they_do_not_know() -> None:
    known = Schema.from_object_info(info() | {"Sampler": SAMPLER, "Seedless": custom({"model": ["MODEL"]}, ["LATENT"])})
    workflow: Prompt = {
        "1": node("UNETLoader", unet_name="wan/low.safetensors", weight_dtype="default"),
        "2": node("Sampler", model=["1", 0], seed=7),
        "3": node("Sampler", model=["1", 0], seed=["2", 0]),
        "4": node("Seedless", model=["1", 0]),
        "5": node("Gone", model=["1", 0]),
    }
    inputs = varied(workflow, known, {})
    assert inputs == {"2": "seed"}
    assert fresh(workflow, inputs, 2**40 + 5)["2"]["inputs"]["seed"] == 5
    assert varied(workflow, known, {"2": {"seed"}}) == {}, "a seed that the entry sets stays"
