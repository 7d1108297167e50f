"""Ends that ComfyUI does not tell: of prompts that were taken and then refused, lost too often, or not to be read.

The client hears what it would hear of a failed run: `execution_error` and the closing `executing`; and `/history` gets
an entry as for a failed run (ComfyUI execution.py, `handle_execution_error` and `task_done`).
"""

import json
from dataclasses import dataclass
from typing import Any

from proxy.core.commands import Reason
from proxy.core.jobs import State
from proxy.upstream.client import Answer
from proxy.wire.frames import build_text


@dataclass(frozen=True, slots=True)
class Ending:
    """How and why a prompt ended, and when (milliseconds since the epoch).

    `refusal` is ComfyUI's answer where it refused it at last.
    """

    state: State
    reason: Reason
    refusal: Answer | None
    at: int

    @property
    def message(self) -> str:
        """Why, for people."""
        return self._blame()[1]

    def error(self, prompt_id: str) -> dict[str, Any]:
        """The data of `execution_error`."""
        node_id, message = self._blame()
        return {
            "prompt_id": prompt_id,
            "node_id": node_id,
            "node_type": None,
            "executed": [],
            "exception_message": message,
            "exception_type": f"comfykeep.{self.reason.code}",
            "traceback": [],
            "current_inputs": {},
            "current_outputs": [],
            "timestamp": self.at,
        }

    def frames(self, prompt_id: str) -> list[str]:
        """What its client is sent."""
        return [
            build_text("execution_error", self.error(prompt_id)),
            build_text("executing", {"node": None, "prompt_id": prompt_id}),
        ]

    def history_entry(self, item: Any) -> dict[str, Any]:
        """Its entry in `/history`; `item` is the prompt as `/queue` shows it."""
        prompt_id = item[1]
        started = {"prompt_id": prompt_id, "timestamp": self.at}
        messages = [["execution_start", started], ["execution_error", self.error(prompt_id)]]
        return {
            "prompt": item,
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
