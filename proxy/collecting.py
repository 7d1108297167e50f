"""How rarely Python looks for garbage in cycles.

What a proxy knows about its ComfyUI is some 100,000 objects that live as long as it does; a full collection walks them
all, 60 ms in the middle of somebody's prompt, and Python's own thresholds make that one prompt in a hundred of those
with 1,000 nodes. What is made for a prompt has no cycles and goes at once when it is let go of; what little is left in
cycles (exceptions with their frames) can wait.
"""

import gc
from typing import Final

THRESHOLDS: Final = (10_000, 20, 100)
"""Objects made and not yet let go of before the young are looked through; such rounds before the next older."""


def collect_rarely() -> None:
    """Set it for this process."""
    gc.set_threshold(*THRESHOLDS)
