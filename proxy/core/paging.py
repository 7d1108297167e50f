"""Where weights are under dynamic VRAM, by the rules they are paged by.

There a loader that is cached tells nothing: it has mapped a file. Weights come to VRAM when a node computes with them,
out of the file or out of a copy in RAM, which ComfyUI makes on the way while there is RAM for it. What was used last
has priority; what is pushed out of VRAM for it is the weights of the model used longest ago, and nothing is unloaded
for that. Copies are dropped when RAM runs short. After that the file is left, and the page cache of the kernel may have
it or not: that is where *unknown* is an answer.

Sources: ComfyUI 0.33.0 `comfy/model_patcher.py` (`ModelPatcherDynamic`), `comfy/ops.py` (`cast_modules_with_vbar`),
`comfy/model_management.py` (`ensure_pin_budget`, `free_pins`); comfy-aimdo 0.4.13 `src/model-vbar.c`. Bytes throughout.
"""

from dataclasses import dataclass

from normalizer.models import ModelRef, ModelSet
from proxy.core.evidence import Part, Use
from proxy.core.flags import GB, UpstreamFlags
from proxy.core.node_cache import RAM_MARGIN, SizeOf
from proxy.core.tiers import Tier
from proxy.core.vram import CONTEXT, INFERENCE, RESIDENT_SHARE, TELLING_MISSES

HEADROOM = GB // 4
"""What dynamic VRAM leaves free unless told otherwise (comfy-aimdo `VRAM_HEADROOM`)."""
LEAST_RAM = 2 * GB
"""No copy is made that would leave less RAM than this, or than half of the first RAM threshold."""
MORE_COPIES = GB // 4
"""Where copies have to go, so much more goes than is missing (`PIN_PRESSURE_HYSTERESIS`)."""
TRUST = 0.5
"""The share of the available RAM that the kernel is trusted to use for the files read last, before it was seen."""


@dataclass(slots=True)
class _Paged:
    """One model: its size, how much of it is in VRAM, and how much there may be at most; the bytes copied to RAM."""

    size: int
    on_gpu: int = 0
    most: int = 0
    copied: int = 0


