"""Latents, sampling, decoding and image files. Names and schemas as in ComfyUI nodes.py."""

import hashlib
import json
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from simulator import png
from simulator.machine import Machine
from simulator.values import Tensor

from .base import Call, Files, Node, Spec

_PIXEL_SPACE = 3
_METADATA: Mapping[str, Any] = {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}


def color_of(seed: Any) -> tuple[int, int, int]:
    """A colour that tells images of different origin apart."""
    digest = hashlib.blake2b(repr(seed).encode(), digest_size=3).digest()
    return digest[0], digest[1], digest[2]


class Image(Tensor):
    """A batch of images of one colour.

    Args:
        count: images in the batch.
        height: pixels.
        width: pixels.
        rgb: their colour.
    """

    def __init__(self, count: int, height: int, width: int, rgb: tuple[int, int, int]) -> None:
        super().__init__((count, height, width, 3))
        self.count = count
        self.height = height
        self.width = width
        self.rgb = rgb


class EmptyImage(Node):
    """Images of a given colour."""

    NAME = "EmptyImage"
    DISPLAY_NAME = "Empty Image"
    CATEGORY = "image"
    REQUIRED: ClassVar[Mapping[str, Spec]] = {
        "width": ("INT", {"default": 512, "min": 1, "max": 16384, "step": 1}),
        "height": ("INT", {"default": 512, "min": 1, "max": 16384, "step": 1}),
        "batch_size": ("INT", {"default": 1, "min": 1, "max": 4096}),
        "color": ("INT", {"default": 0, "min": 0, "max": 0xFFFFFF, "step": 1, "display": "color"}),
    }
    RETURN_TYPES = ("IMAGE",)

    async def run(self, call: Call, *, width: int, height: int, batch_size: int = 1, color: int = 0) -> Any:
        """See Node."""
        image = Image(batch_size, height, width, (color >> 16 & 0xFF, color >> 8 & 0xFF, color & 0xFF))
        call.machine.memory.take(image)
        return (image,)


class SaveImage(Node):
    """Writes PNG files with the prompt in them."""

    NAME = "SaveImage"
    DISPLAY_NAME = "Save Image"
    CATEGORY = "image"
    OUTPUT_NODE = True
    REQUIRED: ClassVar[Mapping[str, Spec]] = {
        "images": ("IMAGE",),
        "filename_prefix": ("STRING", {"default": "ComfyUI"}),
    }
    HIDDEN = _METADATA
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("images",)

    async def run(
        self,
        call: Call,
        *,
        images: Image,
        filename_prefix: str = "ComfyUI",
        prompt: Any = None,
        extra_pnginfo: Any = None,
    ) -> Any:
        """See Node."""
        directories = call.machine.directories
        return save_images(call.machine, images, directories.output, "output", filename_prefix, prompt, extra_pnginfo)


class PreviewImage(Node):
    """Writes PNG files that do not outlive ComfyUI."""

    NAME = "PreviewImage"
    DISPLAY_NAME = "Preview Image"
    CATEGORY = "image"
    OUTPUT_NODE = True
    REQUIRED: ClassVar[Mapping[str, Spec]] = {"images": ("IMAGE",)}
    HIDDEN = _METADATA
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("images",)

    def __init__(self) -> None:
        self._suffix = f"_temp_{hashlib.blake2b(repr(time.time_ns()).encode(), digest_size=3).hexdigest()[:5]}"

    async def run(self, call: Call, *, images: Image, prompt: Any = None, extra_pnginfo: Any = None) -> Any:
        """See Node."""
        prefix = f"ComfyUI{self._suffix}"
        temp = call.machine.directories.temp
        return save_images(call.machine, images, temp, "temp", prefix, prompt, extra_pnginfo)


