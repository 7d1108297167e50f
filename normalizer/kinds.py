"""Which socket types carry weights, and which carry data.

`/object_info` names types but does not say what they are. What holds weights is worth keeping between prompts; what is
made anew for each prompt (images, latents, noise) is not. The core's own types are listed here; a type of a custom pack
counts as data if its name says so (`WANVIDIMAGE_EMBEDS`), and is otherwise judged by how classes get it (`schema.py`).
"""

import re
from enum import StrEnum


class Kind(StrEnum):
    """What travels through a socket of some type."""

    VALUE = "value"
    """A number, a text or a choice: given in the prompt itself as a rule."""
    MODEL = "model"
    """Holds weights."""
    DATA = "data"
    """Made for one prompt."""
    OTHER = "other"
    """Unknown by name."""


VALUE_TYPES = frozenset({"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"})

MODEL_TYPES = frozenset(
    {
        "AUDIO_ENCODER",
        "BACKGROUND_REMOVAL",
        "CLIP",
        "CLIP_VISION",
        "CONTROL_NET",
        "DA3_MODEL",
        "FACE_DETECTION_MODEL",
        "GLIGEN",
        "INTERP_MODEL",
        "LATENT_UPSCALE_MODEL",
        "LORA_MODEL",
        "MODEL",
        "MODEL_PATCH",
        "MOGE_MODEL",
        "OPTICAL_FLOW",
        "PHOTOMAKER",
        "STYLE_MODEL",
        "UPSCALE_MODEL",
        "VAE",
    }
)
"""The types of the core's own model loaders (0.33.0)."""

MEDIA_TYPES = frozenset({"IMAGE", "MASK", "LATENT", "AUDIO", "VIDEO", "MESH", "VOXEL", "SPLAT", "SVG", "FILE_3D"})
"""A class that makes one of these from a file loads media, whatever else it makes."""

DATA_TYPES = MEDIA_TYPES | frozenset(
    {
        "*",
        "ARRAY",
        "AUDIO_ENCODER_OUTPUT",
        "AUDIO_RECORD",
        "BOUNDING_BOX",
        "BOUNDING_BOXES",
        "CLIP_VISION_OUTPUT",
        "COLOR",
        "COLORS",
        "COMFY_DYNAMICSLOT_V3",
        "COMFY_MATCHTYPE_V3",
        "COMPOSITOR",
        "CONDITIONING",
        "CURVE",
        "DA3_GEOMETRY",
        "DICT",
        "FACE_LANDMARKS",
        "FLOATS",
        "GUIDER",
        "HISTOGRAM",
        "IC_LORA_PARAMETERS",
        "IMAGECOMPARE",
        "LAYERS",
        "LOAD_3D",
        "LOAD3D_CAMERA",
        "LOAD3D_MODEL_INFO",
        "LOSS_MAP",
        "MOGE_GEOMETRY",
        "NOISE",
        "POSE_KEYPOINT",
        "SAM3_TRACK_DATA",
        "SAMPLER",
        "SCRIPT",
        "SEGS",
        "SHAPE_SUBDIVIDES",
        "SIGMAS",
        "TIMESTEPS_RANGE",
        "TRACKS",
        "WAN_CAMERA_EMBEDDING",
        "WEBCAM",
        "XY",
        "X_Y",
    }
)
"""The data types of the core (0.33.0), and those of custom packs that are met most."""

MODEL_NAME = re.compile(
    r"(?:MODELS?|ENCODERS?|DECODERS?|DETECTORS?|NET|VAE|CLIP|LORAS?|PIPE(?:LINE)?|LOADER)$", re.IGNORECASE
)
"""Names of types that packs give to what holds weights."""

_DATA_NAME = re.compile(
    r"(?:^|_)(?:IMAGES?|MASKS?|LATENTS?|SAMPLES?|AUDIO|VIDEO|FRAMES?|COND(?:ITIONING)?S?|SIGMAS|NOISE|CAMERA"
    r"|POSES?|KEYPOINTS?|KEYFRAMES?|BBOX(?:ES)?|TEXT|STRING|JSON|INT|FLOAT|NUMBER|BOOL|FILE|MESH|PROMPTS?|TASK_ID)(?:_|$)"
    r"|(?:EMBEDS?|EMBEDDINGS?|_OUTPUT|RESULTS?|LATENTS?|SAMPLES|METADATA|INFO|_DATA"
    r"|IMAGES?|AUDIO|VIDEO|MESH(?:ES)?|SPLATS?|GAUSSIANS?|POINT_?CLOUDS?)$"
)


def kind_of(type_name: str, judged: frozenset[str] = frozenset()) -> Kind:
    """Say what a socket of this type carries; `judged` are the types that were found to hold weights.

    A socket that takes several types (`"MODEL,CLIP"`) carries weights if it can take nothing but models.
    """
    if "," in type_name:
        kinds = {kind_of(part.strip(), judged) for part in type_name.split(",")}
        return kinds.pop() if len(kinds) == 1 and Kind.VALUE not in kinds else Kind.DATA
    if type_name in VALUE_TYPES:
        return Kind.VALUE
    if type_name in MODEL_TYPES or type_name in judged:
        return Kind.MODEL
    if type_name in DATA_TYPES or type_name.startswith("FILE_3D"):
        return Kind.DATA
    name = type_name.upper()
    if not MODEL_NAME.search(name) and _DATA_NAME.search(name):
        return Kind.DATA
    return Kind.OTHER
