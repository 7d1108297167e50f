"""Reading model files: what every loader does."""

from collections.abc import Sequence

from simulator.config import SimulatorConfig, VramMode
from simulator.memory import Home, Weights
from simulator.paging import PagedWeights
from simulator.values import Patch

from .base import Call

_HOMES = {
    (VramMode.HIGH, "MODEL"): Home.GPU,
    (VramMode.LOW, "CLIP"): Home.RAM,
    (VramMode.NONE, "CLIP"): Home.RAM,
}


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
    sizes = [int(nbytes * share) for share in shares]
    models: list[Weights]
    if machine.config.dynamic_vram:
        await machine.open()
        models = [PagedWeights(file, size, part) for part, size in enumerate(sizes)]
    else:
        await machine.read(file, nbytes, call.doer)
        models = [Weights(file, size, _home(machine.config, kind)) for size, kind in zip(sizes, kinds, strict=True)]
    for weights in models:
        machine.memory.take(weights)
    return models


async def read_patch(call: Call, folder: str, name: str) -> Patch:
    """Read a file of patches; they stay in RAM."""
    machine = call.machine
    patch = Patch(f"{folder}/{name}", machine.size_of(folder, name))
    await machine.read(patch.file, patch.nbytes, call.doer)
    machine.memory.take(patch)
    return patch


def _home(config: SimulatorConfig, kind: str) -> Home:
    return Home.GPU if config.vram_mode is VramMode.GPU_ONLY else _HOMES.get((config.vram_mode, kind), Home.ANYWHERE)
