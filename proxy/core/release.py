"""When ComfyUI is to be told to let go of memory that nobody uses now.

What a prompt has carried along stays after it, whatever else the machine is wanted for. Three things are reasons to
give it back between two prompts: RAM runs so short that the kernel's OOM killer is near, nobody has wanted anything for
a time that the operator sets, or, where that is set, another program needs the VRAM. Seconds are the caller's monotonic
ones, sizes in bytes.
"""

from dataclasses import dataclass

from proxy.core.evidence import MemoryRead, ModelsFreed

GROWTH = 256 * 1024**2
"""Bytes of VRAM by which others must have grown to count as in need of it."""


@dataclass(frozen=True, slots=True)
class Release:
    """What to free, and why."""

    what: ModelsFreed
    reason: str


@dataclass(frozen=True, slots=True)
class Idleness:
    """ComfyUI has had nothing to do since `since`.

    `pinned` tells that it holds components which its last prompt carried along for others, `hot` that some may lie in
    VRAM.
    """

    since: float
    pinned: bool
    hot: bool


class Releases:
    """Decides for one upstream at each reading. `idle_seconds` None: only when RAM runs short."""

    def __init__(self, idle_seconds: float | None, vram_reserve: int) -> None:
        self._idle_seconds = idle_seconds
        self._vram_reserve = vram_reserve
        self._since: float | None = None
        self._others: int | None = None

    def decide(self, reading: MemoryRead, idle: Idleness | None, ram_reserve: int, now: float) -> Release | None:
        """What is to be freed now; `idle` None while prompts run or nothing is held.

        Half of the RAM reserve may be used up before that counts as running short: the readings scatter, and a model
        that is read again costs more than a reserve that is not whole.
        """
        if idle is None:
            self._since = None
            return None
        if idle.since != self._since:
            self._since, self._others = idle.since, reading.vram_others
        if idle.pinned and reading.ram_free is not None and reading.ram_free < ram_reserve // 2:
            return Release(
                ModelsFreed(unload_models=True, free_memory=True),
                f"only {reading.ram_free / 1e9:.2f} GB of RAM are free, of a reserve of {ram_reserve / 1e9:.2f} GB",
            )
        if self._idle_seconds is None:
            return None
        if now - idle.since >= self._idle_seconds:
            return Release(
                ModelsFreed(unload_models=True, free_memory=True), f"no prompt ran for {now - idle.since:.0f} s"
            )
        return self._for_others(reading) if idle.hot else None

    def _for_others(self, reading: MemoryRead) -> Release | None:
        if reading.vram_others is None or reading.vram_free is None or self._others is None:
            return None
        if reading.vram_free >= self._vram_reserve or reading.vram_others < self._others + GROWTH:
            return None
        grown = reading.vram_others - self._others
        self._others = reading.vram_others
        return Release(
            ModelsFreed(unload_models=True, free_memory=False),
            f"other programs have taken {grown / 1e9:.2f} GB more of VRAM",
        )