class PagedVram:
    """Which components' weights are in VRAM, in RAM, or in their files alone. The same questions as to `Vram`."""

    def __init__(self, flags: UpstreamFlags, total: int, host_ram: int) -> None:
        self._flags = flags
        self._total = total
        self._headroom = max(HEADROOM, int((flags.reserve_vram or 0.0) * GB)) + int(flags.vram_headroom * GB)
        self._least_ram = max(LEAST_RAM, flags.thresholds(host_ram).active // 2)
        self.others = 0
        """Bytes of VRAM that are taken by anything but our components."""
        self._computing = INFERENCE
        """Bytes of VRAM that computing is thought to take beside the weights."""
        self._misses = 0
        self._ram_free: int | None = None
        self._models: dict[Part, _Paged] = {}
        """The most recently used last."""
        self._running: set[Part] = set()
        self._doubted: ModelSet = frozenset()
        self._patches: set[ModelRef] = set()
        self._files = FilePages()

    def bytes_of(self, ref: ModelRef) -> int:
        """Bytes of one component that are in VRAM."""
        return sum(model.on_gpu for part, model in self._models.items() if part.ref == ref)

    def ram_of(self, ref: ModelRef, size: int) -> int:
        """Bytes of RAM that a component takes, or will when it is used."""
        copied = [model.copied for part, model in self._models.items() if part.ref == ref]
        return sum(copied) if copied else self._most_copied(size)

    @property
    def shows_in_ram(self) -> bool:
        """Whether what lives has its copy in RAM: so it is while none has to go for want of RAM."""
        copies = self._flags.high_ram or not self._flags.fast_disk
        return copies and self._ram_free is not None and self._ram_free > self._least_ram + RAM_MARGIN

    def tier(self, ref: ModelRef, size: int) -> Tier:
        """Where a living component's weights are."""
        if not self._flags.uses_vram or ref in self._patches:
            return Tier.WARM
        if ref in self._doubted:
            return Tier.UNKNOWN
        models = [model for part, model in self._models.items() if part.ref == ref]
        enough = size * RESIDENT_SHARE
        if models and sum(model.on_gpu for model in models) >= enough:
            return Tier.HOT
        if models and sum(max(model.on_gpu, model.copied) for model in models) >= enough:
            return Tier.WARM
        return self._files.tier(ref, self._ram_free)

    def begin_prompt(self) -> None:
        """Another prompt runs: what the one before computed with is idle."""
        self._running.clear()

    def use(self, use: Use, size_of: SizeOf) -> None:
        """A node computes with these models: they are paged in, and others make room for them."""
        self._patches |= use.patches
        used = sorted(use.weights) if self._flags.uses_vram else []
        self._doubted -= {part.ref for part in used}
        if not self._flags.smart_memory:
            self._drop(set(self._models) - set(used))
        for part in used:
            model = self._models.pop(part, None) or _Paged(int(size_of(part.ref) * part.share))
            self._models[part] = model
            self._running.add(part)
            before = model.on_gpu
            self._page_in(model)
            missing = model.size - max(before, model.copied)
            if missing > 0:
                self._files.read(part.ref, missing)
                self._copy(part, model, missing)

    def unload_all(self) -> None:
        """An out-of-memory error, `/free`, or `--disable-smart-memory` after a prompt: only the files are left."""
        self._drop(set(self._models))
        self._doubted = frozenset()

    def keep_only(self, alive: ModelSet) -> None:
        """Weights whose objects are gone leave memory with them."""
        self._drop({part for part in self._models if part.ref not in alive})
        self._doubted &= alive

    def doubt(self) -> None:
        """Something ran that we do not know; anything may have left memory."""
        self._doubted |= {part.ref for part in self._models}
        self._drop(set(self._models))

    def observe(self, total: int, free: int, others: int | None) -> None:
        """A reading of VRAM while nothing runs: by the order of priority it tells what is there.

        Without knowing what other processes take, all that was ever seen beside our components counts as theirs.
        """
        self._total = total
        taken = total - free
        beside = max(0, taken - sum(model.most for model in self._models.values()))
        if others is None:
            known = not self._models
            self.others = beside if known else max(self.others, (3 * self.others + beside) // 4)
        else:
            self.others = others + min(CONTEXT, beside)
        left, believed = max(0, taken - self.others), sum(model.on_gpu for model in self._models.values())
        for model in reversed(self._models.values()):
            model.on_gpu = model.most = min(model.most, left)
            left -= model.on_gpu
        wrong = believed - sum(model.on_gpu for model in self._models.values())
        self._computing = min(self._total // 2, max(0, self._computing + wrong // 2))

    def observe_ram(self, free: int) -> None:
        """So much RAM is available, as ComfyUI sees it."""
        self._ram_free = free
        self._files.room(free)

    def missed(self, predicted: Tier, seen: Tier) -> None:
        """A prediction was wrong by its timing. Errors that keep to one side tell what was not known."""
        if predicted is Tier.UNKNOWN or (predicted, seen) == (Tier.WARM, Tier.COLD):
            self._files.learn(kept=seen is Tier.WARM)
        elif {predicted, seen} == {Tier.HOT, Tier.WARM}:
            self._misses += 1 if predicted is Tier.HOT else -1
            if abs(self._misses) >= TELLING_MISSES:
                step = self._total // 16 * (1 if self._misses > 0 else -1)
                self._computing = max(0, min(self._total // 2, self._computing + step))
                self._misses = 0

    def _page_in(self, wanted: _Paged) -> None:
        """`vbars_free_for_vbar`: room is made by the model used longest ago, the end of it first; at last by itself."""
        room = self._total - self.others - self._headroom
        wanted.on_gpu = wanted.most = wanted.size
        for model in self._models.values():
            excess = sum(each.on_gpu for each in self._models.values()) - max(0, room - self._computing)
            model.on_gpu -= max(0, min(model.on_gpu, excess))
            excess = sum(each.most for each in self._models.values()) - max(0, room)
            model.most -= max(0, min(model.most, excess))

    def _most_copied(self, size: int) -> int:
        return size if self._flags.high_ram or not self._flags.fast_disk else 0

    def _copy(self, part: Part, model: _Paged, nbytes: int) -> None:
        """`ensure_pin_budget`: copies are made while there is RAM for it, for which those of others may have to go."""
        wanted = self._most_copied(min(nbytes, model.size - model.copied))
        if not self._flags.high_ram and self._ram_free is not None:
            short = wanted + self._least_ram - self._ram_free
            if short > 0:
                self._release(short + MORE_COPIES, spare=part)
            wanted = min(wanted, max(0, self._ram_free - self._least_ram))
        model.copied += wanted
        self._take_ram(wanted)

    def _release(self, nbytes: int, spare: Part) -> None:
        """`free_pins`: copies of what the prompt does not use go first, of the models used last before others."""
        newest_first = list(reversed(self._models.items()))
        for part, model in sorted(newest_first, key=lambda item: item[0] in self._running):
            if part != spare:
                dropped = min(model.copied, nbytes)
                model.copied -= dropped
                nbytes -= dropped
                self._take_ram(-dropped)

    def _drop(self, parts: set[Part]) -> None:
        for part in parts:
            self._take_ram(-self._models[part].copied)
            del self._models[part]

    def _take_ram(self, nbytes: int) -> None:
        if self._ram_free is not None:
            self._ram_free -= nbytes
            self._files.room(self._ram_free)


class FilePages:
    """Which files the kernel may still have in its page cache: those read last, as far as RAM is available."""

    def __init__(self) -> None:
        self._read: dict[ModelRef, int] = {}
        """Bytes by component, the one read last at the end."""
        self._trust = TRUST

    def read(self, ref: ModelRef, nbytes: int) -> None:
        """So much of a component's files was read, from disk or from the page cache."""
        self._read[ref] = max(nbytes, self._read.pop(ref, 0))

    def room(self, free: int) -> None:
        """So much RAM is available: what was read before all that fits is not there any more."""
        for ref in list(self._read):
            if sum(self._read.values()) <= free:
                return
            del self._read[ref]

    def learn(self, *, kept: bool) -> None:
        """Whether a file that may have been there was there."""
        self._trust = min(1.0, self._trust + TRUST / 4) if kept else self._trust / 2

    def tier(self, ref: ModelRef, free: int | None) -> Tier:
        """Warm or cold for a component of which only the files are left."""
        if ref not in self._read:
            return Tier.COLD if free is not None else Tier.UNKNOWN
        later = 0
        for other in reversed(self._read):
            later += self._read[other]
            if other == ref:
                break
        return Tier.WARM if free is not None and later <= free * self._trust else Tier.UNKNOWN
