"""Roles from the schema alone: real classes, and classes as custom packs write them."""

from typing import Any

import pytest

from normalizer import Role, Schema, describe
from tests.normalizer.schemas import CUSTOM, EXTRACT, INFO, SCHEMA, entry

LOADERS = {
    "CheckpointLoaderSimple",
    "CheckpointLoader",
    "VAELoader",
    "CLIPLoader",
    "UNETLoader",
    "ControlNetLoader",
    "DiffControlNetLoader",
    "UpscaleModelLoader",
    "ImageOnlyCheckpointLoader",
    "OpticalFlowLoader",
    "CreateHookLora",
}
CHAIN_NODES = {
    "LoraLoader",
    "LoraLoaderModelOnly",
    "CLIPSetLastLayer",
    "SetClipHooks",
    "ModelSamplingSD3",
    "ModelSamplingLTXV",
    "TorchCompileModel",
    "ModelMergeSimple",
}
CUSTOM_LOADERS = {
    "UniqueLoader",
    "SelfLoader",
    "KeepsIdLoader",
    "WanLoader",
    "WanLora",
    "EfficientLoader",
    "DetectorProvider",
    "RepoLoader",
    "PathLoader",
    "DynamicLoader",
}
CUSTOM_CHAIN_NODES = {"PowerLora", "NewPowerLora", "WanCompile", "WanBlockSwap"}


def names(role: Role, info: dict[str, Any]) -> set[str]:
    return {name for name in info if SCHEMA.classes[name].role is role}


def test_core_classes() -> None:
    assert names(Role.LOADER, EXTRACT) == LOADERS
    assert names(Role.CHAIN, EXTRACT) == CHAIN_NODES


def test_custom_classes() -> None:
    assert names(Role.LOADER, CUSTOM) == CUSTOM_LOADERS
    assert names(Role.CHAIN, CUSTOM) == CUSTOM_CHAIN_NODES


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("CheckpointLoaderSimple", "makes MODEL, CLIP, VAE from ckpt_name"),
        ("UNETLoader", "makes MODEL from unet_name"),
        ("LoraLoader", "turns MODEL, CLIP into MODEL, CLIP"),
        ("PerpNeg", "needs CONDITIONING (empty_conditioning)"),
        ("KSamplerSelect", "makes no models"),
        ("LoadImage", "makes no models"),
        ("Load3D", "makes no models"),
        ("SaveImage", "shows or saves something: it would run wherever it stands"),
        ("CurveEditor", "shows or saves something: it would run wherever it stands"),
        ("ElevenLabsVoiceSelector", "calls a remote service"),
        ("NamedLoader", "needs STRING (ckpt_name)"),
        ("LoadClipWithFrames", "makes no models"),
        ("TextMixer", "makes PACKTEXTS, which holds no weights"),
        ("WanCompile", "sets WANCOMPILEARGS, for loaders and chain nodes to take"),
    ],
)
def test_reasons(name: str, reason: str) -> None:
    assert SCHEMA.classes[name].reason == reason


def test_the_table_lists_loaders_first() -> None:
    rows = describe(SCHEMA)
    assert len(rows) == len(INFO)
    assert [row.role for row in rows] == sorted(
        (row.role for row in rows), key=[Role.LOADER, Role.CHAIN, Role.NEITHER].index
    )
    assert {row.class_type for row in rows if row.role is Role.LOADER} == LOADERS | CUSTOM_LOADERS


def test_the_configuration_wins() -> None:
    schema = Schema.from_object_info(INFO, include=["LoadPose", "SaveImage"], exclude=["VAELoader"])
    assert schema.classes["LoadPose"].role is Role.LOADER
    assert schema.classes["VAELoader"].role is Role.NEITHER
    assert schema.classes["SaveImage"].role is Role.NEITHER, "an output node as a pin would run in every prompt"


def test_later_classes_are_judged_with_the_earlier_ones() -> None:
    schema = Schema.from_object_info({"WanBlockSwap": CUSTOM["WanBlockSwap"]}, exclude=["Other"])
    assert "turns" not in schema.classes["WanBlockSwap"].reason
    extended = schema.extended({"WanLoader": CUSTOM["WanLoader"], "Other": CUSTOM["SelfLoader"]})
    assert extended.classes["WanBlockSwap"].reason == "turns WANVIDEOMODEL into WANVIDEOMODEL"
    assert extended.classes["Other"].role is Role.NEITHER
    assert "WanLoader" not in schema
    assert extended.extended({}) is extended


def test_hidden_inputs_in_both_writings() -> None:
    assert SCHEMA.classes["UniqueLoader"].hidden == {"UNIQUE_ID"}
    assert SCHEMA.classes["KeepsIdLoader"].hidden == {"UNIQUE_ID", "EXTRA_PNGINFO"}
    assert SCHEMA.classes["KeepsIdLoader"].keeps_id
    assert not SCHEMA.classes["UniqueLoader"].keeps_id
    assert SCHEMA.classes["PromptReader"].looks_ids_up
    assert SCHEMA.classes["LoopOpen"].looks_ids_up
    assert not SCHEMA.classes["SaveImage"].looks_ids_up, "ComfyUI's own savers only write the prompt down"


