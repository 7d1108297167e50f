"""How small the numbers of a node can be made: what decides how much there is to compute, and its least legal value.

What costs time in a workflow is steps times pixels times frames times batch. No class says which of its inputs mean
these; but packs call them alike, and together with what a class makes the name is enough. Two nodes that must agree (a
camera's path and the video that follows it) both get their least, which agrees wherever their classes do.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from normalizer import NodeClass, Schema
from normalizer.kinds import Kind, kind_of
from warmup.catalogue import Widget, widgets

STEPS = frozenset({"steps", "num_steps", "num_inference_steps", "inference_steps", "sampling_steps"})
SIDES = frozenset(
    {
        *("width", "height", "target_width", "target_height", "size", "largest_size", "resolution"),
        *("longer_size", "shorter_size", "longer_edge", "shorter_edge", "octree_resolution"),
    }
)
DURATIONS = frozenset({"seconds", "duration", "max_duration"})
COUNTS = DURATIONS | {
    *("batch_size", "length", "num_frames", "frames_number", "video_frames", "frames", "frame_load_cap"),
    *("amount", "num_gaussians"),
}
PLACES = frozenset(
    {
        *("x", "y", "index", "batch_index", "frame_idx", "start_frame", "start_index", "start_time"),
        *("trim_amount", "video_frame_offset"),
    }
)
"""Where on the canvas something is put or taken from: on a small one, anywhere but at its beginning is outside."""
WORDS = frozenset({"max_length", "max_new_tokens", "max_tokens"})
"""How much a language model may write, one run of the model for each."""
LATENT_TYPES = frozenset({"LATENT", "TRACKS", "WAN_CAMERA_EMBEDDING"})
"""Latents, and what must have their size."""
CANVAS_TYPES = LATENT_TYPES | {"IMAGE", "MASK", "VIDEO", "AUDIO", "NOISE", "VOXEL", "SPLAT", "COMFY_MATCHTYPE_V3"}
"""A class that makes one of these decides how much there is to compute. (The last is what it is given, resized.)"""
LATENT_SIDE = 16
"""Pixels: two latents of the common factor of 8. Classes for coarser latents say so in their own minimum."""
IMAGE_SIDE = 64
"""Pixels: two latents even of a VAE with a factor of 32, which a picture of 16 would leave without any."""
_NUMBERS = ("INT", "FLOAT")
_SIGMA = re.compile(r"[-+]?\d*\.*\d+")
"""As ComfyUI reads a list of sigmas (`nodes_custom_sampler.py`, `ManualSigmas`)."""


def small_inputs(node: Mapping[str, Any], schema: Schema, *, steps: int) -> dict[str, Any]:
    """The inputs of a node that can be made smaller, at their least; `steps` is what a whole schedule needs."""
    cls = schema.classes[node["class_type"]]
    given = node["inputs"]
    return {
        name: value
        for name, widget in widgets(schema, cls.name).items()
        if name in given
        for value in _small(cls, widget, given[name], steps)
    }


def _small(cls: NodeClass, widget: Widget, value: Any, steps: int) -> Iterator[Any]:
    """The small value of one input; nothing when it has nothing to do with size."""
    name, number = widget.name.rpartition(".")[2], widget.type in _NUMBERS
    canvas = bool(CANVAS_TYPES.intersection(cls.outputs))
    conditioning = "CONDITIONING" in cls.outputs
    if widget.type == "INT" and name in STEPS:
        yield _smaller(value, widget.at_least(steps))
    elif widget.type == "INT" and name == "start_at_step":
        yield _smaller(value, max(0, widget.least or 0))
    elif widget.type == "INT" and name == "step" and "SIGMAS" in cls.outputs:
        yield _smaller(value, widget.at_least(1))
    elif widget.type == "STRING" and name == "sigmas" and "SIGMAS" in cls.outputs and isinstance(value, str):
        yield _ends(value, steps)
    elif canvas and widget.type == "INT" and name in SIDES:
        least = LATENT_SIDE if widget.least and LATENT_TYPES.intersection(cls.outputs) else IMAGE_SIDE
        yield _smaller(value, widget.at_least(least))
    elif canvas and widget.type == "FLOAT" and name == "megapixels":
        yield _smaller(value, widget.at_least(0.01))
    elif number and ((canvas and name in COUNTS) or (conditioning and name in DURATIONS)):
        yield _fewer(value, widget)
    elif number and (canvas or conditioning) and name in PLACES:
        yield _smaller(value, max(0, widget.least or 0))
    elif widget.type == "INT" and name in WORDS and _takes_model(cls):
        yield _fewer(value, widget)


def _smaller(value: Any, small: float) -> Any:
    """The small value, also in place of a link to a number; a value that is smaller already stays."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return small
    return min(value, small)


def _fewer(value: Any, widget: Widget) -> Any:
    """One, or the least that is more than none. None, or less, as a value means all there are."""
    small = widget.at_least(widget.least if widget.least and widget.least > 0 else 1)
    few = _smaller(value, small)
    return few if few > 0 else small


def _ends(sigmas: str, steps: int) -> str:
    """A schedule that is written out, cut to so many steps; the last one ends where it ended."""
    numbers = _SIGMA.findall(sigmas)
    return sigmas if len(numbers) <= steps + 1 else ", ".join([*numbers[:steps], numbers[-1]])


def _takes_model(cls: NodeClass) -> bool:
    return any(kind_of(spec.type) is Kind.MODEL for spec in cls.inputs.values())
