"""Classes of custom packs that are met most, as their `/object_info` shows them, shortened: inputs that decide nothing
more are left out, and lists of files hold one."""

from typing import Any

from tests.normalizer.schemas import entry

FILE = ["a.safetensors"]
DTYPES = ["fp32", "bf16", "fp16"]
PROSE = ["STRING", {"multiline": True}]
FLOAT = ["FLOAT", {"default": 1.0}]
PROVIDER = ["CPU", "CUDA", "ROCM"]
WITH_PROMPT = {"prompt": "PROMPT", "my_unique_id": "UNIQUE_ID"}

LOADERS: dict[str, Any] = {
    # ComfyUI-GGUF
    "UnetLoaderGGUF": entry(["MODEL"], {"unet_name": [["a.gguf"]]}),
    "CLIPLoaderGGUF": entry(["CLIP"], {"clip_name": [["a.gguf"]], "type": [["flux", "wan"]]}),
    # ComfyUI-KJNodes
    "DiffusionModelLoaderKJ": entry(
        ["MODEL"],
        {"model_name": [FILE], "weight_dtype": [DTYPES], "patch_cublaslinear": ["BOOLEAN", {}]},
        {"extra_state_dict": ["STRING", {"forceInput": True}]},
    ),
    "VAELoaderKJ": entry(["VAE"], {"vae_name": [FILE], "device": [["main_device", "cpu"]], "weight_dtype": [DTYPES]}),
    # ComfyUI-WanVideoWrapper
    "WanVideoModelLoader": entry(
        ["WANVIDEOMODEL"],
        {"model": [FILE], "base_precision": [DTYPES], "quantization": [["disabled"]], "load_device": [["main_device"]]},
        {
            "attention_mode": [["sdpa", "sageattn"]],
            "compile_args": ["WANCOMPILEARGS"],
            "block_swap_args": ["BLOCKSWAPARGS"],
            "lora": ["WANVIDLORA", {"default": None}],
            "vram_management_args": ["VRAM_MANAGEMENTARGS"],
            "extra_model": ["VACEPATH"],
            "fantasytalking_model": ["FANTASYTALKINGMODEL"],
        },
    ),
    "WanVideoVAELoader": entry(["WANVAE"], {"model_name": [FILE]}, {"precision": [DTYPES]}),
    "LoadWanVideoT5TextEncoder": entry(["WANTEXTENCODER"], {"model_name": [FILE], "precision": [DTYPES]}),
    "WanVideoLoraSelect": entry(
        ["WANVIDLORA"],
        {"lora": [FILE], "strength": FLOAT},
        {"prev_lora": ["WANVIDLORA"], "blocks": ["SELECTEDBLOCKS"], "low_mem_load": ["BOOLEAN", {}]},
        hidden={"unique_id": "UNIQUE_ID"},
    ),
    "WanVideoExtraModelSelect": entry(["VACEPATH"], {"extra_model": [FILE]}, {"prev_model": ["VACEPATH"]}),
    "FantasyTalkingModelLoader": entry(["FANTASYTALKINGMODEL"], {"model": [FILE], "base_precision": [DTYPES]}),
    "DownloadAndLoadWav2VecModel": entry(["WAV2VECMODEL"], {"model": [["facebook/wav2vec2-base-960h"]]}),
    # ComfyUI-Impact-Pack and its subpack
    "UltralyticsDetectorProvider": entry(["BBOX_DETECTOR", "SEGM_DETECTOR"], {"model_name": [["bbox/face.pt"]]}),
    "SAMLoader": entry(["SAM_MODEL"], {"model_name": [["sam_vit_b.pth"]], "device_mode": [["AUTO", "CPU"]]}),
    "ONNXDetectorProvider": entry(["BBOX_DETECTOR"], {"model_name": [["face.onnx"]]}),
    # ComfyUI_IPAdapter_plus, ComfyUI_InstantID, PuLID
    "IPAdapterModelLoader": entry(["IPADAPTER"], {"ipadapter_file": [["ip.bin"]]}),
    "IPAdapterInsightFaceLoader": entry(["INSIGHTFACE"], {"provider": [PROVIDER], "model_name": [["buffalo_l"]]}),
    "InstantIDModelLoader": entry(["INSTANTID"], {"instantid_file": [["ip-adapter.bin"]]}),
    "PulidFluxModelLoader": entry(["PULIDFLUX"], {"pulid_file": [FILE]}),
    # efficiency-nodes-comfyui, ComfyUI-Easy-Use: they make conditioning and latents too
    "Efficient Loader": entry(
        ["MODEL", "CONDITIONING", "CONDITIONING", "LATENT", "VAE", "CLIP", "DEPENDENCIES"],
        {
            "ckpt_name": [FILE],
            "vae_name": [["Baked VAE", *FILE]],
            "clip_skip": ["INT", {}],
            "lora_name": [["None", *FILE]],
            "positive": PROSE,
            "empty_latent_width": ["INT", {}],
        },
        {"lora_stack": ["LORA_STACK"], "cnet_stack": ["CONTROL_NET_STACK"]},
        hidden=WITH_PROMPT,
    ),
    "easy fullLoader": entry(
        ["PIPE_LINE", "MODEL", "VAE", "CLIP", "CONDITIONING", "CONDITIONING", "LATENT"],
        {"ckpt_name": [FILE], "config_name": [["Default", "v1.yaml"]], "vae_name": [FILE], "positive": PROSE},
        {"model_override": ["MODEL"], "clip_override": ["CLIP"], "optional_lora_stack": ["LORA_STACK"]},
        hidden=WITH_PROMPT,
    ),
    "LoRA Stacker": entry(["LORA_STACK"], {"lora_name_1": [FILE], "lora_wt_1": FLOAT}, {"lora_stack": ["LORA_STACK"]}),
    # ComfyUI-Florence2, ComfyUI-nunchaku, ComfyUI-segment-anything, AnimateDiff-Evolved, TensorRT
    "DownloadAndLoadFlorence2Model": entry(
        ["FL2MODEL"],
        {"model": [["microsoft/Florence-2-base"]], "precision": [DTYPES], "attention": [["sdpa"]]},
        {"lora": ["PEFTLORA"], "convert_to_safetensors": ["BOOLEAN", {}]},
    ),
    "NunchakuFluxDiTLoader": entry(
        ["MODEL"],
        {"model_path": [["svdq-int4-flux.1-dev"]], "cache_threshold": FLOAT, "cpu_offload": [["auto"]]},
        {"i2f_mode": [["enabled", "always"]]},
    ),
    "GroundingDinoModelLoader (segment anything)": entry(
        ["GROUNDING_DINO_MODEL"], {"model_name": [["GroundingDINO_SwinT_OGC (694MB)"]]}
    ),
    "ADE_LoadAnimateDiffModel": entry(["MOTION_MODEL_ADE"], {"model_name": [["mm.ckpt"]]}, {"ad_settings": ["AD_SET"]}),
    "TensorRTLoader": entry(["MODEL"], {"unet_name": [["a.engine"]], "model_type": [["sdxl_base"]]}),
    "TokenizedLoader": entry(["MODEL"], {"ckpt_name": [FILE], "max_tokens": ["INT", {}], "tokenizer": ["STRING", {}]}),
}

