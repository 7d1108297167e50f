"""What travels along links: models, tensors, and the bytes that they keep in memory."""

from dataclasses import dataclass
from typing import Any

from .memory import Allocation, Weights


class Tensor(Allocation):
    """A tensor without numbers.

    Args:
        shape: its dimensions.
        item_bytes: bytes per element.
    """

    def __init__(self, shape: tuple[int, ...], item_bytes: int = 4) -> None:
        count = 1
        for length in shape:
            count *= length
        super().__init__(count * item_bytes)
        self.shape = shape

    def __repr__(self) -> str:
        return f"tensor of shape {list(self.shape)}"


class Patch(Weights):
    """A LoRA's tensors, in RAM only."""


@dataclass(frozen=True, eq=False)
class Patcher:
    """A model as it travels: weights shared by all its clones, and the patches of this one (ComfyUI's ModelPatcher)."""

    weights: Weights
    patches: tuple[Patch, ...] = ()
    also: tuple[Weights, ...] = ()
    """Weights of further files that are part of the model."""

    def clone(self, *patches: Patch) -> "Patcher":
        """The same weights with further patches."""
        return Patcher(self.weights, (*self.patches, *patches), self.also)

    def wanted(self) -> list[tuple[Weights, tuple[int, ...]]]:
        """What must be on the GPU for this model to run, each with the patches baked in."""
        patches = tuple(id(patch) for patch in self.patches)
        return [(weights, patches) for weights in (self.weights, *self.also)]

    def __repr__(self) -> str:
        names = "+".join((self.weights.file, *(patch.file for patch in self.patches)))
        return f"<model {names}>"


@dataclass(frozen=True, eq=False)
class Wrapped:
    """A text encoder or VAE: an object that has a patcher."""

    patcher: Patcher

    def __repr__(self) -> str:
        return repr(self.patcher)


@dataclass(frozen=True, eq=False)
class Opaque:
    """Whatever a class that is known by its schema alone returns."""

    type: str
    holds: tuple[Any, ...] = ()
    """What it keeps alive."""

    def __repr__(self) -> str:
        return f"<{self.type}>"


def patcher_of(value: object) -> Patcher | None:
    """The patcher that ComfyUI would find in an output value."""
    if isinstance(value, Wrapped):
        return value.patcher
    return value if isinstance(value, Patcher) else None


def tensor_bytes(outputs: object) -> int:
    """Bytes of the tensors in nested lists; what lies in dicts (latents, details of a conditioning) is not seen."""
    if isinstance(outputs, (list, tuple)):
        return sum(tensor_bytes(item) for item in outputs)
    return outputs.in_ram if isinstance(outputs, Tensor) else 0


def holds_model(outputs: object) -> bool:
    """Whether there is a model in nested lists."""
    if isinstance(outputs, (list, tuple)):
        return any(holds_model(item) for item in outputs)
    return patcher_of(outputs) is not None


def models_only(outputs: object) -> bool:
    """Whether there is nothing but models in nested lists (comfy_execution/caching.py, `all_outputs_dynamic`)."""
    if isinstance(outputs, (list, tuple)):
        return all(map(models_only, outputs))
    return patcher_of(outputs) is not None
