"""Models are loaded before the first client asks: a schedule, the prompts for it, and one service that runs them."""

from warmup.entries import Depth, Trigger
from warmup.faults import BadEntry, Complaint, Fault
from warmup.misfits import check
from warmup.plan import Tier
from warmup.ports import Clock, Store, Warmer, WarmResult
from warmup.prompts import Names, Surroundings
from warmup.report import Report, Row
from warmup.schedule import Schedule, load
from warmup.service import WarmupService
from warmup.state import Outcome, Result
from warmup.system import StateFile, SystemClock

__all__ = [
    "BadEntry",
    "Clock",
    "Complaint",
    "Depth",
    "Fault",
    "Names",
    "Outcome",
    "Report",
    "Result",
    "Row",
    "Schedule",
    "StateFile",
    "Store",
    "Surroundings",
    "SystemClock",
    "Tier",
    "Trigger",
    "WarmResult",
    "Warmer",
    "WarmupService",
    "check",
    "load",
]
