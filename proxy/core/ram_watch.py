"""What RAM readings tell: what others take, what weights show, and the size of what nobody lists.

A reading is one number for everything on the machine. Compared with the reading before, and with what the node cache
is thought to hold, it says more. Bytes throughout.
"""

from dataclasses import dataclass

from normalizer.models import ModelSet
from proxy.core.node_cache import SizeOf
from proxy.core.sizes import Sizes, SizeSource

CONVINCING = 3
"""So many more steps must fit than not before the readings are taken to show weights."""
SMALLEST_STEP = 64 * 1024**2
"""Bytes under which a step between two memory readings is noise."""


@dataclass(frozen=True, slots=True)
class _Idle:
    """A reading while nothing ran: bytes free in RAM and VRAM together, and what was held."""

    free: int
    held: ModelSet


class RamWatch:
    """The RAM readings of one ComfyUI process."""

    def __init__(self) -> None:
        self.others: int | None = None
        """RAM that anything but components takes; None until a reading was seen."""
        self._shown = 0
        """Times that weights showed in the readings, less the times that they did not, within bounds."""
        self.base = 0
        """RAM in use when nothing was held for certain; 0 until that was seen."""
        self._idle: _Idle | None = None

    @property
    def shows_weights(self) -> bool:
        """Whether weights show in the readings; those in mapped files do not, as the kernel can drop them.

        Other programs' memory comes and goes, so one step is no proof.
        """
        return self._shown >= CONVINCING

    def _judge(self, step: int, size: int) -> None:
        """A step that is neither the size nor nothing tells nothing: something may have left at the same time."""
        if step >= size // 2:
            self._shown = min(2 * CONVINCING, self._shown + 1)
        elif abs(step) < size // 4:
            self._shown = max(0, self._shown - 1)

    def see_taken(self, taken: int, held: ModelSet, in_ram: SizeOf, *, running: bool) -> None:
        """RAM is taken. While a prompt loads, what is ours cannot be told exactly: then the higher figure holds."""
        others = max(self.base, taken - sum(map(in_ram, held)))
        self.others = max(others, self.others or 0) if running else others

    def see_idle(self, free: int, held: ModelSet, sizes: Sizes) -> None:
        """Nothing runs, and so much RAM and VRAM together are free.

        If more is held than at the reading before, and none less, the step is its size: that is learned where nobody
        lists it, and else tells whether weights show at all.
        """
        before, self._idle = self._idle, _Idle(free, held)
        if before is None or not before.held < held:
            return
        new = held - before.held
        step = before.free - free
        size = sum(map(sizes.bytes_of, new))
        if size >= SMALLEST_STEP and all(sizes.size(ref).source is SizeSource.FILE for ref in new):
            self._judge(step, size)
        elif len(new) == 1 and step >= SMALLEST_STEP:
            sizes.measured(next(iter(new)), step)
