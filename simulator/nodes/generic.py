"""Node classes known only by their /object_info entry: validated by it, with opaque outputs.

A real installation has hundreds of classes, and a proxy must cope with all of them. What such a class computes does not
matter; what it reads does: a class that names model files in its inputs reads them, and its outputs keep them alive.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from simulator.machine import Machine
from simulator.values import Opaque, Patcher, Tensor, Wrapped, patcher_of

from .base import Call, Files, Inputs, Node, Spec
from .dynamic import finalize
from .images import Image
from .reading import read_weights

_MODEL_FILES = (".safetensors", ".ckpt", ".pt", ".pt2", ".bin", ".pth", ".pkl", ".sft", ".gguf")
_WRAPPED_TYPES = frozenset(("CLIP", "VAE", "CLIP_VISION"))
_WORK_SECONDS = 0.05

# Inputs of core loaders whose options are a folder's files; a schema of an installation without models lists none.
_FOLDERS = {
    "ckpt_name": "checkpoints",
    "unet_name": "diffusion_models",
    "vae_name": "vae",
    "lora_name": "loras",
    "control_net_name": "controlnet",
    "style_model_name": "style_models",
    "gligen_name": "gligen",
    "hypernetwork_name": "hypernetworks",
    "photomaker_model_name": "photomaker",
    "audio_encoder_name": "audio_encoders",
    "clip_name1": "text_encoders",
    "clip_name2": "text_encoders",
    "clip_name3": "text_encoders",
    "clip_name4": "text_encoders",
}
_FOLDERS_OF_CLASS = {
    ("CLIPVisionLoader", "clip_name"): "clip_vision",
    ("CLIPLoader", "clip_name"): "text_encoders",
    ("UpscaleModelLoader", "model_name"): "upscale_models",
    ("LatentUpscaleModelLoader", "model_name"): "latent_upscale_models",
    ("ModelPatchLoader", "name"): "model_patches",
}


def _folder_of(class_name: str, name: str) -> str | None:
    return _FOLDERS_OF_CLASS.get((class_name, name), _FOLDERS.get(name))


def _spec(class_name: str, name: str, spec: Any) -> Spec:
    folder = _folder_of(class_name, name)
    if folder is not None and isinstance(spec, list) and isinstance(spec[0], list):
        details = spec[1] if len(spec) > 1 else None
        return Files(folder, tuple(spec[0]), details)
    loaded: list[Any] = spec
    return loaded


class GenericNode(Node):
    """Base of classes made from a schema."""

    ACCEPTS_ALL = True

    @classmethod
    def finalized(cls, machine: Machine, given: dict[str, Any]) -> Inputs:
        """See Node."""
        return finalize(cls.inputs(machine), given)

    @classmethod
    def shown_name(cls, name: str) -> str:
        """See Node."""
        return name.rsplit(".", 1)[-1]

    def wants(self, **inputs: Any) -> list[str]:
        """All lazy inputs: what such a class would do without them is not known."""
        return [name for name, value in inputs.items() if value is None and self.is_lazy(name)]

    async def run(self, call: Call, **inputs: Any) -> Any:
        """Read the files that the inputs name, take a little time, return something of each output type."""
        files = [value for value in inputs.values() if isinstance(value, str) and value.endswith(_MODEL_FILES)]
        read: list[Any] = []
        for name in files:
            read += await read_weights(call, None, name, ("MODEL",))
        if not files:
            await call.machine.clock.sleep(_WORK_SECONDS)
        outputs = tuple(self._output(call, kind, inputs, read) for kind in self.RETURN_TYPES)
        lists = self.OUTPUT_IS_LIST or (False,) * len(outputs)
        results = tuple([value] if is_list else value for value, is_list in zip(outputs, lists, strict=True))
        return {"ui": {}, "result": results} if results else {"ui": {}}

    @staticmethod
    def _output(call: Call, kind: Any, inputs: Mapping[str, Any], read: list[Any]) -> Any:
        if read:
            patcher = Patcher(read[0], also=tuple(read[1:]))
            if kind == "MODEL":
                return patcher
            return Wrapped(patcher) if kind in _WRAPPED_TYPES else Opaque(str(kind), (patcher,))
        for value in inputs.values():
            patcher_in = patcher_of(value)
            if patcher_in is not None and kind == ("MODEL" if isinstance(value, Patcher) else "CLIP"):
                return patcher_in.clone() if isinstance(value, Patcher) else Wrapped(patcher_in.clone())
        value = _plain(kind)
        if isinstance(value, Tensor):
            call.machine.memory.take(value)
        return value


def _plain(kind: Any) -> Any:
    """A value of a type that is no model."""
    simple: dict[str, Any] = {"STRING": "", "INT": 0, "FLOAT": 0.0, "BOOLEAN": False}
    if kind in simple:
        return simple[kind]
    if kind == "IMAGE":
        return Image(1, 64, 64, (128, 128, 128))
    if kind == "MASK":
        return Tensor((1, 64, 64))
    if kind == "LATENT":
        return {"samples": Tensor((1, 4, 8, 8))}
    return Opaque(str(kind))


def from_entry(name: str, entry: dict[str, Any], built_in: type[Node] | None = None) -> type[Node]:
    """Make a class of its /object_info entry.

    Args:
        name: the class.
        entry: its schema.
        built_in: a class of that name that the simulator knows how to run; it keeps its behaviour and its files.
    """
    inputs: Inputs = entry["input"]

    def info(cls: type[Node], machine: Machine) -> dict[str, Any]:
        return {**entry, "input": {**inputs, **cls.inputs(machine)}}

    members: dict[str, Any] = {
        "__doc__": f"{name}, from a schema.",
        "__module__": __name__,
        "NAME": name,
        "REQUIRED": _specs(name, inputs.get("required", {}), built_in.REQUIRED if built_in else {}),
        "OPTIONAL": _specs(name, inputs.get("optional", {}), built_in.OPTIONAL if built_in else {}),
        "HIDDEN": inputs.get("hidden", {}),
        "RETURN_TYPES": tuple(entry["output"]),
        "INPUT_IS_LIST": entry.get("is_input_list", False),
        "OUTPUT_IS_LIST": tuple(entry["output_is_list"]) or None,
        "OUTPUT_NODE": entry.get("output_node", False),
        "INTERMEDIATE_OUTPUT": entry.get("has_intermediate_output", False),
        "ASYNC": bool(entry.get("api_node")),
        "info": classmethod(info),
    }
    return type(name, (built_in or GenericNode,), members)


def _specs(name: str, given: Mapping[str, Any], known: Mapping[str, Spec]) -> dict[str, Spec]:
    specs: dict[str, Spec] = {}
    for key, spec in given.items():
        own = known.get(key)
        if isinstance(own, Files):
            specs[key] = replace(own, details=spec[1] if len(spec) > 1 else None)
        else:
            specs[key] = _spec(name, key, spec)
    return specs


def from_file(path: Path, built_in: Mapping[str, type[Node]]) -> dict[str, type[Node]]:
    """Classes of a saved answer of GET /object_info.

    Args:
        path: the answer as a file.
        built_in: classes that keep their behaviour and take their schema from the file.

    Raises:
        ValueError: the file holds something else.
    """
    entries = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(entries, dict) or not all(
        isinstance(each, dict) and "input" in each for each in entries.values()
    ):
        raise ValueError(f"{path} is no answer of GET /object_info")
    return {name: from_entry(name, entry, built_in.get(name)) for name, entry in entries.items()}
