"""Dynamic VRAM: weights are paged into VRAM when they are needed, and a model that lives may be anywhere.

A loader maps its file and reads nothing. The first pass over a model faults its weights in, from the file or from a
copy in RAM, which is made on the way while there is RAM for it. What was used last has priority: for its weights, and
for what computing takes, those of the model used longest ago leave VRAM, and nothing has to be moved for that. Copies
are dropped where RAM runs short. So the object of a model tells nothing about its weights: they may lie in VRAM, in
RAM, in both, or in the file alone.

Behaviour from ComfyUI comfy/model_patcher.py (`ModelPatcherDynamic`), comfy/ops.py (`cast_modules_with_vbar`),
comfy/pinned_memory.py, comfy/model_management.py (`ensure_pin_budget`, `free_pins`) and comfy-aimdo src/model-vbar.c.
Simpler than these: bytes instead of pages and modules, copies made from the start of a model on, one kind of copy.
"""

import weakref
from collections.abc import Iterable, Sequence

from .config import GB, MB, SimulatorConfig
from .memory import Memory, Move, Weights

# comfy-aimdo src/plat.h: VRAM_HEADROOM. comfy/model_management.py: ensure_pin_budget, PIN_PRESSURE_HYSTERESIS.
_VRAM_HEADROOM = 256 * MB
_LEAST_RAM = 2 * GB
_MORE_COPIES = 256 * MB


class PagedWeights(Weights):
    """The tensors of one model that can be read again from its file, of which they are a part, counted from 0."""

    def __init__(self, file: str, nbytes: int, part: int = 0) -> None:
        super().__init__(file, nbytes)
        self.part = part
        self.copied = 0
        """Bytes of it of which there is a copy in RAM, from the start on; those in VRAM may have one too."""

    @property
    def in_ram(self) -> int:
        """See Allocation."""
        return self.copied

    @property
    def streamed_from_file(self) -> int:
        """Bytes of what is streamed that are read for it each time."""
        return self.nbytes - max(self.on_gpu, self.copied)


class PagedMemory(Memory):
    """Accounts of both memories with dynamic VRAM."""

    def __init__(self, config: SimulatorConfig) -> None:
        super().__init__(config)
        reserve = 0.0 if config.reserve_vram_gb is None else config.reserve_vram_gb
        self._headroom = max(_VRAM_HEADROOM, int(reserve * GB)) + int(config.vram_headroom_gb * GB)
        self._copies = not config.fast_disk or config.high_ram
        self._keeps_copies = config.high_ram
        self._least_ram = max(_LEAST_RAM, int(config.cache_ram_thresholds()[0] * GB / 2))

    def to_gpu(
        self, wanted: Sequence[tuple[Weights, tuple[int, ...]]], prompt_id: str, activations: int = 0
    ) -> list[Move]:
        """See Memory: what is wanted gets the highest priority and is faulted in as far as it fits."""
        if not self._smart:
            _drop(weights for weights in self._paged() if all(weights is not other for other, _ in wanted))
        moves: list[Move] = []
        for weights, patches in wanted:
            if not isinstance(weights, PagedWeights):
                raise TypeError(f"{weights.file} was not mapped")
            weights.used_by = prompt_id
            if weights.patches != patches:
                weights.on_gpu = 0
            weights.patches = patches
            self._put_first(weights)
            moves += self._fault(weights, self.vram_total - self._headroom - activations, prompt_id)
        return moves

    def unload_all(self) -> list[Move]:
        """See Memory: nothing is moved, VRAM and copies are given up."""
        _drop(self._paged())
        return []

    def release_copies(self, nbytes: int, prompt_id: str, spare: Weights | None = None) -> int:
        """See Memory. Those of models that the prompt does not use go first, of the models used last before others."""
        freed = 0
        others = [each for each in self._paged() if each is not spare]
        for weights in sorted(others, key=lambda each: each.used_by == prompt_id):
            dropped = min(weights.copied, max(0, nbytes - freed))
            weights.copied -= dropped
            freed += dropped
        return freed

    def keep_copy(self, weights: Weights, nbytes: int, prompt_id: str) -> None:
        """See Memory: it is made while there is RAM for it, for which those of other models may have to go."""
        if not self._copies or not isinstance(weights, PagedWeights):
            return
        wanted = min(nbytes, weights.nbytes - weights.copied)
        if self._keeps_copies:
            weights.copied += wanted
            self._check_ram()
            return
        self.ram_short()
        short = wanted + self._least_ram - self.ram_free
        if short > 0:
            self.release_copies(short + _MORE_COPIES, prompt_id, spare=weights)
        weights.copied += min(wanted, max(0, self.ram_free - self._least_ram))

    def _fault(self, weights: PagedWeights, room: int, prompt_id: str) -> list[Move]:
        for other in reversed(self._paged()):
            excess = sum(each.on_gpu for each in self._paged()) + weights.nbytes - weights.on_gpu - room
            if other is not weights and excess > 0:
                other.on_gpu -= min(other.on_gpu, excess)
        room = max(0, room - sum(each.on_gpu for each in self._paged() if each is not weights))
        present = min(weights.on_gpu, room)
        weights.on_gpu = min(weights.nbytes, room)
        missing = weights.on_gpu - present
        from_copy = min(missing, max(0, weights.copied - present))
        if from_copy < missing:
            self.keep_copy(weights, missing - from_copy, prompt_id)
        moves = (Move(weights.file, from_copy), Move(weights.file, missing - from_copy, weights.part))
        return [move for move in moves if move.bytes]

    def _put_first(self, weights: PagedWeights) -> None:
        others = [each for each in self._paged() if each is not weights]
        self._loaded = [weakref.ref(each) for each in (weights, *others)]

    def _paged(self) -> list[PagedWeights]:
        """Models that were used, the one used last first."""
        return [weights for weights in self.models() if isinstance(weights, PagedWeights)]


def _drop(models: Iterable[PagedWeights]) -> None:
    for weights in models:
        weights.on_gpu = weights.copied = 0