def test_dynamic_inputs_are_found_under_their_dotted_names() -> None:
    inputs = SCHEMA.classes["DynamicLoader"].inputs
    assert list(inputs) == ["source", "source.name", "source.width", "loras.lora0", "loras.lora1", "loras.lora2"]
    assert inputs["loras.lora0"].required
    assert not inputs["loras.lora1"].required
    assert not inputs["source.name"].required
    assert "images.image0" in SCHEMA.classes["BatchImagesNode"].inputs


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"input": None, "output": None},
        {"input": {"required": [], "optional": None, "hidden": []}, "output": [["a", "b"], None]},
        {"input": {"required": {"a": [], "b": None, "c": "INT", "d": [7], "e": ["COMBO"]}}, "output": ["MODEL"]},
        {"input": {"required": {"a": ["COMFY_AUTOGROW_V3", {"template": {"prefix": "x", "max": "?"}}]}}},
        {"input": {"required": {"a": ["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "x"}, "?"]}]}}, "output": []},
        {"input": {"required": {"a": ["COMFY_AUTOGROW_V3", {}], "b": ["COMFY_DYNAMICSLOT_V3", {}]}}, "output": []},
    ],
)
def test_broken_entries_hurt_nobody(broken: dict[str, Any]) -> None:
    schema = Schema.from_object_info({"Broken": broken, "VAELoader": EXTRACT["VAELoader"], "Text": "?"})
    assert schema.classes["VAELoader"].role is Role.LOADER
    assert schema.get("Text") is None
    assert schema.get(["unhashable"]) is None


def test_data_types_of_unknown_packs_are_told_by_their_names() -> None:
    made = ["PACK_IMAGE", "PACKEMBEDS", "FACE_KEYPOINTS", "VIDEO_INFO", "PACK_LATENT_X", "MY_TASK_ID", "TEXT_OUTPUT"]
    models = ["IMAGE_ENCODER", "PACKMODEL", "VIDEO_VAE", "FACE_DETECTOR", "SOMETHING"]
    info = {name: entry([name], {"model_name": [["a.safetensors"]]}) for name in made + models}
    schema = Schema.from_object_info(info)
    assert {name for name in info if schema.classes[name].role is Role.LOADER} == set(models)


def test_a_socket_of_several_types_is_a_model_only_if_all_are() -> None:
    info = {
        "Both": entry(["MODEL"], {"model": ["MODEL,CLIP"]}),
        "Mixed": entry(["MODEL"], {"model": ["MODEL,IMAGE"]}),
        "Numbers": entry(["MODEL"], {"model": ["MODEL"], "strength": ["INT,FLOAT"]}),
    }
    schema = Schema.from_object_info(info)
    assert schema.classes["Both"].role is Role.CHAIN
    assert schema.classes["Mixed"].role is Role.NEITHER
    assert schema.classes["Numbers"].role is Role.NEITHER


def test_names_tell_where_files_do_not() -> None:
    info = {
        "SamProvider": entry(["SAM_MODEL"], {"size": [["ViT-H", "ViT-B"]]}),
        "InsightFaceLoader": entry(["INSIGHTFACE"], {"provider": [["CPU", "CUDA"]]}),
        "InsightFaceSettings": entry(["FACESETTINGS"], {"provider": [["CPU", "CUDA"]]}),
        "UnloadThings": entry(["THINGS"], {"mode": [["all", "some"]]}),
        "Uploader": entry(["UPLOADED"], {"mode": [["all", "some"]]}),
    }
    schema = Schema.from_object_info(info)
    roles = {name: schema.classes[name].role for name in info}
    loaders = {name for name, role in roles.items() if role is Role.LOADER}
    assert loaders == {"SamProvider", "InsightFaceLoader"}
    assert set(roles.values()) == {Role.LOADER, Role.CHAIN}


def test_a_loader_may_take_models_instead_of_its_files() -> None:
    files = {"ckpt_name": [["a.safetensors"]]}
    info = {
        "FullLoader": entry(["MODEL", "VAE"], files, {"model_override": ["MODEL"]}),
        "Converter": entry(["CLIP"], {"model": ["MODEL"], "style": [["a", "b"]]}),
        "OptionalLora": entry(["MODEL"], {"strength": ["FLOAT", {}]}, {"model": ["MODEL"]}),
    }
    schema = Schema.from_object_info(info)
    assert schema.classes["FullLoader"].role is Role.LOADER
    assert schema.classes["Converter"].reason == "makes CLIP from MODEL"
    assert schema.classes["OptionalLora"].reason == "turns MODEL into MODEL"


def test_the_table_names_the_exceptions() -> None:
    reasons = {row.class_type: row.reason for row in describe(SCHEMA)}
    assert reasons["KeepsIdLoader"].endswith("knows its place in the workflow, so its id is not changed")
    assert reasons["PromptReader"].endswith("may look other nodes up, so no id in its prompts is changed")
    assert ";" not in reasons["SaveImage"]
