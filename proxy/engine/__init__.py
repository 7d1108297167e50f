"""What is decided about prompts, and what is remembered: clients are on one side of it, ComfyUI on the other."""

from proxy.engine.engine import Engine
from proxy.engine.submission import Submission

__all__ = ["Engine", "Submission"]
