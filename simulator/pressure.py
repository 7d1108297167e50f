"""ComfyUI's default cache: results stay until RAM runs short.

On an ordinary machine "short" is always true for whatever the running prompt does not contain, because the threshold
for that defaults to all RAM; this is why models are read again although there is room for them. Behaviour from ComfyUI
comfy_execution/caching.py, `RAMPressureCache`.
"""

import bisect
import itertools
from collections.abc import Hashable
from typing import Any

from .cache import LRUCache
from .memory import Memory
from .values import holds_model, models_only, tensor_bytes

# comfy_execution/caching.py: RAM_CACHE_DEFAULT_RAM_USAGE, RAM_CACHE_OLD_WORKFLOW_OOM_MULTIPLIER, and the score that
# sends models of other prompts out first. LARGE_INTERMEDIATE is RAM_CACHE_LARGE_INTERMEDIATE.
_UNMEASURED_BYTES = 0.05
_AGE_FACTOR = 1.3
_OLD_MODEL_BYTES = 1e30
LARGE_INTERMEDIATE = 512 * 1024**2


class RAMPressureCache(LRUCache):
    """Entries leave by size, age and kind, when there is less RAM than a threshold.

    Args:
        memory: tells how much RAM there is.
        spare_models: models of the running prompt stay: their weights can leave RAM by themselves (dynamic VRAM).
    """

    def __init__(self, memory: Memory, *, spare_models: bool = False) -> None:
        super().__init__(0)
        self._memory = memory
        self._spare_models = spare_models
        self._ticks = itertools.count()
        self._touched: dict[Hashable, int] = {}

    def clean_unused(self) -> None:
        """Nothing goes because a prompt begins."""
        self.level.drop_unowned_below()

    def get(self, node_id: str) -> Any:
        """See Cache."""
        self._touched[self.level.key(node_id)] = next(self._ticks)
        return super().get(node_id)

    def put(self, node_id: str, entry: Any) -> None:
        """See Cache."""
        self._touched[self.level.key(node_id)] = next(self._ticks)
        super().put(node_id, entry)

    def drop(self, key: Hashable) -> None:
        """Forget one entry."""
        super().drop(key)
        self._touched.pop(key, None)

    def release(self, target: int, *, active: bool = False, smallest: int = 0) -> float:
        """Drop entries until `target` bytes of RAM are available.

        Args:
            target: bytes that should be available.
            active: take entries of the running prompt too.
            smallest: spare entries whose tensors are smaller than this many bytes.

        Returns:
            Bytes of the tensors in what was dropped; they may still be in use.
        """
        if self._memory.ram_free >= target:
            return 0
        order = self._order(active, smallest)
        freed = 0.0
        while order and self._memory.ram_free < target:
            *_, key, nbytes = order.pop()
            self.drop(key)
            freed += nbytes
        return freed

    def _order(self, active: bool, smallest: int) -> list[tuple[float, int, Hashable, float]]:
        """What may go, the last first. A method of its own, so that nothing refers to an entry when it is dropped."""
        order: list[tuple[float, int, Hashable, float]] = []
        for key, entry in self.level.entries.items():
            current = self.used[key] == self.generation
            if current and (not active or (self._spare_models and models_only(entry.outputs))):
                continue
            nbytes = _UNMEASURED_BYTES + tensor_bytes(entry.outputs)
            if nbytes < smallest:
                continue
            weight = _OLD_MODEL_BYTES if not current and holds_model(entry.outputs) else nbytes
            score = weight * _AGE_FACTOR ** (self.generation - self.used[key])
            bisect.insort(order, (score, self._touched[key], key, nbytes), key=lambda item: item[:2])
        return order
