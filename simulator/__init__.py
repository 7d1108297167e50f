"""A ComfyUI look-alike to develop and demonstrate against."""

from .config import CacheMode, NodeStart, SimulatorConfig
from .flags import parse as parse_flags
from .ledger import DiskRead, Ledger, Transfer
from .simulator import Simulator, run

__all__ = [
    "CacheMode",
    "DiskRead",
    "Ledger",
    "NodeStart",
    "Simulator",
    "SimulatorConfig",
    "Transfer",
    "parse_flags",
    "run",
]
