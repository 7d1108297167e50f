"""Text encoding, latents, sampling and decoding: the work that a GPU does. Schemas as in ComfyUI nodes.py."""

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from simulator.config import MB
from simulator.memory import Home, Weights
from simulator.stills import SAMPLING
from simulator.values import Tensor, patcher_of

from .base import Call, Node, Spec
from .images import Image, color_of

_SAMPLERS = [
    "euler", "euler_cfg_pp", "euler_ancestral", "euler_ancestral_cfg_pp", "heun", "heunpp2", "exp_heun_2_x0",
    "exp_heun_2_x0_sde", "dpm_2", "dpm_2_ancestral", "lms", "dpm_fast", "dpm_adaptive", "dpmpp_2s_ancestral",
    "dpmpp_2s_ancestral_cfg_pp", "dpmpp_sde", "dpmpp_sde_gpu", "dpmpp_2m", "dpmpp_2m_cfg_pp", "dpmpp_2m_sde",
    "dpmpp_2m_sde_gpu", "dpmpp_2m_sde_heun", "dpmpp_2m_sde_heun_gpu", "dpmpp_3m_sde", "dpmpp_3m_sde_gpu", "ddpm",
    "lcm", "ipndm", "ipndm_v", "deis", "res_multistep", "res_multistep_cfg_pp", "res_multistep_ancestral",
    "res_multistep_ancestral_cfg_pp", "gradient_estimation", "gradient_estimation_cfg_pp", "er_sde", "seeds_2",
    "seeds_3", "sa_solver", "sa_solver_pece", "ddim", "uni_pc", "uni_pc_bh2",
]  # fmt: skip
_SCHEDULERS = [
    "simple", "sgm_uniform", "karras", "exponential", "ddim_uniform", "beta", "normal", "linear_quadratic",
    "kl_optimal",
]  # fmt: skip

_MEGAPIXEL = 1024 * 1024
_LATENT_SCALE = 8
_ENCODE_SECONDS = 0.1
_CPU_FACTOR = 20
_VAE_ENCODE_SECONDS = 0.3
_DECODE_SECONDS = 0.5
# Activations while sampling one image of a megapixel.
_SAMPLING_BYTES = 1500 * MB


class Latent(Tensor):
    """The samples of a latent; remembers what was sampled into it."""

    origin: Any = None


async def on_gpu(call: Call, model: Any, activations: int = 0) -> list[Weights]:
    """Bring a model to the GPU and return its weights; a value that is no model has none."""
    patcher = patcher_of(model)
    if patcher is None:
        return []
    moves = call.machine.memory.to_gpu(patcher.wanted(), call.prompt_id, activations)
    await call.machine.moved(moves, call.doer)
    return [weights for weights, _ in patcher.wanted()]


class CLIPTextEncode(Node):
    """Text to conditioning."""

    NAME = "CLIPTextEncode"
    DISPLAY_NAME = "CLIP Text Encode (Prompt)"
    CATEGORY = "model/conditioning"
    REQUIRED: ClassVar[Mapping[str, Spec]] = {
        "text": ("STRING", {"multiline": True, "dynamicPrompts": True}),
        "clip": ("CLIP",),
    }
    RETURN_TYPES = ("CONDITIONING",)

    async def run(self, call: Call, *, clip: Any, text: str) -> Any:
        """See Node."""
        if clip is None:
            raise RuntimeError("ERROR: clip input is invalid: None")
        weights = await on_gpu(call, clip)
        on_cpu = any(each.home is Home.RAM for each in weights)
        await call.machine.compute(_ENCODE_SECONDS * (_CPU_FACTOR if on_cpu else 1), weights, call.doer)
        tokens = Tensor((1, 77, 2048))
        call.machine.memory.take(tokens)
        return ([[tokens, {"text": text}]],)