CHAIN_NODES: dict[str, Any] = {
    "Power Lora Loader (rgthree)": entry(["MODEL", "CLIP"], optional={"model": ["MODEL"], "clip": ["CLIP"]}),
    "IPAdapterUnifiedLoader": entry(
        ["MODEL", "IPADAPTER"], {"model": ["MODEL"], "preset": [["PLUS"]]}, {"ipadapter": ["IPADAPTER"]}
    ),
    "NunchakuFluxLoraLoader": entry(["MODEL"], {"model": ["MODEL"], "lora_name": [FILE], "lora_strength": FLOAT}),
    "WanVideoSetLoRAs": entry(["WANVIDEOMODEL"], {"model": ["WANVIDEOMODEL"]}, {"lora": ["WANVIDLORA"]}),
    "WanVideoTorchCompileSettings": entry(
        ["WANCOMPILEARGS"], {"backend": [["inductor"]], "fullgraph": ["BOOLEAN", {}]}
    ),
    "WanVideoBlockSwap": entry(["BLOCKSWAPARGS"], {"blocks_to_swap": ["INT", {}]}),
    "PathchSageAttentionKJ": entry(["MODEL"], {"model": ["MODEL"], "sage_attention": [["disabled", "auto"]]}),
    "CR Apply LoRA Stack": entry(
        ["MODEL", "CLIP", "STRING"], {"model": ["MODEL"], "clip": ["CLIP"], "lora_stack": ["LORA_STACK"]}
    ),
    "ADE_AnimateDiffLoaderGen1": entry(
        ["MODEL"], {"model": ["MODEL"], "model_name": [["mm.ckpt"]]}, {"context_options": ["CONTEXT_OPTIONS"]}
    ),
    "Context Big (rgthree)": entry(
        ["RGTHREE_CONTEXT", "MODEL", "CLIP", "VAE", "CONDITIONING", "LATENT", "IMAGE", "COMBO"],
        optional={
            "base_ctx": ["RGTHREE_CONTEXT"],
            "model": ["MODEL"],
            "clip": ["CLIP"],
            "vae": ["VAE"],
            "positive": ["CONDITIONING"],
            "latent": ["LATENT"],
            "images": ["IMAGE"],
            "ckpt_name": [FILE, {"forceInput": True}],
        },
    ),
}

