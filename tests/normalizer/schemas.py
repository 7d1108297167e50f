"""Real classes of ComfyUI 0.33.0 (an extract of its `/object_info`), and classes as custom packs write them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from normalizer import Normalized, Schema

EXTRACT: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "object_info_extract.json").read_text("utf-8"))


def entry(
    output: list[Any],
    required: Mapping[str, Any] | None = None,
    optional: Mapping[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """One class of a custom pack."""
    sections = {"required": required or {}, "optional": optional or {}, "hidden": more.pop("hidden", {})}
    return {"input": sections, "output": output, "output_node": False, "python_module": "custom_nodes.pack", **more}


CUSTOM: dict[str, Any] = {
    "PowerLora": entry(["MODEL", "CLIP"]),  # rgthree's: everything it reads is undeclared
    "NewPowerLora": entry(["MODEL", "CLIP"], optional={"model": ["MODEL"], "clip": ["CLIP"]}),
    "UniqueLoader": entry(["MODEL"], {"name": [["m1", "m2"]]}, hidden={"unique_id": "UNIQUE_ID"}),
    "SelfLoader": entry(["MODEL"], {"name": [["m1", "m2"]]}, {"salt": ["INT", {"default": 0}]}),
    "KeepsIdLoader": entry(
        ["MODEL", "CLIP"], {"ckpt": [["m1", "m2"]]}, hidden={"id": ["UNIQUE_ID"], "info": ["EXTRA_PNGINFO"]}
    ),
    "WanLoader": entry(
        ["WANVIDEOMODEL"],
        {"model": [["wan.safetensors", "wan2.safetensors"]], "quantization": [["off", "fp8"]]},
        {"compile_args": ["WANCOMPILEARGS"], "lora": ["WANVIDLORA"]},
    ),
    "WanCompile": entry(["WANCOMPILEARGS"], {"backend": [["inductor", "cudagraphs"]], "fullgraph": ["BOOLEAN", {}]}),
    "WanLora": entry(
        ["WANVIDLORA"],
        {"lora": [["l1.safetensors", "l2.safetensors"]], "strength": ["FLOAT", {}]},
        {"prev_lora": ["WANVIDLORA"]},
    ),
    "WanBlockSwap": entry(["WANVIDEOMODEL"], {"model": ["WANVIDEOMODEL"], "blocks": ["INT", {}]}),
    "WanSampler": entry(["LATENT"], {"model": ["WANVIDEOMODEL"], "image_embeds": ["WANVIDIMAGE_EMBEDS"]}),
    "WanEmbeds": entry(["WANVIDIMAGE_EMBEDS"], {"width": ["INT", {}], "preset_name": [["a", "b"]]}),
    "EfficientLoader": entry(
        ["MODEL", "CONDITIONING", "LATENT", "VAE", "CLIP"],
        {
            "ckpt_name": [["m1.safetensors", "m2.safetensors"]],
            "clip_skip": ["INT", {}],
            "positive": ["STRING", {"multiline": True}],
        },
        {"lora_stack": ["LORA_STACK"]},
    ),
    "DetectorProvider": entry(["BBOX_DETECTOR"], {"model_name": [["bbox/face.pt"]]}),
    "RepoLoader": entry(["FL2MODEL"], {"model": [["org/base", "org/large"]]}),
    "LoadPose": entry(["POSE_KEYPOINT"], {"file": [["a.json"]]}),
    "LoadClipWithFrames": entry(["PACKVIDEO", "IMAGE"], {"file_name": [["a.mp4"]]}),
    "TextMixer": entry(["PACKTEXTS"], {"a": ["STRING", {}], "b": ["STRING", {}]}, {"image": ["IMAGE"]}),
    "AnySwitch": entry(["*"], optional={"a": ["*"], "b": ["*"]}),
    "NamedLoader": entry(["MODEL"], {"ckpt_name": ["STRING", {"forceInput": True}]}),
    "PathLoader": entry(["VAE"], {"path": ["STRING", {"default": ""}]}),
    "OutputLoader": entry(["MODEL"], {"name": [["m1"]]}, output_node=True),
    "PreviewLoader": entry(["MODEL"], {"name": [["m1"]]}, has_intermediate_output=True),
    "RemoteLoader": entry(["MODEL"], {"name": [["m1"]]}, api_node=True),
    "PromptReader": entry(["STRING"], {"node_id": ["STRING", {}]}, hidden={"prompt": "PROMPT"}),
    "LoopOpen": entry(["*"], {"value": ["*"]}, hidden={"graph": "DYNPROMPT", "id": "UNIQUE_ID"}),
    "ShowText": entry([], {"text": ["*"]}, output_node=True),
    "Sink": entry([], optional={"model": ["*"], "clip": ["*"], "vae": ["*"]}, output_node=True),
    "SaveImageWithMetaData": entry([], {"images": ["IMAGE"]}, hidden={"prompt": "PROMPT"}, output_node=True),
    "DynamicLoader": entry(
        ["MODEL"],
        {
            "source": [
                "COMFY_DYNAMICCOMBO_V3",
                {
                    "options": [
                        {"key": "file", "inputs": {"required": {"name": ["COMBO", {"options": ["m1", "m2"]}]}}},
                        {"key": "size", "inputs": {"required": {"width": ["INT", {}]}}},
                    ]
                },
            ],
            "loras": [
                "COMFY_AUTOGROW_V3",
                {"template": {"input": {"required": {"lora": ["STRING", {}]}}, "prefix": "lora", "min": 1, "max": 3}},
            ],
        },
    ),
}

INFO: dict[str, Any] = {**EXTRACT, **CUSTOM}
SCHEMA = Schema.from_object_info(INFO)


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    """One node of a prompt."""
    return {"class_type": class_type, "inputs": inputs}


def text_to_image(
    ids: tuple[str, str, str, str, str, str, str] = ("4", "10", "6", "7", "5", "3", "8"),
    ckpt: str = "sdxl.safetensors",
    lora: str = "style.safetensors",
    strength: Any = 0.8,
) -> dict[str, Any]:
    """Checkpoint, LoRA, two texts, latent, sampler, preview of the decoded image."""
    loader, patch, positive, negative, latent, sampler, decoder = ids
    return {
        loader: node("CheckpointLoaderSimple", ckpt_name=ckpt),
        patch: node(
            "LoraLoader",
            model=[loader, 0],
            clip=[loader, 1],
            lora_name=lora,
            strength_model=strength,
            strength_clip=1.0,
        ),
        positive: node("CLIPTextEncode", text="a lighthouse", clip=[patch, 1]),
        negative: node("CLIPTextEncode", text="", clip=[patch, 1]),
        latent: node("EmptyLatentImage", width=64, height=64, batch_size=1),
        sampler: node(
            "KSampler",
            model=[patch, 0],
            positive=[positive, 0],
            negative=[negative, 0],
            latent_image=[latent, 0],
            seed=2**64 - 1,
            steps=20,
            cfg=7.0,
            sampler_name="euler",
            scheduler="normal",
            denoise=1.0,
        ),
        decoder: node("VAEDecode", samples=[sampler, 0], vae=[loader, 2]),
        f"{decoder}.out": node("PreviewAny", source=[decoder, 0]),
    }


def sent_ids(normalized: Normalized) -> dict[str, str]:
    return {old: new for new, old in normalized.way_back.ids.items()}


def with_sink(nodes: dict[str, Any], **links: str) -> dict[str, Any]:
    return {**nodes, "sink": node("Sink", **{name: [source, 0] for name, source in links.items()})}
