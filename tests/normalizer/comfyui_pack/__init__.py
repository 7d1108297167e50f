"""Nodes for a real ComfyUI, to judge the normalizer by results: link this folder into its `custom_nodes`.

They load nothing: a "model" is a text that says what was done to it. Each imitates something that custom packs do and
that a rewritten prompt could break.
"""

from collections.abc import Mapping
from typing import Any

from .telling import TELLING

FILES = ["one", "two", "three", "broken"]


class Everything(dict[str, Any]):
    """rgthree's way to take any input: holds every key, and shows none in `/object_info`."""

    def __contains__(self, key: object) -> bool:
        return True

    def __getitem__(self, key: str) -> tuple[str]:
        return ("*",)


class KeepLoader:
    """A plain loader; the file "broken" cannot be read."""

    RETURN_TYPES = ("MODEL", "CLIP")
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls) -> Mapping[str, Any]:  # noqa: N802 -- ComfyUI's name
        return {"required": {"ckpt_name": (FILES,)}}

    def load(self, ckpt_name: str) -> tuple[str, str]:
        if ckpt_name == "broken":
            raise OSError(f"cannot read {ckpt_name}")
        return f"model {ckpt_name}", f"clip {ckpt_name}"


class KeepLora:
    """Like ComfyUI's own: the instance keeps the last file, so that another strength does not read it again."""

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "patch"

    def __init__(self) -> None:
        self.held: str | None = None

    @classmethod
    def INPUT_TYPES(cls) -> Mapping[str, Any]:  # noqa: N802
        return {"required": {"model": ("MODEL",), "lora_name": (FILES,), "strength": ("FLOAT", {"default": 1.0})}}

    def patch(self, model: str, lora_name: str, strength: float) -> tuple[str]:
        how = "held" if self.held == lora_name else "read"
        self.held = lora_name
        return (f"{model} + {how} {lora_name} @ {strength}",)


class KeepPower:
    """LoRAs, and the model itself, as undeclared inputs."""

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "patch"

    @classmethod
    def INPUT_TYPES(cls) -> Mapping[str, Any]:  # noqa: N802
        return {"required": {}, "optional": Everything()}

    def patch(self, model: str = "nothing", **kwargs: Any) -> tuple[str]:
        loras = [value for name, value in kwargs.items() if name.startswith("lora_") and value["on"]]
        return (" + ".join([model, *(f"{value['lora']} @ {value['strength']}" for value in loras)]),)


class KeepUnique:
    """A loader that is told its own id, and so has a cache entry for each id."""

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls) -> Mapping[str, Any]:  # noqa: N802
        return {"required": {"ckpt_name": (FILES,)}, "hidden": {"unique_id": "UNIQUE_ID"}}

    def load(self, ckpt_name: str, unique_id: str) -> tuple[str]:
        return (f"model {ckpt_name}" + ("" if unique_id else " of nobody"),)


class KeepLookup:
    """Finds another node by its id in the prompt."""

    RETURN_TYPES = ("STRING",)
    FUNCTION = "look"

    @classmethod
    def INPUT_TYPES(cls) -> Mapping[str, Any]:  # noqa: N802
        return {"required": {"node_id": ("STRING", {})}, "hidden": {"prompt": "PROMPT"}}

    def look(self, node_id: str, prompt: Mapping[str, Any]) -> tuple[str]:
        return (prompt[node_id]["inputs"]["ckpt_name"],)


class KeepShow:
    """Shows a text."""

    RETURN_TYPES = ()
    FUNCTION = "show"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> Mapping[str, Any]:  # noqa: N802
        return {"required": {"value": ("*",)}, "optional": {"salt": ("STRING", {})}}

    @classmethod
    def VALIDATE_INPUTS(cls, input_types: Mapping[str, str]) -> bool:  # noqa: ARG003, N802
        return True

    def show(self, value: Any, salt: str = "") -> dict[str, Any]:  # noqa: ARG002 -- only makes a node new
        return {"ui": {"text": [str(value)]}}


NODE_CLASS_MAPPINGS: dict[str, type] = {
    cls.__name__: cls for cls in (KeepLoader, KeepLora, KeepPower, KeepUnique, KeepLookup, KeepShow)
} | TELLING
