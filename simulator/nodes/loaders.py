"""Loaders and the nodes that turn models into models. Names and schemas as in ComfyUI nodes.py."""

from collections.abc import Mapping
from typing import Any, ClassVar

from simulator.values import Patch, Patcher, Wrapped, patcher_of

from .base import Call, Files, Node, Spec
from .reading import read_patch, read_weights

# How a checkpoint's bytes divide into diffusion model, text encoder and VAE; the rest is the VAE's.
_MODEL_SHARE = 0.74
_CLIP_SHARE = 0.24

_CLIP_TYPES = [
    "stable_diffusion", "stable_cascade", "sd3", "stable_audio", "mochi", "ltxv", "pixart", "cosmos", "lumina2", "wan",
    "hidream", "chroma", "ace", "omnigen2", "qwen_image", "hunyuan_image", "flux2", "ovis", "longcat_image",
    "cogvideox", "lens", "pixeldit", "ideogram4", "boogu", "krea2", "joyimage", "mage", "minimax",
]  # fmt: skip
_DUAL_CLIP_TYPES = [
    "sdxl", "sd3", "flux", "hunyuan_video", "hidream", "hunyuan_image", "hunyuan_video_15", "kandinsky5",
    "kandinsky5_image", "ltxv", "newbie", "ace",
]  # fmt: skip
_DEVICE = (["default", "cpu"], {"advanced": True})
_STRENGTH = ("FLOAT", {"default": 1.0, "min": -100.0, "max": 100.0, "step": 0.01})


class CheckpointLoaderSimple(Node):
    """One file, three models."""

    NAME = "CheckpointLoaderSimple"
    DISPLAY_NAME = "Load Checkpoint"
    CATEGORY = "model/loaders"
    REQUIRED: ClassVar[Mapping[str, Spec]] = {"ckpt_name": Files("checkpoints", details={})}
    RETURN_TYPES = ("MODEL", "CLIP", "VAE")

    async def run(self, call: Call, *, ckpt_name: str) -> Any:
        """See Node."""
        shares = (_MODEL_SHARE, _CLIP_SHARE, 1 - _MODEL_SHARE - _CLIP_SHARE)
        model, clip, vae = await read_weights(call, "checkpoints", ckpt_name, ("MODEL", "CLIP", "VAE"), shares)
        return Patcher(model), Wrapped(Patcher(clip)), Wrapped(Patcher(vae))


