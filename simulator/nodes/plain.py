"""Core nodes that need no model: constants, and simple work on images. Names and schemas as in ComfyUI."""

import time
from collections.abc import Mapping
from typing import Any, ClassVar

from simulator import png
from simulator.stills import PNG_KIND, Still

from .base import Call, Node, Spec
from .images import Image

_PRIMITIVES = "utilities/primitive"
_LARGEST = 9223372036854775807
_BLUR_SECONDS = 0.03


class _Constant(Node):
    """Returns its input."""

    V3 = True
    CATEGORY = _PRIMITIVES
    MODULE = "comfy_extras.nodes_primitive"

    async def run(self, call: Call, *, value: Any) -> Any:
        """See Node."""
        del call
        return (value,)


class PrimitiveString(_Constant):
    """A line of text."""

    NAME = "PrimitiveString"
    DISPLAY_NAME = "Text"
    REQUIRED: ClassVar[Mapping[str, Spec]] = {"value": ("STRING", {"multiline": False})}
    RETURN_TYPES = ("STRING",)


class PrimitiveStringMultiline(_Constant):
    """A text."""

    NAME = "PrimitiveStringMultiline"
    DISPLAY_NAME = "Text (Multiline)"
    REQUIRED: ClassVar[Mapping[str, Spec]] = {"value": ("STRING", {"multiline": True})}
    RETURN_TYPES = ("STRING",)


class PrimitiveInt(_Constant):
    """An integer."""

    NAME = "PrimitiveInt"
    DISPLAY_NAME = "Int"
    REQUIRED: ClassVar[Mapping[str, Spec]] = {
        "value": ("INT", {"min": -_LARGEST, "max": _LARGEST, "control_after_generate": "fixed"})
    }
    RETURN_TYPES = ("INT",)


class PrimitiveFloat(_Constant):
    """A number."""

    NAME = "PrimitiveFloat"
    DISPLAY_NAME = "Float"
    REQUIRED: ClassVar[Mapping[str, Spec]] = {"value": ("FLOAT", {"min": -_LARGEST, "max": _LARGEST, "step": 0.1})}
    RETURN_TYPES = ("FLOAT",)


class PrimitiveBoolean(_Constant):
    """Yes or no."""

    NAME = "PrimitiveBoolean"
    DISPLAY_NAME = "Boolean"
    REQUIRED: ClassVar[Mapping[str, Spec]] = {"value": ("BOOLEAN", {})}
    RETURN_TYPES = ("BOOLEAN",)


class ImageInvert(Node):
    """The opposite colours."""

    NAME = "ImageInvert"
    DISPLAY_NAME = "Invert Image Colors"
    CATEGORY = "image/color"
    REQUIRED: ClassVar[Mapping[str, Spec]] = {"image": ("IMAGE",)}
    RETURN_TYPES = ("IMAGE",)

    async def run(self, call: Call, *, image: Image) -> Any:
        """See Node."""
        red, green, blue = image.rgb
        inverted = Image(image.count, image.height, image.width, (255 - red, 255 - green, 255 - blue))
        call.machine.memory.take(inverted)
        return (inverted,)


class ImageBlur(Node):
    """A plain image looks the same blurred; it takes a moment all the same."""

    NAME = "ImageBlur"
    DISPLAY_NAME = "Blur Image"
    CATEGORY = "image/filters"
    MODULE = "comfy_extras.nodes_post_processing"
    V3 = True
    REQUIRED: ClassVar[Mapping[str, Spec]] = {
        "image": ("IMAGE", {}),
        "blur_radius": ("INT", {"default": 1, "min": 1, "max": 31, "step": 1}),
        "sigma": ("FLOAT", {"default": 1.0, "min": 0.1, "max": 10.0, "step": 0.1}),
    }
    RETURN_TYPES = ("IMAGE",)

    async def run(self, call: Call, *, image: Image, blur_radius: int, sigma: float) -> Any:
        """See Node."""
        del blur_radius, sigma
        await call.machine.clock.sleep(_BLUR_SECONDS)
        blurred = Image(image.count, image.height, image.width, image.rgb)
        call.machine.memory.take(blurred)
        return (blurred,)


class GetImageSize(Node):
    """Width, height and number of images, told to all clients as text."""

    NAME = "GetImageSize"
    DISPLAY_NAME = "Get Image Size"
    CATEGORY = "image"
    MODULE = "comfy_extras.nodes_images"
    V3 = True
    REQUIRED: ClassVar[Mapping[str, Spec]] = {"image": ("IMAGE", {})}
    HIDDEN: ClassVar[Mapping[str, Any]] = {"unique_id": ("UNIQUE_ID",)}
    RETURN_TYPES = ("INT", "INT", "INT")
    RETURN_NAMES = ("width", "height", "batch_size")

    async def run(self, call: Call, *, image: Image, unique_id: str) -> Any:
        """See Node."""
        del unique_id
        call.send_text(f"width: {image.width}, height: {image.height}\n batch size: {image.count}", None)
        return image.width, image.height, image.count


class SaveImageWebsocket(Node):
    """Sends its images as binary events, in the form of previews."""

    NAME = "SaveImageWebsocket"
    DISPLAY_NAME = "Save Image (Websocket)"
    CATEGORY = "image"
    MODULE = "custom_nodes.websocket_image_save"
    OUTPUT_NODE = True
    FINGERPRINT = True
    REQUIRED: ClassVar[Mapping[str, Spec]] = {"images": ("IMAGE",)}

    @classmethod
    async def fingerprint(cls, call: Call, **inputs: Any) -> Any:
        """See Node; it runs every time."""
        del call, inputs
        return time.time()

    async def run(self, call: Call, *, images: Image) -> Any:
        """See Node."""
        still = Still(PNG_KIND, png.encode(images.width, images.height, images.rgb))
        for index in range(images.count):
            call.progress(index, images.count, still)
        return {}


NODES: tuple[type[Node], ...] = (
    PrimitiveString,
    PrimitiveStringMultiline,
    PrimitiveInt,
    PrimitiveFloat,
    PrimitiveBoolean,
    ImageInvert,
    ImageBlur,
    GetImageSize,
    SaveImageWebsocket,
)
