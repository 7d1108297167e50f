"""Loaders that say their own id in every way that a node can, and nodes that end a prompt in other ways."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import comfy.model_management  # type: ignore[import-not-found]
import comfy.utils  # type: ignore[import-not-found]
import nodes  # type: ignore[import-not-found]
from comfy_execution.graph_utils import GraphBuilder  # type: ignore[import-not-found]
from PIL import Image  # type: ignore[import-not-found]
from server import PromptServer  # type: ignore[import-not-found]

FILES = ["one", "two", "interrupted"]


class KeepTelling:
    """Sends events, progress, a preview and a text about itself while it loads."""

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls) -> Mapping[str, Any]:  # noqa: N802 -- ComfyUI's name
        return {"required": {"ckpt_name": (FILES,)}, "hidden": {"unique_id": "UNIQUE_ID"}}

    def load(self, ckpt_name: str, unique_id: str) -> tuple[str]:
        said = {
            "node": unique_id,
            "nested": [{unique_id: {"ids": [unique_id, f"{unique_id}.0.0.child"]}}],
            "text": f"node #{unique_id} loads {ckpt_name}",
        }
        server = PromptServer.instance
        server.send_sync("keep.telling", said, server.client_id)
        server.send_progress_text(f"{unique_id} loads {ckpt_name}", unique_id)
        bar = comfy.utils.ProgressBar(2, node_id=unique_id)
        bar.update_absolute(1, 2, ("JPEG", Image.new("RGB", (8, 8)), None))
        bar.update_absolute(2, 2)
        if ckpt_name == "interrupted":
            raise comfy.model_management.InterruptProcessingException
        return (f"model {ckpt_name}",)


class KeepExpanding:
    """A loader that is made of others: its parts have ids of their own behind its id."""

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls) -> Mapping[str, Any]:  # noqa: N802
        return {"required": {"ckpt_name": (FILES,)}}

    def load(self, ckpt_name: str) -> dict[str, Any]:
        graph = GraphBuilder()
        inner = graph.node("KeepTelling", ckpt_name=ckpt_name)
        graph.node("KeepShow", value=inner.out(0))
        return {"result": (inner.out(0),), "expand": graph.finalize()}


class KeepClass:
    """Takes a class out of ComfyUI's table, or puts it back, as a pack that is unloaded would."""

    RETURN_TYPES = ("STRING",)
    FUNCTION = "change"

    @classmethod
    def INPUT_TYPES(cls) -> Mapping[str, Any]:  # noqa: N802
        return {"required": {"name": (["KeepGone", "KeepReplaced"],), "there": ("BOOLEAN", {}), "salt": ("STRING", {})}}

    def change(self, name: str, there: bool, salt: str) -> tuple[str]:  # noqa: ARG002 -- ComfyUI passes names
        if there:
            nodes.NODE_CLASS_MAPPINGS[name] = TELLING[name]
        else:
            nodes.NODE_CLASS_MAPPINGS.pop(name, None)
        return ("done",)


class KeepGone:
    """A loader that may be gone."""

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls) -> Mapping[str, Any]:  # noqa: N802
        return {"required": {"ckpt_name": (FILES,)}}

    def load(self, ckpt_name: str) -> tuple[str]:
        return (f"model {ckpt_name}",)


class KeepReplaced(KeepGone):
    """A loader that, when it is gone, is to be replaced by rules that it does not meet: ComfyUI 0.33 answers 500."""


@dataclass
class Replacement:
    """What ComfyUI 0.33 needs to know (`comfy_api/latest/_io.py`, `NodeReplace`)."""

    old_node_id: str
    new_node_id: str
    input_mapping: list[dict[str, str]]
    output_mapping: list[dict[str, int]]


if hasattr(PromptServer.instance, "node_replace_manager"):
    PromptServer.instance.node_replace_manager.register(
        Replacement("KeepReplaced", "KeepLoader", [{"new_id": "ckpt_name", "old_id": "another name"}], [])
    )

TELLING: dict[str, type] = {
    cls.__name__: cls for cls in (KeepTelling, KeepExpanding, KeepClass, KeepGone, KeepReplaced)
}
