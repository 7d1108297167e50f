"""Whether an error that a prompt ended with is want of memory, and of which.

ComfyUI reports the type of the exception and its text. Of the device's memory it knows one type of its own (torch's
`OutOfMemoryError`) and the text of another; what other backends and older versions of torch say in their own words,
and want of RAM, it takes for errors like any other. To a prompt that carried pins all are the same.

Sources: ComfyUI `comfy/model_management.py` (`is_oom`), `execution.py` (`full_type_name`); torch 2.14 for RAM
(`alloc_cpu.cpp`), tried; the rest as its users report it.
"""

from enum import StrEnum


class Shortage(StrEnum):
    """What there was too little of."""

    VRAM = "VRAM"
    RAM = "RAM"


_VRAM = (
    *("outofmemoryerror", "out of memory", "alloc_failed"),
    *("out_of_device_memory", "out_of_resources", "out of device memory"),  # Level Zero
    "not enough gpu video memory",  # DirectML
)
"""In lower case; "out of memory" is said of CUDA, HIP, XPU and MPS."""
_RAM = (
    "defaultcpuallocator",
    *("cannot allocate memory", "unable to allocate", "not enough memory", "out_of_host_memory"),
    *("paging file is too small", "os error 1455", "insufficient system resources"),  # Windows
)
_RAM_TYPES = ("MemoryError", "_ArrayMemoryError")
"""Python's and NumPy's."""


def shortage(kind: str, message: str) -> Shortage | None:
    """What there was too little of, by `exception_type` and `exception_message`; None for any other error."""
    said = f"{kind}: {message}".lower()
    if kind.rpartition(".")[2] in _RAM_TYPES or any(words in said for words in _RAM):
        return Shortage.RAM
    return Shortage.VRAM if any(words in said for words in _VRAM) else None
