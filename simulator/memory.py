"""RAM and VRAM of the simulated machine, and what ComfyUI's model management does with them.

Weights live as long as something in ComfyUI's caches refers to them: ComfyUI keeps only weak references of its own. So
does this module: an allocation counts while its Python object is alive, and nothing has to be told when a cache drops
it. Where weights lie follows comfy/model_management.py (`load_models_gpu`, `free_memory`): moved to the GPU when they
are needed, pushed back to RAM when room is needed, and gone with their last reference. Dynamic VRAM, which works in
another way, is in `paging.py`.
"""

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from .config import GB, MB, SimulatorConfig, VramMode

# comfy/model_management.py: EXTRA_RESERVED_VRAM, minimum_inference_memory, the 1.1 in load_models_gpu.
_RESERVED_VRAM = 400 * MB
_INFERENCE_VRAM = int(0.8 * GB)
_LOAD_MARGIN = 1.1


class Killed(BaseException):
    """The simulated process is dead: nothing inside it can catch this.

    Raised where the kernel's out-of-memory killer would have struck.
    """


class DeviceOutOfMemoryError(RuntimeError):
    """What torch raises when an allocation on the GPU fails; clients see torch's name."""


DeviceOutOfMemoryError.__module__ = "torch"
DeviceOutOfMemoryError.__qualname__ = "OutOfMemoryError"


class Allocation:
    """Bytes of memory that are taken while this object is alive."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self.on_gpu = 0
        """Bytes of it that lie in VRAM."""

    @property
    def in_ram(self) -> int:
        """Bytes of it that lie in RAM."""
        return self.nbytes - self.on_gpu


class Home(Enum):
    """Where a model must be."""

    ANYWHERE = auto()
    GPU = auto()
    """It is never offloaded to RAM (--highvram, --gpu-only)."""
    RAM = auto()
    """It computes on the CPU (text encoders with --lowvram and --novram)."""


class Weights(Allocation):
    """The tensors of one model.

    Args:
        file: the file they came from.
        nbytes: their size.
        home: where they must be.
    """

    def __init__(self, file: str, nbytes: int, home: Home = Home.ANYWHERE) -> None:
        super().__init__(nbytes)
        self.file = file
        self.home = home
        self.patches: tuple[int, ...] = ()
        """Identities of the patches baked into the copy on the GPU."""
        self.used_by: str | None = None
        """The prompt that used them last."""

    @property
    def streamed(self) -> int:
        """Bytes that are sent to the GPU for each pass, because they are not there."""
        return 0 if self.home is Home.RAM else self.nbytes - self.on_gpu


@dataclass(frozen=True, eq=False)
class Move:
    """Weights moved over PCIe: positive bytes to the GPU, negative to RAM."""

    file: str
    bytes: int
    read_part: int | None = None
    """They were read for it, out of this part of the file."""


@dataclass(frozen=True)
class Residency:
    """Where a file's live weights are. With dynamic VRAM the same bytes may be in both memories, or in neither."""

    bytes: int
    on_gpu: int
    in_ram: int


