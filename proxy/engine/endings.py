"""Ends that ComfyUI does not tell: a prompt refused after its client was told that it was taken, or lost too often.

The client hears what it would hear of a failed run: `execution_error` and the closing `executing`; and `/history` gets
an entry as for a failed run (ComfyUI execution.py, `handle_execution_error` and `task_done`).
"""

import json
from dataclasses import dataclass
from typing import Any

from proxy.core.commands import Reason
from proxy.core.jobs import State
from proxy.engine.held import Held
from proxy.upstream.client import Answer
from proxy.wire.frames import build_text


@dataclass(frozen=True, slots=True)
class Ending:
    """How and why a prompt ended; `refusal` is ComfyUI's answer where it refused it at last."""

    state: State
    reason: Reason
    refusal: Answer | None

    def error(self, held: Held, now_ms: int) -> dict[str, Any]:
        """The data of `execution_error`."""
        node_id, message = self._blame()
        return {
            "prompt_id": held.prompt_id,
            "node_id": node_id,
            "node_type": None,
            "executed": [],
            "exception_message": message,
            "exception_type": f"comfykeep.{self.reason.code}",
            "traceback": [],
            "current_inputs": {},
            "current_outputs": [],
            "timestamp": now_ms,
        }

    def frames(self, held: Held, now_ms: int) -> list[str]:
        """What its client is sent."""
        return [
            build_text("execution_error", self.error(held, now_ms)),
            build_text("executing", {"node": None, "prompt_id": held.prompt_id}),
        ]

    def history_entry(self, held: Held, number: float, now_ms: int) -> dict[str, Any]:
        """Its entry in `/history`."""
        started = {"prompt_id": held.prompt_id, "timestamp": now_ms}
        messages = [["execution_start", started], ["execution_error", self.error(held, now_ms)]]
        return {
            "prompt": json.loads(held.queue_item(number)),
            "outputs": {},
            "status": {"status_str": "error", "completed": False, "messages": messages},
            "meta": {},
        }

    def _blame(self) -> tuple[str | None, str]:
        """The first node that ComfyUI's refusal names, and what it says."""
        try:
            refusal = json.loads(self.refusal.body) if self.refusal else {}
            error, nodes = refusal.get("error", {}), refusal.get("node_errors", {})
            message = ": ".join(filter(None, (error.get("message"), error.get("details"))))
        except (ValueError, AttributeError):
            return None, self.reason.text
        return next(iter(nodes), None), message or self.reason.text
