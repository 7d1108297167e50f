"""The simulator's own account of what it read from disk and moved to the GPU.

A demonstration that counts saved loads by its own proxy's word proves nothing. This is the other side's word: each
read of a model file is written down where it happens, with what it cost in simulated seconds.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Doer:
    """The node for which something is done; empty where it is for none."""

    prompt_id: str = ""
    node_id: str = ""
    class_type: str = ""


@dataclass(frozen=True)
class DiskRead:
    """One model file read from disk, or with dynamic VRAM a part of one."""

    file: str
    """Folder and name, as in `checkpoints/model.safetensors`."""
    bytes: int
    seconds: float
    """Simulated seconds."""
    prompt_id: str
    node_id: str
    class_type: str
    from_page_cache: bool = False
    """The operating system still had it; see SimulatorConfig.page_cache_gbps."""


@dataclass(frozen=True)
class Transfer:
    """Weights moved between RAM and VRAM."""

    file: str
    bytes: int
    """Positive: towards the GPU. Negative: offloaded to RAM."""
    seconds: float
    """Simulated seconds."""
    prompt_id: str


@dataclass
class Ledger:
    """All reads and transfers in the order they happened; outlives crashes and restarts of the simulated process."""

    reads: list[DiskRead] = field(default_factory=list)
    transfers: list[Transfer] = field(default_factory=list)

    @property
    def bytes_read(self) -> int:
        """Bytes read from disk."""
        return sum(read.bytes for read in self.reads)

    @property
    def seconds_read(self) -> float:
        """Simulated seconds spent reading from disk."""
        return sum(read.seconds for read in self.reads)

    def clear(self) -> None:
        """Forget everything, for the next measurement."""
        self.reads.clear()
        self.transfers.clear()