class Memory:
    """Accounts of both memories.

    Args:
        config: sizes of both and the flags that matter.
    """

    def __init__(self, config: SimulatorConfig) -> None:
        self.ram_total = int(config.ram_gb * GB)
        self.vram_total = int(config.vram_gb * GB)
        self._base = int(config.base_ram_gb * GB)
        self._smart = not config.disable_smart_memory
        self._streams_all = config.vram_mode is VramMode.NONE
        reserve = config.reserve_vram_gb
        self._reserved = _RESERVED_VRAM if reserve is None else int(reserve * GB)
        self.ram_short: Callable[[], object] = int
        """Called before copies of weights are made: whoever holds what could go lets it go where RAM is short."""
        self._alive: weakref.WeakSet[Allocation] = weakref.WeakSet()
        self._loaded: list[weakref.ref[Weights]] = []

    @property
    def ram_free(self) -> int:
        """Bytes of RAM that are available."""
        return self.ram_total - self._base - sum(item.in_ram for item in self._alive)

    @property
    def vram_free(self) -> int:
        """Bytes of VRAM that are available."""
        return self.vram_total - sum(item.on_gpu for item in self._alive)

    def residency(self) -> dict[str, Residency]:
        """Where each model file's weights are now; a file with no live weights is missing."""
        found: dict[str, Residency] = {}
        for item in self._alive:
            if isinstance(item, Weights):
                known = found.get(item.file, Residency(0, 0, 0))
                found[item.file] = Residency(
                    known.bytes + item.nbytes, known.on_gpu + item.on_gpu, known.in_ram + item.in_ram
                )
        return found

    def take(self, item: Allocation) -> None:
        """Count `item` from now on.

        Raises:
            Killed: RAM is overrun.
            DeviceOutOfMemoryError: weights that must live on the GPU do not fit there.
        """
        if isinstance(item, Weights) and item.home is Home.GPU:
            if item.nbytes > self.vram_free:
                raise DeviceOutOfMemoryError(f"Allocation on device failed: tried to allocate {item.nbytes} bytes")
            item.on_gpu = item.nbytes
            self._loaded.insert(0, weakref.ref(item))
        self._alive.add(item)
        self._check_ram()

    def _check_ram(self) -> None:
        if self.ram_free < 0:
            raise Killed("out of memory: killed")

    def models(self) -> list[Weights]:
        """Models that are on the GPU at least in part, the one loaded last first."""
        alive = [weights for ref in self._loaded if (weights := ref()) is not None]
        self._loaded = [weakref.ref(weights) for weights in alive]
        return alive

    def to_gpu(
        self, wanted: Sequence[tuple[Weights, tuple[int, ...]]], prompt_id: str, activations: int = 0
    ) -> list[Move]:
        """Bring weights, each with its patches, to the GPU as far as they fit, as `load_models_gpu` does.

        Args:
            wanted: the models that are needed together.
            prompt_id: who needs them.
            activations: bytes that running them takes beside the weights.

        Raises:
            Killed: what was pushed back overran RAM.
        """
        extra = max(_INFERENCE_VRAM + self._reserved, activations + self._reserved)
        moves: list[Move] = []
        wanted = [(weights, patches) for weights, patches in wanted if weights.home is not Home.RAM]
        for weights, patches in wanted:
            weights.used_by = prompt_id
            if weights.on_gpu and weights.patches != patches and weights.home is not Home.GPU:
                moves += self._offload(weights, weights.on_gpu)
            weights.patches = patches
        needed = sum(weights.in_ram for weights, _ in wanted)
        moves += self.free(int(needed * _LOAD_MARGIN) + extra, prompt_id, keep=[weights for weights, _ in wanted])
        for weights, _ in wanted:
            room = 0 if self._streams_all else max(0, self.vram_free - extra)
            loaded = min(weights.in_ram, room)
            weights.on_gpu += loaded
            if loaded:
                moves.append(Move(weights.file, loaded))
        kept = [weights for weights in self.models() if all(weights is not other for other, _ in wanted)]
        self._loaded = [weakref.ref(weights) for weights in (*(weights for weights, _ in wanted), *kept)]
        return moves

    def free(self, needed: int, prompt_id: str, keep: Sequence[Weights] = ()) -> list[Move]:
        """Push models back to RAM until `needed` bytes of VRAM are free, in `free_memory`'s order.

        That order is: what is offloaded most already, what nobody uses now (ComfyUI compares reference counts), the
        smaller before the larger, the younger before the older.
        """
        order = sorted(
            (
                (-weights.in_ram, weights.used_by == prompt_id, weights.nbytes, index, weights)
                for index, weights in enumerate(self.models())
                if weights.home is not Home.GPU and all(weights is not other for other in keep)
            ),
            key=lambda entry: entry[:4],
        )
        moves: list[Move] = []
        for *_, weights in order:
            short = needed - self.vram_free if self._smart else weights.on_gpu
            if short > 0:
                moves += self._offload(weights, min(short, weights.on_gpu))
        return moves

    def unload_all(self) -> list[Move]:
        """Push every model back to RAM (`unload_all_models`)."""
        moves: list[Move] = []
        for weights in self.models():
            if weights.home is not Home.GPU:
                moves += self._offload(weights, weights.on_gpu)
        return moves

    def keep_copy(self, weights: Weights, nbytes: int, prompt_id: str) -> None:
        """So much of a model was read from its file: keep a copy in RAM. Here weights are in RAM anyway."""

    def release_copies(self, nbytes: int, prompt_id: str, spare: Weights | None = None) -> int:
        """Drop copies of weights, except those of `spare`; the bytes that were dropped. There are none here."""
        del nbytes, prompt_id, spare
        return 0

    def _offload(self, weights: Weights, nbytes: int) -> list[Move]:
        if not nbytes:
            return []
        weights.on_gpu -= nbytes
        if not weights.on_gpu:
            self._loaded = [ref for ref in self._loaded if ref() is not weights]
        self._check_ram()
        return [Move(weights.file, -nbytes)]
