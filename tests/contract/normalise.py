"""Answers made comparable: what legitimately varies between two runs is replaced by a name for it, nothing else."""

import re
from typing import Any

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIMES = {"timestamp", "create_time", "execution_start_time", "execution_end_time", "modified", "created"}
_TEMPORARY = re.compile(r"ComfyUI_temp_[a-z]{5}_")
_FOLDER = re.compile(r"(?<![\w.])(?:/|[A-Za-z]:[\\/])[^\s'\"]+")


def normalise(answer: Any) -> Any:
    """A copy of some JSON with times, UUIDs, tracebacks, absolute paths and names of temporary files replaced."""
    if isinstance(answer, dict):
        return {_name(key): _value(key, value) for key, value in answer.items()}
    if isinstance(answer, list):
        return [normalise(item) for item in answer]
    return _name(answer) if isinstance(answer, str) else answer


def _value(key: str, value: Any) -> Any:
    if key in _TIMES and isinstance(value, int | float):
        return "<time>"
    if key == "traceback":
        return "<traceback>"
    return normalise(value)


def _name(text: str) -> str:
    return _FOLDER.sub("<path>", _TEMPORARY.sub("<temporary>_", _UUID.sub("<uuid>", text)))


def without_time(data: dict[str, Any]) -> dict[str, Any]:
    """An event's data without its ``timestamp``; ids stay."""
    return {key: value for key, value in data.items() if key != "timestamp"}
