"""Loaders that keep what they load in a cache of their own, by key, and the node that takes keys out of it.

Names, schemas and tags as in ComfyUI-Inspire-Pack 1.21 (`inspire/backend_support.py`).
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from .base import Call, Files, Node, Spec
from .loaders import CheckpointLoaderSimple, CLIPLoader, DualCLIPLoader, UNETLoader

_PACK = "custom_nodes.ComfyUI-Inspire-Pack"
_CATEGORY = "InspirePack/Backend"
_KEY: Spec = ("STRING", {"multiline": False, "placeholder": "If empty, the name of the file is the key."})
_MODE: Spec = (["Auto", "Override Cache", "Read Only"],)
_TYPES = [
    "stable_diffusion", "stable_cascade", "sd3", "stable_audio", "mochi", "ltxv", "pixart", "cosmos", "sdxl", "flux",
    "hunyuan_video",
]  # fmt: skip
_RECIPES = (
    "[Recipes single]\nstable_diffusion: clip-l\nstable_cascade: clip-g\nsd3: t5 / clip-g / clip-l\nstable_audio: t5\n"
    "mochi: t5\ncosmos: old t5 xxl\n\n[Recipes dual]\nsdxl: clip-l, clip-g\n"
    "sd3: clip-l, clip-g / clip-l, t5 / clip-g, t5\nflux: clip-l, t5\n\n[Recipes triple]\nsd3: clip-l, clip-g, t5"
)


class _Shared(Node):
    """A loader that asks the shared cache first."""

    CATEGORY = _CATEGORY
    MODULE = _PACK
    FINGERPRINT = True
    TAG: ClassVar[str] = "diffusion"

    @classmethod
    async def fingerprint(cls, call: Call, **inputs: Any) -> Any:
        """See Node."""
        return None, inputs["key_opt"], call.machine.shared.puts(inputs["key_opt"])

    async def _through(self, call: Call, loader: type[Node], key: str, **inputs: Any) -> tuple[Any, ...]:
        cache = call.machine.shared
        if key not in cache:
            cache.put(key, self.TAG, await loader().run(call, **inputs))
        return (*cache.get(key), key)


class CheckpointLoaderSimpleShared(_Shared):
    """A checkpoint by key."""

    NAME = "CheckpointLoaderSimpleShared //Inspire"
    REQUIRED: ClassVar[Mapping[str, Spec]] = {"ckpt_name": Files("checkpoints"), "key_opt": _KEY}
    OPTIONAL: ClassVar[Mapping[str, Spec]] = {"mode": _MODE}
    RETURN_TYPES = ("MODEL", "CLIP", "VAE", "STRING")
    TAG = "ckpt"

    async def run(self, call: Call, *, ckpt_name: str, key_opt: str, mode: str = "Auto") -> Any:
        """See Node."""
        del mode
        return await self._through(call, CheckpointLoaderSimple, key_opt or ckpt_name, ckpt_name=ckpt_name)


class LoadDiffusionModelShared(_Shared):
    """A diffusion model by key."""

    NAME = "LoadDiffusionModelShared //Inspire"
    REQUIRED: ClassVar[Mapping[str, Spec]] = {
        "model_name": Files("diffusion_models", details={"tooltip": "Diffusion Model Name"}),
        "weight_dtype": (["default", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2"],),
        "key_opt": _KEY,
        "mode": _MODE,
    }
    RETURN_TYPES = ("MODEL", "STRING")

    async def run(self, call: Call, *, model_name: str, weight_dtype: str, key_opt: str, mode: str) -> Any:
        """See Node."""
        del mode
        key = key_opt or f"{model_name}_{weight_dtype}"
        return await self._through(call, UNETLoader, key, unet_name=model_name, weight_dtype=weight_dtype)


class LoadTextEncoderShared(_Shared):
    """One text encoder, or two that act as one, by key."""

    NAME = "LoadTextEncoderShared //Inspire"
    REQUIRED: ClassVar[Mapping[str, Spec]] = {
        "model_name1": Files("text_encoders"),
        "model_name2": Files("text_encoders", before=("None",)),
        "model_name3": Files("text_encoders", before=("None",)),
        "type": (_TYPES,),
        "key_opt": _KEY,
        "mode": _MODE,
    }
    OPTIONAL: ClassVar[Mapping[str, Spec]] = {"device": (["default", "cpu"], {"advanced": True})}
    RETURN_TYPES = ("CLIP", "STRING")
    DESCRIPTION = _RECIPES

    async def run(self, call: Call, *, key_opt: str, type: str, device: str = "default", **inputs: str) -> Any:  # noqa: A002  # the input's name
        """See Node."""
        names = [inputs[name] for name in ("model_name1", "model_name2", "model_name3") if inputs[name] != "None"]
        key = key_opt or "_".join((*names, type, device))
        if len(names) == 1:
            return await self._through(call, CLIPLoader, key, clip_name=names[0], type=type, device=device)
        first, second = names
        made = {"clip_name1": first, "clip_name2": second, "type": type, "device": device}
        return await self._through(call, DualCLIPLoader, key, **made)


class RemoveBackendData(Node):
    """Takes a key, or with `*` all, out of the shared cache."""

    NAME = "RemoveBackendData //Inspire"
    CATEGORY = _CATEGORY
    MODULE = _PACK
    REQUIRED: ClassVar[Mapping[str, Spec]] = {"key": _KEY}
    OPTIONAL: ClassVar[Mapping[str, Spec]] = {"signal_opt": ("*",)}
    RETURN_TYPES = ("*",)
    OUTPUT_NODE = True

    async def run(self, call: Call, *, key: str, signal_opt: Any = None) -> Any:
        """See Node."""
        if key == "*":
            call.machine.shared.clear()
        else:
            call.machine.shared.remove(key)
        return (signal_opt,)


NODES = (CheckpointLoaderSimpleShared, LoadDiffusionModelShared, LoadTextEncoderShared, RemoveBackendData)