class LoadImage(Node):
    """Reads an image of the input folder."""

    NAME = "LoadImage"
    DISPLAY_NAME = "Load Image"
    CATEGORY = "image"
    FINGERPRINT = True
    CHECKED_INPUTS = ("image",)
    REQUIRED: ClassVar[Mapping[str, Spec]] = {"image": Files(None, details={"image_upload": True})}
    RETURN_TYPES = ("IMAGE", "MASK")

    @classmethod
    async def fingerprint(cls, call: Call, **inputs: Any) -> Any:
        """See Node."""
        return hashlib.sha256(_input_path(call.machine, inputs["image"]).read_bytes()).hexdigest()

    @classmethod
    def check(cls, machine: Machine, **inputs: Any) -> bool | str:
        """See Node."""
        name = inputs["image"]
        try:
            known = _input_path(machine, name).exists()
        except ValueError:
            known = False
        return known or f"Invalid image file: {name}"

    async def run(self, call: Call, *, image: str) -> Any:
        """See Node."""
        data = _input_path(call.machine, image).read_bytes()
        width, height = png.size(data) or (64, 64)
        loaded, mask = Image(1, height, width, color_of(data)), Tensor((1, 64, 64))
        call.machine.memory.take(loaded)
        call.machine.memory.take(mask)
        return loaded, mask


def _input_path(machine: Machine, name: str) -> Path:
    """Where an annotated name points (ComfyUI folder_paths.py, `get_annotated_filepath`). Raises ValueError."""
    plain, folder = machine.directories.annotated(name)
    base = (folder or machine.directories.input).resolve()
    path = (base / plain).resolve()
    if not path.is_relative_to(base):
        raise ValueError(f"Invalid file path: {name!r}")
    return path


def _expand_variables(prefix: str, image: Image) -> str:
    now = time.localtime()
    values = {
        "width": str(image.width), "height": str(image.height), "year": str(now.tm_year),
        "month": f"{now.tm_mon:02}", "day": f"{now.tm_mday:02}", "hour": f"{now.tm_hour:02}",
        "minute": f"{now.tm_min:02}", "second": f"{now.tm_sec:02}",
    }  # fmt: skip
    for name, value in values.items():
        prefix = prefix.replace(f"%{name}%", value)
    return prefix


def _next_counter(folder: Path, stem: str) -> int:
    """One more than the highest number of a file of this name (ComfyUI folder_paths.py, `get_save_image_path`)."""
    pattern = re.compile(re.escape(stem) + r"_(\d+)(?:_.*)?(?:\..*)?$", re.IGNORECASE)
    numbers = [int(match[1]) for path in folder.iterdir() if (match := pattern.match(path.name))]
    return max(numbers, default=0) + 1


def save_images(  # the two savers share all of it
    machine: Machine, images: Image, base: Path, kind: str, prefix: str, prompt: Any, extra_pnginfo: Any
) -> dict[str, Any]:
    """Write a batch as PNG files and return what the node returns (ComfyUI nodes.py, SaveImage).

    Raises:
        Exception: the prefix leads out of the folder.
    """
    prefix = os.path.normpath(_expand_variables(prefix, images))
    subfolder, stem = os.path.split(prefix)
    folder = base / subfolder
    if not folder.resolve().is_relative_to(base.resolve()):
        message = (
            "**** ERROR: Saving image outside the output folder is not allowed.\n"
            f" full_output_folder: {os.path.abspath(folder)}\n"  # noqa: PTH100  # links stay as they are
            f"         output_dir: {base}"
        )
        raise Exception(message)  # noqa: TRY002  # clients see the type, and ComfyUI's is this
    folder.mkdir(parents=True, exist_ok=True)
    texts: list[tuple[str, str]] = []
    if not machine.config.disable_metadata:
        if prompt is not None:
            texts.append(("prompt", json.dumps(prompt)))
        if extra_pnginfo is not None:
            texts += [(key, json.dumps(value)) for key, value in extra_pnginfo.items()]
    counter = _next_counter(folder, stem)
    data = png.encode(images.width, images.height, images.rgb, texts)
    results = []
    for index in range(images.count):
        name = f"{stem.replace('%batch_num%', str(index))}_{counter + index:05}_.png"
        (folder / name).write_bytes(data)
        results.append({"filename": name, "subfolder": subfolder, "type": kind})
    return {"ui": {"images": results}, "result": (images,)}
