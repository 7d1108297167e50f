"""API-format workflows over the simulator's model files, as three users might have drawn them."""

from typing import Any


def _images(
    model: list[Any], clip: list[Any], vae: list[Any], ids: tuple[str, ...], seed: int, size: int
) -> dict[str, Any]:
    """Text to image behind any loaders; `ids` name positive, negative, latent, sampler, decoder and preview."""
    positive, negative, latent, sampler, decoder, preview = ids
    sampling = {
        "seed": seed,
        "steps": 20,
        "cfg": 7.0,
        "sampler_name": "euler",
        "scheduler": "normal",
        "denoise": 1.0,
        "model": model,
        "positive": [positive, 0],
        "negative": [negative, 0],
        "latent_image": [latent, 0],
    }
    return {
        positive: _node("CLIPTextEncode", text=f"a lighthouse, number {seed}", clip=clip),
        negative: _node("CLIPTextEncode", text="blurry", clip=clip),
        latent: _node("EmptyLatentImage", width=size, height=size, batch_size=1),
        sampler: _node("KSampler", **sampling),
        decoder: _node("VAEDecode", samples=[sampler, 0], vae=vae),
        preview: _node("PreviewImage", images=[decoder, 0]),
    }


def _node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def sdxl(seed: int) -> dict[str, Any]:
    """A checkpoint alone."""
    return {
        "4": _node("CheckpointLoaderSimple", ckpt_name="dreamscape_xl.safetensors"),
        **_images(["4", 0], ["4", 1], ["4", 2], ("6", "7", "5", "3", "8", "9"), seed, 1024),
    }


def flux(seed: int) -> dict[str, Any]:
    """Diffusion model, two text encoders and VAE from files of their own."""
    return {
        "12": _node("UNETLoader", unet_name="flux_dev_fp8.safetensors", weight_dtype="default"),
        "11": _node("DualCLIPLoader", clip_name1="t5xxl_fp8.safetensors", clip_name2="clip_l.safetensors", type="flux"),
        "10": _node("VAELoader", vae_name="flux_vae.safetensors"),
        **_images(["12", 0], ["11", 0], ["10", 0], ("6", "33", "27", "31", "8", "9"), seed, 1024),
    }


def sd15_with_lora(seed: int) -> dict[str, Any]:
    """A checkpoint with a LoRA on it."""
    return {
        "1": _node("CheckpointLoaderSimple", ckpt_name="sketchbook_15.safetensors"),
        "2": _node(
            "LoraLoader",
            lora_name="watercolor.safetensors",
            strength_model=0.8,
            strength_clip=1.0,
            model=["1", 0],
            clip=["1", 1],
        ),
        **_images(["2", 0], ["2", 1], ["1", 2], ("3", "4", "5", "6", "7", "8"), seed, 768),
    }
