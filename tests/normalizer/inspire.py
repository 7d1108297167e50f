"""The shared loaders of ComfyUI-Inspire-Pack 1.21 as its `/object_info` has them, beside core loaders with files."""

from copy import deepcopy
from typing import Any

from normalizer import Schema
from tests.normalizer.schemas import EXTRACT, INFO, entry

CHECKPOINTS = ["a.safetensors", "b.safetensors"]
DIFFUSION_MODELS = ["unet_a.safetensors", "unet_b.safetensors"]
TEXT_ENCODERS = ["clip_g.safetensors", "clip_l.safetensors", "t5xxl.safetensors"]
DEVICE: list[Any] = [["default", "cpu"], {"advanced": True}]
KEY_AND_MODE: dict[str, Any] = {
    "key_opt": ["STRING", {"multiline": False, "placeholder": "a key"}],
    "mode": [["Auto", "Override Cache", "Read Only"]],
}
RECIPES = (
    "[Recipes single]\nstable_diffusion: clip-l\nstable_cascade: clip-g\nsd3: t5 / clip-g / clip-l\nstable_audio: t5\n"
    "mochi: t5\ncosmos: old t5 xxl\n\n[Recipes dual]\nsdxl: clip-l, clip-g\nsd3: clip-l, clip-g / clip-l, t5\n"
    "flux: clip-l, t5\n\n[Recipes triple]\nsd3: clip-l, clip-g, t5"
)
SHARED_CHECKPOINT = "CheckpointLoaderSimpleShared //Inspire"
SHARED_DIFFUSION_MODEL = "LoadDiffusionModelShared //Inspire"
SHARED_TEXT_ENCODER = "LoadTextEncoderShared //Inspire"
_TYPES = ["stable_diffusion", "stable_cascade", "sd3", "stable_audio", "mochi", "ltxv", "cosmos", "sdxl", "flux"]


def pack() -> dict[str, Any]:
    """The classes of the pack."""
    return {
        SHARED_CHECKPOINT: entry(
            ["MODEL", "CLIP", "VAE", "STRING"],
            {"ckpt_name": [CHECKPOINTS], "key_opt": KEY_AND_MODE["key_opt"]},
            {"mode": KEY_AND_MODE["mode"]},
        ),
        SHARED_DIFFUSION_MODEL: entry(
            ["MODEL", "STRING"],
            {
                "model_name": [DIFFUSION_MODELS, {"tooltip": "Diffusion Model Name"}],
                "weight_dtype": [["default", "fp8_e4m3fn"]],
                **KEY_AND_MODE,
            },
        ),
        SHARED_TEXT_ENCODER: entry(
            ["CLIP", "STRING"],
            {
                "model_name1": [TEXT_ENCODERS],
                "model_name2": [["None", *TEXT_ENCODERS]],
                "model_name3": [["None", *TEXT_ENCODERS]],
                "type": [_TYPES],
                **KEY_AND_MODE,
            },
            {"device": DEVICE},
            description=RECIPES,
        ),
        "StableCascade_CheckpointLoader //Inspire": entry(
            ["MODEL", "VAE", "MODEL", "VAE", "CLIP_VISION", "CLIP", "STRING", "STRING"],
            {"stage_b": [CHECKPOINTS], "stage_c": [CHECKPOINTS], "cache_mode": [["none", "all"]]},
        ),
        "RemoveBackendData //Inspire": entry(["*"], {"key": ["STRING", {}]}, {"signal_opt": ["*"]}, output_node=True),
    }


def core() -> dict[str, Any]:
    """Core loaders with files in their folders."""
    info = deepcopy({name: EXTRACT[name] for name in ("CheckpointLoaderSimple", "UNETLoader", "CLIPLoader")})
    info["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"][0] = CHECKPOINTS
    info["UNETLoader"]["input"]["required"]["unet_name"][0] = DIFFUSION_MODELS
    info["CLIPLoader"]["input"]["required"]["clip_name"][0] = TEXT_ENCODERS
    files: list[Any] = ["COMBO", {"options": TEXT_ENCODERS}]
    dual = {"clip_name1": [TEXT_ENCODERS], "clip_name2": [TEXT_ENCODERS], "type": [["sdxl", "sd3", "flux", "ltxv"]]}
    info["DualCLIPLoader"] = entry(["CLIP"], dual, {"device": DEVICE}, python_module="nodes")
    for name, count in (("TripleCLIPLoader", 3), ("QuadrupleCLIPLoader", 4)):
        names = {f"clip_name{number}": files for number in range(1, count + 1)}
        info[name] = entry(["CLIP"], names, python_module="comfy_extras.nodes_sd3")
    for name, outputs in (
        ("unCLIPCheckpointLoader", ["MODEL", "CLIP", "VAE", "CLIP_VISION"]),
        ("DiffusersLoader", ["MODEL", "CLIP", "VAE"]),
    ):
        slot = "ckpt_name" if name.startswith("unCLIP") else "model_path"
        options = CHECKPOINTS if slot == "ckpt_name" else ["folder"]
        info[name] = entry(outputs, {slot: [options]}, python_module="nodes")
    return info


INSPIRE = Schema.from_object_info({**INFO, **core(), **pack()})