class EmptyLatentImage(Node):
    """A latent to start from."""

    NAME = "EmptyLatentImage"
    DISPLAY_NAME = "Empty Latent Image"
    CATEGORY = "model/latent"
    REQUIRED: ClassVar[Mapping[str, Spec]] = {
        "width": ("INT", {"default": 512, "min": 16, "max": 16384, "step": 8}),
        "height": ("INT", {"default": 512, "min": 16, "max": 16384, "step": 8}),
        "batch_size": ("INT", {"default": 1, "min": 1, "max": 4096}),
    }
    RETURN_TYPES = ("LATENT",)

    async def run(self, call: Call, *, width: int, height: int, batch_size: int = 1) -> Any:
        """See Node."""
        latent = Latent((batch_size, 4, height // _LATENT_SCALE, width // _LATENT_SCALE))
        call.machine.memory.take(latent)
        return ({"samples": latent},)


class KSampler(Node):
    """Sampling: most of the time that a prompt takes."""

    NAME = "KSampler"
    CATEGORY = "model/sampling"
    REQUIRED: ClassVar[Mapping[str, Spec]] = {
        "model": ("MODEL",),
        "seed": ("INT", {"default": 0, "min": 0, "max": 0xFFFFFFFFFFFFFFFF, "control_after_generate": True}),
        "steps": ("INT", {"default": 20, "min": 1, "max": 10000}),
        "cfg": ("FLOAT", {"default": 8.0, "min": 0.0, "max": 100.0, "step": 0.1, "round": 0.01}),
        "sampler_name": (_SAMPLERS,),
        "scheduler": (_SCHEDULERS,),
        "positive": ("CONDITIONING",),
        "negative": ("CONDITIONING",),
        "latent_image": ("LATENT",),
        "denoise": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.01}),
    }
    RETURN_TYPES = ("LATENT",)

    async def run(  # noqa: PLR0913  # the real node's inputs
        self,
        call: Call,
        *,
        model: Any,
        seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        positive: Any,
        negative: Any,
        latent_image: Any,
        denoise: float = 1.0,
    ) -> Any:
        """See Node."""
        del cfg, sampler_name, scheduler, positive, negative
        start: Tensor = latent_image["samples"]
        count, _, height, width = start.shape
        megapixels = count * height * width * _LATENT_SCALE**2 / _MEGAPIXEL
        await sample(call, model, max(1, int(steps * denoise)), megapixels)
        result = Latent(start.shape)
        result.origin = seed
        call.machine.memory.take(result)
        return ({**latent_image, "samples": result},)


async def sample(call: Call, model: Any, steps: int, megapixels: float) -> None:
    """Let a model run for some steps, with progress and previews."""
    weights = await on_gpu(call, model, int(_SAMPLING_BYTES * megapixels))
    for step in range(steps):
        call.check_interrupt()
        await call.machine.compute(call.machine.config.step_seconds * megapixels, weights, call.doer)
        call.progress(step + 1, steps, SAMPLING if call.previews else None)


class VAEEncode(Node):
    """Images to latents."""

    NAME = "VAEEncode"
    DISPLAY_NAME = "VAE Encode"
    CATEGORY = "model/latent"
    REQUIRED: ClassVar[Mapping[str, Spec]] = {"pixels": ("IMAGE",), "vae": ("VAE",)}
    RETURN_TYPES = ("LATENT",)

    async def run(self, call: Call, *, vae: Any, pixels: Any) -> Any:
        """See Node."""
        count, height, width, _ = pixels.shape
        weights = await on_gpu(call, vae)
        megapixels = count * height * width / _MEGAPIXEL
        await call.machine.compute(_VAE_ENCODE_SECONDS * megapixels, weights, call.doer)
        latent = Latent((count, 4, height // _LATENT_SCALE, width // _LATENT_SCALE))
        call.machine.memory.take(latent)
        return ({"samples": latent},)


class VAEDecode(Node):
    """Latents to images."""

    NAME = "VAEDecode"
    DISPLAY_NAME = "VAE Decode"
    CATEGORY = "model/latent"
    REQUIRED: ClassVar[Mapping[str, Spec]] = {"samples": ("LATENT",), "vae": ("VAE",)}
    RETURN_TYPES = ("IMAGE",)

    async def run(self, call: Call, *, vae: Any, samples: Any) -> Any:
        """See Node."""
        latent: Tensor = samples["samples"]
        count, _, height, width = latent.shape
        weights = await on_gpu(call, vae)
        megapixels = count * height * width * _LATENT_SCALE**2 / _MEGAPIXEL
        await call.machine.compute(_DECODE_SECONDS * megapixels, weights, call.doer)
        origin = latent.origin if isinstance(latent, Latent) else None
        image = Image(count, height * _LATENT_SCALE, width * _LATENT_SCALE, color_of(origin))
        call.machine.memory.take(image)
        return (image,)


class PreviewAny(Node):
    """Any value as text."""

    NAME = "PreviewAny"
    DISPLAY_NAME = "Preview as Text"
    CATEGORY = "utilities"
    MODULE = "comfy_extras.nodes_preview_any"
    OUTPUT_NODE = True
    REQUIRED: ClassVar[Mapping[str, Spec]] = {"source": ("*", {})}
    RETURN_TYPES = ("STRING",)

    async def run(self, call: Call, *, source: Any = None) -> Any:
        """See Node."""
        del call
        text = as_text(source)
        return {"ui": {"text": (text,)}, "result": (text,)}


def as_text(value: Any) -> str:
    """A value as PreviewAny shows it."""
    if value is None or isinstance(value, str):
        return value or "None" if value is None else value
    if isinstance(value, (int, float, bool)):
        return str(value)
    try:
        # the check for cycles leaves one behind where it fails, and with it the value until the next collection
        return json.dumps(value, indent=4, ensure_ascii=False, check_circular=False)
    except (TypeError, ValueError):
        return str(value)
