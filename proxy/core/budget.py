"""How much may be kept in memory without getting ComfyUI killed.

Pins hold weights in RAM, and ComfyUI cannot give them up: too many, and the kernel kills it. So the budget leaves a
reserve, counts what other programs take, and learns: an out-of-memory error or a death lowers a cap that only many calm
prompts raise again. Bytes throughout.
"""

from dataclasses import dataclass, replace

from normalizer.models import ModelSet
from proxy.core.flags import GB, Overlap, UpstreamFlags, VramMode, first_threshold

PROCESS_OVERHEAD = 4 * GB
"""What the system and ComfyUI take without any model, where nobody has measured it."""
INFERENCE_OVERHEAD = int(1.2 * GB)
"""What ComfyUI keeps free in VRAM to compute with: 0.8 GB and its reserve (`minimum_inference_memory`)."""
LAST_RESERVE = GB
"""What stays free even for a moment."""
CALM_PROMPTS = 64
"""So many prompts without trouble raise the learned cap by one step."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The memory there is. `ram` is what ComfyUI may use, `host_ram` what it believes it has.

    They differ in a container with a limit. `vram` is 0 without a GPU.
    """

    ram: int
    host_ram: int
    vram: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """What the operator allows. `ram_reserve` None asks for the default: the larger of 4 GB and 15 %."""

    max_chains: int = 16
    ram_share: float = 0.5
    ram_reserve: int | None = None
    vram_reserve: int = GB


@dataclass(frozen=True, slots=True)
class Usage:
    """What is taken by anything but the components we know, in RAM and VRAM. None where nobody has measured it."""

    ram_others: int | None = None
    vram_others: int | None = None


@dataclass(frozen=True, slots=True)
class Budget:
    """What one prompt and its pins may take.

    `pins` bounds the pins alone, `ram` and `vram` pins and the prompt's own components together. None is no bound.
    `overlap` is how much of the next prompt comes while all of that is still there, and must fit beside it.
    `lingering` are components that stay whether pinned or not, as the LRU cache counts results and not bytes.
    """

    chains: int
    pins: int
    ram: int | None
    vram: int | None = None
    overlap: Overlap = Overlap.NOTHING
    lingering: ModelSet = frozenset()


def ram_reserve(machine: Machine, limits: Limits) -> int:
    """What stays free in RAM: as configured, never less than ComfyUI's own first threshold."""
    wanted = max(4 * GB, int(machine.ram * 0.15)) if limits.ram_reserve is None else limits.ram_reserve
    return max(wanted, first_threshold(machine.ram))


def make_budget(machine: Machine, flags: UpstreamFlags, limits: Limits, usage: Usage, lesson: "Lesson") -> Budget:
    """What may be kept now, by what the machine has, what others take and what was learned."""
    pins = allowed_pins(machine, flags, limits)
    others = PROCESS_OVERHEAD if usage.ram_others is None else usage.ram_others
    ram: int | None = max(0, machine.ram - others - ram_reserve(machine, limits))
    vram = None
    if _vram_bound(machine, flags):
        kept_free = max(limits.vram_reserve, int((flags.reserve_vram or 0.0) * GB)) + INFERENCE_OVERHEAD
        vram = max(0, machine.vram - (usage.vram_others or 0) - kept_free)
        ram = None if flags.vram is VramMode.GPU_ONLY else ram
    return Budget(
        chains=limits.max_chains if flags.pins_help else 0,
        pins=pins if lesson.cap is None else min(pins, lesson.cap),
        ram=ram,
        vram=vram,
        overlap=flags.overlap,
    )


def most_bytes(machine: Machine, flags: UpstreamFlags, usage: Usage) -> tuple[int | None, int | None]:
    """What components may take in RAM and in VRAM before something breaks, the reserve used up; None is no bound."""
    others = PROCESS_OVERHEAD if usage.ram_others is None else usage.ram_others
    ram = machine.ram - others - LAST_RESERVE
    if not _vram_bound(machine, flags):
        return ram, None
    vram = machine.vram - (usage.vram_others or 0) - INFERENCE_OVERHEAD
    return None if flags.vram is VramMode.GPU_ONLY else ram, vram


def allowed_pins(machine: Machine, flags: UpstreamFlags, limits: Limits) -> int:
    """The bytes that pins may take before anything was learned: a share of the memory that holds the weights."""
    in_vram = _vram_bound(machine, flags) and flags.vram is VramMode.GPU_ONLY
    return machine.vram if in_vram else int(machine.ram * limits.ram_share)


def _vram_bound(machine: Machine, flags: UpstreamFlags) -> bool:
    return machine.vram > 0 and not flags.can_offload


@dataclass(frozen=True, slots=True)
class Lesson:
    """What trouble has taught about the bytes that pins may take; None while there was none."""

    cap: int | None = None
    calm: int = 0

    def died(self, allowed: int) -> "Lesson":
        """ComfyUI died while pins were allowed `allowed` bytes: half of that from now on."""
        return Lesson(self._cap(allowed) // 2)

    def ran_out(self, pinned: int, allowed: int) -> "Lesson":
        """A prompt ran out of memory with `pinned` bytes pinned: a quarter less than that from now on."""
        return Lesson(min(self._cap(allowed), pinned) * 3 // 4) if pinned else self

    def prompt_done(self, allowed: int) -> "Lesson":
        """A prompt ended well. After `CALM_PROMPTS` of them the cap rises by an eighth of `allowed`, or goes."""
        if self.cap is None:
            return self
        if self.calm + 1 < CALM_PROMPTS:
            return replace(self, calm=self.calm + 1)
        raised = self.cap + max(1, allowed // 8)
        return Lesson(None if raised >= allowed else raised)

    def _cap(self, allowed: int) -> int:
        return allowed if self.cap is None else min(self.cap, allowed)
