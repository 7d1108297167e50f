"""Reading model files: what every loader does."""

from collections.abc import Sequence

from simulator.memory import Weights
from simulator.values import Patch

from .base import Call

_HIGHVRAM_KINDS = {"MODEL"}


async def read_weights(
    call: Call, folder: str | None, name: str, kinds: Sequence[str], shares: Sequence[float] = (1.0,)
) -> list[Weights]:
    """Read a file and make models of it.

    Args:
        call: who reads.
        folder: the model folder; None looks in all.
        name: the file.
        kinds: type of each model.
        shares: how the bytes divide among them.
    """
    machine = call.machine
    nbytes = machine.size_of(folder, name)
    file = name if folder is None else f"{folder}/{name}"
    await machine.read(file, nbytes, call.prompt_id, call.node_id, call.class_type)
    config = machine.config
    models = [
        Weights(file, int(nbytes * share), home_on_gpu=config.gpu_only or (config.highvram and kind in _HIGHVRAM_KINDS))
        for kind, share in zip(kinds, shares, strict=True)
    ]
    for weights in models:
        machine.memory.take(weights)
    return models


async def read_patch(call: Call, folder: str, name: str) -> Patch:
    """Read a file of patches; they stay in RAM."""
    machine = call.machine
    patch = Patch(f"{folder}/{name}", machine.size_of(folder, name))
    await machine.read(patch.file, patch.nbytes, call.prompt_id, call.node_id, call.class_type)
    machine.memory.take(patch)
    return patch
