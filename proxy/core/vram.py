"""Which weights are in VRAM, by the rules ComfyUI moves them by.

Nothing tells where weights lie. But they come to VRAM when a node computes with them, and what leaves for them follows
an order. `Vram` follows it, model by model; whoever feeds it corrects it by timings and readings. It can doubt: what
is doubted may be in VRAM or not.

Dynamic VRAM works by other rules (`paging`).

Sources: ComfyUI `comfy/model_management.py` (`load_models_gpu`, `free_memory`) of 0.3.64 and 0.33.0. Bytes throughout.
"""

from dataclasses import dataclass, replace

from normalizer.models import ModelRef, ModelSet
from proxy.core.evidence import Part, Use
from proxy.core.flags import GB, UpstreamFlags
from proxy.core.node_cache import SizeOf
from proxy.core.tiers import Tier

LOAD_FACTOR = 1.1
"""ComfyUI frees this multiple of what it loads (`load_models_gpu`)."""
RESIDENT_SHARE = 0.5
"""A component of which at least this share is in VRAM counts as there."""
CREDIBLE = 0.8
"""A reading of less than this share of what is thought to be in VRAM refutes it."""
TELLING_MISSES = 6
"""So many more wrong predictions to one side than to the other correct what computing is thought to take."""
CONTEXT = GB // 2
"""What ComfyUI takes of the GPU without any model: the CUDA context and its libraries."""
INFERENCE = int(0.8 * GB)
"""What ComfyUI keeps free to compute with, beside its reserve (`minimum_inference_memory`)."""
DEFAULT_RESERVE = 0.4
"""GB of VRAM that ComfyUI leaves alone by default on Linux (`EXTRA_RESERVED_VRAM`)."""


class Vram:
    """Which components' weights are in VRAM."""

    def __init__(self, flags: UpstreamFlags, total: int) -> None:
        self._flags = flags
        self._total = total
        reserve = DEFAULT_RESERVE if flags.reserve_vram is None else flags.reserve_vram
        self._headroom = INFERENCE + int(reserve * GB)
        self.others = 0
        """Bytes that are taken by anything but our components."""
        self._misses = 0
        """Wrong predictions of "hot" less wrong ones of "warm", since the headroom was last corrected."""
        self._loaded: dict[Part, _Loaded] = {}
        """The most recently used last."""
        self._running: set[Part] = set()
        self._doubted: ModelSet = frozenset()
        self._patches: set[ModelRef] = set()

    @property
    def loaded_bytes(self) -> int:
        """Bytes of all components that are in VRAM."""
        return sum(loaded.bytes for loaded in self._loaded.values())

    def bytes_of(self, ref: ModelRef) -> int:
        """Bytes of one component that are in VRAM."""
        return sum(loaded.bytes for part, loaded in self._loaded.items() if part.ref == ref)

    def ram_of(self, ref: ModelRef, size: int) -> int:
        """Bytes of RAM that a component takes, or will when it is loaded."""
        return max(0, size - self.bytes_of(ref))

    def tier(self, ref: ModelRef, size: int) -> Tier:
        """Where most of a living component's weights are."""
        if not self._flags.uses_vram or ref in self._patches:
            return Tier.WARM
        if not self._flags.can_offload:
            return Tier.HOT
        if ref in self._doubted:
            return Tier.UNKNOWN
        resident = any(part.ref == ref for part in self._loaded) and self.bytes_of(ref) >= size * RESIDENT_SHARE
        return Tier.HOT if resident else Tier.WARM

    def begin_prompt(self) -> None:
        """Another prompt runs: what the one before computed with is idle."""
        self._running.clear()

    def use(self, use: Use, size_of: SizeOf) -> None:
        """A node computes with these models: they come to VRAM, and others leave it for them."""
        self._patches |= use.patches
        used = [part for part in sorted(use.weights) if self._moves(part)]
        before = {part: self._loaded.pop(part, None) for part in used}
        self._running.update(used)
        self._doubted -= {part.ref for part in used}
        wanted = {part: int(size_of(part.ref) * part.share) for part in used}
        held = sum(loaded.bytes for loaded in before.values() if loaded is not None)
        self._evict(int((sum(wanted.values()) - held) * LOAD_FACTOR) + held)
        for part, size in wanted.items():
            fits = max(0, self._capacity - self.loaded_bytes) if self._flags.can_offload else size
            self._loaded[part] = _Loaded(size, min(size, fits))

    def unload_all(self) -> None:
        """All weights left VRAM: an out-of-memory error, `/free`, or `--disable-smart-memory` after a prompt."""
        self._loaded.clear()
        self._doubted = frozenset()

    def keep_only(self, alive: ModelSet) -> None:
        """Weights whose objects are gone leave VRAM with them."""
        self._loaded = {part: loaded for part, loaded in self._loaded.items() if part.ref in alive}
        self._doubted &= alive

    def doubt(self) -> None:
        """Something ran that we do not know; anything may have left VRAM."""
        self._doubted |= {part.ref for part in self._loaded}
        self._loaded.clear()

    def observe(self, total: int, free: int, others: int | None) -> None:
        """A reading taken while nothing runs: tells what others take, and whether we believe in too much.

        `others` is what other processes take; without it, all that is not our components counts as taken by others.
        """
        self._total = total
        ours = total - free - (others or 0)
        excess = self.loaded_bytes - ours
        if ours < self.loaded_bytes * CREDIBLE:
            self.doubt()
        elif excess > 0:
            # More was pushed out than the rules told, most likely because computing took more than is known here.
            self._evict(excess + self._capacity - self.loaded_bytes)
        self.others = max(0, -excess) if others is None else others + CONTEXT

    def observe_ram(self, free: int) -> None:
        """So much RAM is available. What leaves VRAM goes to RAM whatever there is of it."""

    def missed(self, predicted: Tier, seen: Tier) -> None:
        """A prediction was wrong by its timing. Errors that keep to one side tell how much computing really takes."""
        if {predicted, seen} != {Tier.HOT, Tier.WARM}:
            return
        self._misses += 1 if predicted is Tier.HOT else -1
        if abs(self._misses) >= TELLING_MISSES:
            step = self._total // 16 * (1 if self._misses > 0 else -1)
            self._headroom = max(INFERENCE, min(self._total // 2, self._headroom + step))
            self._misses = 0

    @property
    def _capacity(self) -> int:
        return max(0, self._total - self.others - self._headroom)

    def _moves(self, part: Part) -> bool:
        return self._flags.uses_vram and not self._flags.computes_on_cpu(part.kind)

    def _evict(self, needed: int) -> None:
        """`free_memory`: what is offloaded most goes first, then what is idle, the smaller, the younger."""
        if not self._flags.can_offload:
            return
        newest_first = list(reversed(self._loaded.items()))
        for part, loaded in sorted(newest_first, key=lambda item: self._order(*item)):
            excess = self.loaded_bytes + needed - self._capacity
            if self._flags.smart_memory and loaded.bytes > excess:
                if excess > 0:
                    self._loaded[part] = replace(loaded, bytes=loaded.bytes - excess)
                return
            del self._loaded[part]

    def _order(self, part: Part, loaded: "_Loaded") -> tuple[int, bool, int]:
        return loaded.bytes - loaded.size, part in self._running, loaded.size


@dataclass(frozen=True, slots=True)
class _Loaded:
    """How many of a part's bytes are in VRAM."""

    size: int
    bytes: int
