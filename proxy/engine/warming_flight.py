"""One warm-up prompt on its way: what is known of it, from its submission to its end."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from proxy.core.events import Outcome
from proxy.engine.records import Handling, Record
from proxy.upstream.client import Answer
from warmup import Result, WarmResult


@dataclass(slots=True)
class Flight:
    """A warm-up from before it is sent until its end; `news` is set whenever something about it has changed."""

    prompt_id: str
    nodes: int
    progress: Callable[[float], None]
    handling: Handling = Handling.WARMUP
    record: Record | None = None
    news: asyncio.Event = field(default_factory=asyncio.Event)
    unwanted: bool = False
    """A client has come."""
    running: bool = False
    """ComfyUI was found to run it, or has said so."""
    gone: bool = False
    """ComfyUI does not have it any more, and nobody has seen it run."""
    interrupted: bool = False
    """Its time was up."""
    refused: str = ""
    """What ComfyUI refused of it; it may have taken the rest."""
    error: str = ""
    end: WarmResult | None = None
    _done: int = 0

    def unwant(self) -> None:
        """A client wants to run something."""
        self.unwanted = True
        self.news.set()

    def is_gone(self) -> None:
        """ComfyUI does not have it."""
        self.gone = True
        self.news.set()

    def see(self, kind: str, data: Mapping[str, Any]) -> None:
        """Take in one event of its run."""
        if kind == "execution_start":
            self.running = True
            self.news.set()
        elif kind == "execution_cached":
            self._done = len(data.get("nodes") or ())
        elif kind == "executing":
            self._done += 1
            self._tell(-1.0)
        elif kind == "progress" and data.get("max"):
            self._tell(data["value"] / data["max"] - 1.0)
        elif kind == "execution_error":
            self.error = ": ".join(str(data[key]) for key in ("node_type", "exception_message") if data.get(key))

    def seconds_left(self, time_limit: float, now: float) -> float | None:
        """How long it may still run; None while it does not, or when it has been interrupted already."""
        started = None if self.record is None else self.record.timeline.started_at
        return None if started is None or self.interrupted else max(0.0, started + time_limit - now)

    def finish(self, outcome: Outcome, otherwise: str) -> None:
        """It has ended; `otherwise` is the reason of a failure that has not told one."""
        seconds = (self.record and self.record.timeline.run_seconds) or 0.0
        if outcome is Outcome.SUCCESS and self.refused:
            self.end = WarmResult(Result.FAILED, seconds, self.refused)
        elif outcome is Outcome.SUCCESS:
            self.end = WarmResult(Result.WARMED, seconds)
        elif outcome is Outcome.INTERRUPTED and self.interrupted:
            self.end = WarmResult(Result.TIMED_OUT, seconds, f"interrupted after {seconds:.0f} s")
        elif outcome is Outcome.INTERRUPTED:
            self.end = WarmResult(Result.CANCELLED, seconds, "interrupted by somebody")
        else:
            self.end = WarmResult(Result.FAILED, seconds, self.error or otherwise)
        self.news.set()

    def _tell(self, of_node: float) -> None:
        self.progress(min(1.0, max(0.0, (self._done + of_node) / max(1, self.nodes))))


def refusal(answer: Answer) -> str:
    """What ComfyUI says against a prompt, or against parts of one that it took; empty where it says nothing."""
    try:
        said = answer.json()
        faults = [
            f"node {node_id} ({node['class_type']}): {'; '.join(_one(error) for error in node['errors'])}"
            for node_id, node in said.get("node_errors", {}).items()
        ]
        if isinstance(error := said.get("error"), Mapping):
            faults.insert(0, _one(error))
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"ComfyUI answered {answer.status}"
    return "; ".join(faults) or ("" if answer.ok else f"ComfyUI answered {answer.status}")


def _one(error: Mapping[str, Any]) -> str:
    return ": ".join(str(error[key]) for key in ("message", "details") if error.get(key))