NEITHER: dict[str, Any] = {
    "WanVideoSampler": entry(
        ["LATENT", "LATENT"], {"model": ["WANVIDEOMODEL"], "image_embeds": ["WANVIDIMAGE_EMBEDS"], "steps": ["INT", {}]}
    ),
    "WanVideoTextEncode": entry(
        ["WANVIDEOTEXTEMBEDS"],
        {"positive_prompt": PROSE, "negative_prompt": PROSE},
        {"t5": ["WANTEXTENCODER"], "model_to_offload": ["WANVIDEOMODEL"]},
    ),
    "WanVideoTextEncodeCached": entry(["WANVIDEOTEXTEMBEDS"], {"model_name": [FILE], "positive_prompt": PROSE}),
    "WanVideoEmptyEmbeds": entry(["WANVIDIMAGE_EMBEDS"], {"width": ["INT", {}], "height": ["INT", {}]}),
    "IPAdapter": entry(
        ["MODEL"], {"model": ["MODEL"], "ipadapter": ["IPADAPTER"], "image": ["IMAGE"], "weight": FLOAT}
    ),
    "IPAdapterLoadEmbeds": entry(["EMBEDS"], {"embeds": [["a.ipadpt"]]}),
    "ApplyInstantID": entry(
        ["MODEL", "CONDITIONING", "CONDITIONING"],
        {"instantid": ["INSTANTID"], "model": ["MODEL"], "positive": ["CONDITIONING"], "image": ["IMAGE"]},
    ),
    "ToBasicPipe": entry(
        ["BASIC_PIPE"], {"model": ["MODEL"], "clip": ["CLIP"], "vae": ["VAE"], "positive": ["CONDITIONING"]}
    ),
    "FaceDetailer": entry(["IMAGE", "MASK", "DETAILER_PIPE"], {"image": ["IMAGE"], "model": ["MODEL"]}),
    "Florence2Run": entry(["IMAGE", "MASK", "STRING"], {"image": ["IMAGE"], "florence2_model": ["FL2MODEL"]}),
    "VHS_LoadVideo": entry(
        ["IMAGE", "INT", "AUDIO", "VHS_VIDEOINFO"], {"video": [["a.mp4"]]}, {"vae": ["VAE"]}, hidden=WITH_PROMPT
    ),
    "CheckpointLoaderKJ": entry(["MODEL", "CLIP", "VAE"], {"ckpt_name": [FILE]}, output_node=True),
    "Any Switch (rgthree)": entry(["*"], optional={"any_01": ["*"]}),
    "Seed (rgthree)": entry(["INT"], {"seed": ["INT", {}]}, hidden=WITH_PROMPT),
    "ImpactSwitch": entry(["*", "STRING", "INT"], {"select": ["INT", {}]}, {"input1": ["*"]}, hidden=WITH_PROMPT),
    "DF_Text_Box": entry(["STRING"], {"Text": PROSE}),
    "CR Multi-ControlNet Stack": entry(
        ["CONTROL_NET_STACK"], {"controlnet_1": [["None", *FILE]]}, {"image_1": ["IMAGE"]}
    ),
    "ReActorBuildFaceModel": entry(
        ["FACE_MODEL"], {"face_model_name": ["STRING", {}]}, {"images": ["IMAGE"]}, output_node=True
    ),
    "Load Image Batch": entry(["IMAGE", "STRING"], {"path": ["STRING", {}], "pattern": ["STRING", {}]}),
    "LoadCLIPSegText": entry(["CONDITIONING"], {"clip": ["CLIP"], "text": ["STRING", {}]}),
    # ComfyUI-Hunyuan3DWrapper and others: things in space, from a file
    "Hy3DLoadMesh": entry(["TRIMESH"], {"glb_path": ["STRING", {}]}),
    "Load Hy3D Mesh": entry(["HY3DMESH"], {"mesh_path": ["STRING", {}]}),
    "LoadGaussians": entry(["GSGAUSSIANS"], {"file_path": ["STRING", {}]}),
    "LoadPointCloud": entry(["PACK_POINTCLOUD"], {"file_path": ["STRING", {}]}),
    # whoever's key this is, it must not be carried into the prompts of others
    "OpenAIConfig": entry(["LLM_CONFIG"], {"api_key": ["STRING", {}], "model_name": ["STRING", {}]}),
    "HubModelLoader": entry(["MODEL"], {"repo_id": ["STRING", {}]}, {"hf_token": ["STRING", {"multiline": True}]}),
    "SaveModelCard": entry([], {"model": ["MODEL"]}, output_node=True),
}

UNANCHORED: dict[str, Any] = {
    "PulidFluxEvaClipLoader": entry(["EVA_CLIP"]),  # loads one model, and shows nothing of it
    "KSamplerProvider": entry(
        ["KSAMPLER"], {"basic_pipe": ["BASIC_PIPE"], "seed": ["INT", {}], "sampler_name": [["e"]]}
    ),
    "WanVideoEnhanceAVideo": entry(["FETAARGS"], {"weight": FLOAT, "start_percent": FLOAT}),
}
"""Chain nodes by what they take and make; in a workflow nothing of them comes from a loader or feeds one."""

PACKS = {**LOADERS, **CHAIN_NODES, **NEITHER, **UNANCHORED}
