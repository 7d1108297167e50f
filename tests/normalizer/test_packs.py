"""Custom packs: what their classes are taken for, and what becomes of workflows with them."""

from typing import Any

import pytest

from normalizer import Role, Schema, normalize
from tests.normalizer import packs
from tests.normalizer.schemas import CUSTOM, EXTRACT, node, sent_ids

SCHEMA = Schema.from_object_info({**EXTRACT, **packs.PACKS, "Sink": CUSTOM["Sink"]})


@pytest.mark.parametrize(
    ("role", "classes"),
    [(Role.LOADER, packs.LOADERS), (Role.CHAIN, packs.CHAIN_NODES | packs.UNANCHORED), (Role.NEITHER, packs.NEITHER)],
    ids=["loaders", "chain nodes", "neither"],
)
def test_roles(role: Role, classes: dict[str, Any]) -> None:
    found = {name: SCHEMA.classes[name] for name in classes}
    assert {name: item.reason for name, item in found.items() if item.role is not role} == {}


def test_what_no_loader_comes_before_is_left_alone() -> None:
    prompt = {name: node(name) for name in packs.UNANCHORED}
    prompt["sink"] = node("Sink", **{f"from {name}": [name, 0] for name in packs.UNANCHORED})
    normalized = normalize(prompt, SCHEMA)
    assert normalized.prompt == prompt
    assert normalized.chains == ()


def wan(ids: str = "1 2 3 4 5", lora: str = "a.safetensors") -> dict[str, Any]:
    compiling, swapping, select, loader, sampler = ids.split()
    return {
        compiling: node("WanVideoTorchCompileSettings", backend="inductor", fullgraph=False),
        swapping: node("WanVideoBlockSwap", blocks_to_swap=20),
        select: node("WanVideoLoraSelect", lora=lora, strength=0.7),
        loader: node(
            "WanVideoModelLoader",
            model="wan.safetensors",
            base_precision="bf16",
            quantization="disabled",
            load_device="main_device",
            compile_args=[compiling, 0],
            block_swap_args=[swapping, 0],
            lora=[select, 0],
        ),
        sampler: node("WanVideoSampler", model=[loader, 0], steps=4),
        f"{sampler} shown": node("Sink", model=[sampler, 0]),
    }


def test_a_loader_with_its_settings_is_one_chain() -> None:
    one, other = normalize(wan(), SCHEMA), normalize(wan("a b c d e"), SCHEMA)
    (chain,) = one.chains
    assert [item["class_type"] for item in chain.nodes.values()][-1] == "WanVideoModelLoader"
    assert len(chain.nodes) == 4
    assert {ref.files for ref in chain.models} == {("wan.safetensors",), ("a.safetensors",)}
    assert other.chains == one.chains
    assert normalize(wan(lora="b.safetensors"), SCHEMA).chains[0].key != chain.key


def test_switched_off_loras_of_rgthree_do_not_count_as_models() -> None:
    loras = {"lora_1": {"on": True, "lora": "a.safetensors", "strength": 1}}
    loras["lora_2"] = {"on": False, "lora": "b.safetensors", "strength": 1}
    prompt = {
        "1": node("CheckpointLoaderSimple", ckpt_name="x.safetensors"),
        "2": node(
            "Power Lora Loader (rgthree)", model=["1", 0], clip=["1", 1], PowerLoraLoaderHeaderWidget={}, **loras
        ),
        "3": node("Sink", model=["2", 0]),
    }
    normalized = normalize(prompt, SCHEMA)
    assert {ref.files for ref in normalized.models} == {("x.safetensors",), ("a.safetensors",)}
    assert normalized.way_back.dropped == {}
    assert set(sent_ids(normalized)) == {"1", "2"}


@pytest.mark.parametrize("reader", ["Efficient Loader", "Seed (rgthree)", "VHS_LoadVideo"])
def test_beside_a_class_that_reads_the_prompt_no_id_changes(reader: str) -> None:
    prompt = {
        "1": node("CheckpointLoaderSimple", ckpt_name="x.safetensors"),
        "2": node(reader),
        "3": node("Sink", model=["1", 0], clip=["2", 0]),
    }
    normalized = normalize(prompt, SCHEMA)
    assert normalized.prompt == prompt
    assert [item["class_type"] for chain in normalized.chains for item in chain.nodes.values()] == [
        "CheckpointLoaderSimple"
    ]


def test_a_text_in_a_loader_is_no_part_of_its_id() -> None:
    def efficient(text: str) -> Any:
        inputs = {"ckpt_name": "x.safetensors", "vae_name": "Baked VAE", "clip_skip": -1, "positive": text}
        return normalize({"1": node("Efficient Loader", **inputs), "2": node("Sink", model=["1", 0])}, SCHEMA)

    assert list(efficient("a cat").own) == list(efficient("a dog").own)


def test_a_context_that_passes_models_on_is_part_of_a_chain_only_while_it_holds_nothing_else() -> None:
    base = {
        "1": node("CheckpointLoaderSimple", ckpt_name="x.safetensors"),
        "2": node("Context Big (rgthree)", model=["1", 0]),
        "3": node("CLIPTextEncode", clip=["1", 1], text="a"),
        "4": node("Sink", model=["2", 1]),
    }
    assert set(sent_ids(normalize(base, SCHEMA))) == {"1", "2"}
    base["2"]["inputs"]["positive"] = ["3", 0]
    assert set(sent_ids(normalize(base, SCHEMA))) == {"1"}
