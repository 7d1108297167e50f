"""Whose fault a failed run is, as far as its error tells: the prompt's, the device's, or nobody can say yet.

A prompt that asks for a file that is not there, or wires a text encoder of one model to the sampler of another, fails
in any ComfyUI, and its client is to hear of that at once. A broken device or process mostly shows as something else: a
`RuntimeError` out of a library, the same for everybody.
"""

from enum import StrEnum

from proxy.core.shortage import Shortage, shortage


class Blame(StrEnum):
    """Whose fault it is."""

    PROMPT = "prompt"
    """It would fail again in a new ComfyUI; or ComfyUI has mended itself, as it does after want of VRAM."""
    DEVICE = "device"
    """Only a new process gets rid of it."""
    UNKNOWN = "unknown"


_FATAL = (
    *("cuda error", "hip error", "device-side assert", "no kernel image", "illegal memory access"),
    *(
        "unspecified launch failure",
        "uncorrectable ecc",
        "cudnn_status",
        "cudnn error",
        "cublas_status",
        "cublas error",
    ),
    *("driver shutting down", "nvml", "device lost", "gpu is lost", "launch timed out"),
    *("cuda unknown error", "cuda driver error", "no cuda gpus are available", "found no nvidia driver"),
)
"""What torch and the drivers say when the device, or this process's use of it, is broken."""
_OWN_TYPES = frozenset(
    {
        *("ValueError", "TypeError", "AttributeError", "NameError", "AssertionError", "NotImplementedError"),
        *("KeyError", "IndexError", "LookupError", "StopIteration", "ZeroDivisionError", "OverflowError"),
        *("FileNotFoundError", "FileExistsError", "IsADirectoryError", "NotADirectoryError", "PermissionError"),
        *("ImportError", "ModuleNotFoundError", "UnicodeDecodeError", "JSONDecodeError"),
        *("UnidentifiedImageError", "SafetensorError"),
    }
)
"""What Python and its libraries raise about values, names and files."""
_MISFITS = (
    *("shapes cannot be multiplied", "size mismatch", "sizes of tensors must match", "must match the size of tensor"),
    *("is invalid for input of size", "given groups=", "in loading state_dict"),
)
"""What torch says when a prompt has wired together what does not fit."""
_COMFYUI_SAYS = "error: "
"""How ComfyUI begins when it says itself what is wrong with a prompt (comfy/sd.py, nodes.py)."""


def blamed(kind: str, message: str) -> Blame:
    """Whose fault an error of this type and text is.

    The type counts first: what is said of values, names and files quotes them, and a client chooses those.
    """
    lower = f"{kind}: {message}".lower()
    if kind.rpartition(".")[2] in _OWN_TYPES or shortage(kind, message) is Shortage.VRAM:
        return Blame.PROMPT
    if any(word in lower for word in _FATAL):
        return Blame.DEVICE
    own = message.lower().startswith(_COMFYUI_SAYS) or any(word in lower for word in _MISFITS)
    return Blame.PROMPT if own else Blame.UNKNOWN