class UNETLoader(Node):
    """A diffusion model alone."""

    NAME = "UNETLoader"
    DISPLAY_NAME = "Load Diffusion Model"
    CATEGORY = "model/loaders"
    REQUIRED: ClassVar[Mapping[str, Spec]] = {
        "unet_name": Files("diffusion_models"),
        "weight_dtype": (["default", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2"], {"advanced": True}),
    }
    RETURN_TYPES = ("MODEL",)

    async def run(self, call: Call, *, unet_name: str, weight_dtype: str) -> Any:
        """See Node."""
        del weight_dtype
        (model,) = await read_weights(call, "diffusion_models", unet_name, ("MODEL",))
        return (Patcher(model),)


class CLIPLoader(Node):
    """A text encoder."""

    NAME = "CLIPLoader"
    DISPLAY_NAME = "Load CLIP"
    CATEGORY = "model/loaders"
    REQUIRED: ClassVar[Mapping[str, Spec]] = {"clip_name": Files("text_encoders"), "type": (_CLIP_TYPES,)}
    OPTIONAL: ClassVar[Mapping[str, Spec]] = {"device": _DEVICE}
    RETURN_TYPES = ("CLIP",)

    async def run(self, call: Call, *, clip_name: str, type: str = "", device: str = "default") -> Any:  # noqa: A002  # the input's name
        """See Node."""
        del type, device
        (clip,) = await read_weights(call, "text_encoders", clip_name, ("CLIP",))
        return (Wrapped(Patcher(clip)),)


class DualCLIPLoader(Node):
    """Two text encoders that act as one; their weights are one model."""

    NAME = "DualCLIPLoader"
    DISPLAY_NAME = "Load CLIP (Dual)"
    CATEGORY = "model/loaders"
    REQUIRED: ClassVar[Mapping[str, Spec]] = {
        "clip_name1": Files("text_encoders"),
        "clip_name2": Files("text_encoders"),
        "type": (_DUAL_CLIP_TYPES,),
    }
    OPTIONAL: ClassVar[Mapping[str, Spec]] = {"device": _DEVICE}
    RETURN_TYPES = ("CLIP",)

    async def run(self, call: Call, *, clip_name1: str, clip_name2: str, type: str, device: str = "default") -> Any:  # noqa: A002  # the input's name
        """See Node."""
        del type, device
        (first,) = await read_weights(call, "text_encoders", clip_name1, ("CLIP",))
        (second,) = await read_weights(call, "text_encoders", clip_name2, ("CLIP",))
        return (Wrapped(Patcher(first, also=(second,))),)


class VAELoader(Node):
    """A VAE; `pixel_space` is one without a file."""

    NAME = "VAELoader"
    DISPLAY_NAME = "Load VAE"
    CATEGORY = "model/loaders"
    REQUIRED: ClassVar[Mapping[str, Spec]] = {"vae_name": Files("vae", ("pixel_space",))}
    RETURN_TYPES = ("VAE",)

    async def run(self, call: Call, *, vae_name: str) -> Any:
        """See Node."""
        (vae,) = await read_weights(call, "vae", vae_name, ("VAE",))
        return (Wrapped(Patcher(vae)),)


class _KeepsLastFile(Node):
    """The instance keeps the last file it read, as the real LoRA loaders do."""

    def __init__(self) -> None:
        self._last: tuple[str, Patch] | None = None

    async def _patch(self, call: Call, name: str) -> Patch:
        if self._last is None or self._last[0] != name:
            self._last = None
            self._last = name, await read_patch(call, "loras", name)
        return self._last[1]


class LoraLoader(_KeepsLastFile):
    """Patches model and text encoder."""

    NAME = "LoraLoader"
    DISPLAY_NAME = "Load LoRA (Model and CLIP)"
    CATEGORY = "model/loaders"
    REQUIRED: ClassVar[Mapping[str, Spec]] = {
        "model": ("MODEL",),
        "clip": ("CLIP",),
        "lora_name": Files("loras"),
        "strength_model": _STRENGTH,
        "strength_clip": _STRENGTH,
    }
    RETURN_TYPES = ("MODEL", "CLIP")

    async def run(
        self, call: Call, *, model: Any, clip: Any, lora_name: str, strength_model: float, strength_clip: float
    ) -> Any:
        """See Node."""
        if strength_model == 0 and strength_clip == 0:
            return model, clip
        patch = await self._patch(call, lora_name)
        patcher = patcher_of(clip)
        return _patched(model, patch), clip if patcher is None else Wrapped(patcher.clone(patch))


class LoraLoaderModelOnly(_KeepsLastFile):
    """Patches the model alone."""

    NAME = "LoraLoaderModelOnly"
    DISPLAY_NAME = "Load LoRA"
    CATEGORY = "model/loaders"
    REQUIRED: ClassVar[Mapping[str, Spec]] = {
        "model": ("MODEL",),
        "lora_name": Files("loras"),
        "strength_model": _STRENGTH,
    }
    RETURN_TYPES = ("MODEL",)

    async def run(self, call: Call, *, model: Any, lora_name: str, strength_model: float) -> Any:
        """See Node."""
        if strength_model == 0:
            return (model,)
        return (_patched(model, await self._patch(call, lora_name)),)


class ModelSamplingSD3(Node):
    """Changes how a model is sampled; a clone, nothing is read."""

    NAME = "ModelSamplingSD3"
    CATEGORY = "model/patch/stable diffusion"
    MODULE = "comfy_extras.nodes_model_advanced"
    REQUIRED: ClassVar[Mapping[str, Spec]] = {
        "model": ("MODEL",),
        "shift": ("FLOAT", {"default": 3.0, "min": 0.0, "max": 100.0, "step": 0.01}),
    }
    RETURN_TYPES = ("MODEL",)

    async def run(self, call: Call, *, model: Any, shift: float) -> Any:
        """See Node."""
        del call, shift
        return (_patched(model),)


class CLIPSetLastLayer(Node):
    """Stops a text encoder early; a clone, nothing is read."""

    NAME = "CLIPSetLastLayer"
    DISPLAY_NAME = "CLIP Set Last Layer"
    CATEGORY = "model/conditioning"
    REQUIRED: ClassVar[Mapping[str, Spec]] = {
        "clip": ("CLIP",),
        "stop_at_clip_layer": ("INT", {"default": -1, "min": -24, "max": -1, "step": 1, "advanced": True}),
    }
    RETURN_TYPES = ("CLIP",)

    async def run(self, call: Call, *, clip: Any, stop_at_clip_layer: int) -> Any:
        """See Node."""
        del call, stop_at_clip_layer
        patcher = patcher_of(clip)
        return (clip if patcher is None else Wrapped(patcher.clone()),)


def _patched(model: Any, *patches: Patch) -> Any:
    patcher = patcher_of(model)
    return model if patcher is None else patcher.clone(*patches)
