"""Workflow files in API format, and the changes an entry makes to them.

People keep two kinds of JSON files and the difference does not show in their names: what the page saves (nodes with
positions, a list of links) and what it submits (node ids with class and inputs). Only the second can be run; the first
is recognised, so that the error can say how to export.
"""

import copy
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from normalizer.workflow import is_link
from warmup.faults import BadEntry, Complaint, nearest

EXPORT_HINT = "open it in ComfyUI and choose Workflow > Export (API)"
_INPUTS = ".inputs."
_DEEPEST = 64
"""Lists and objects within each other that a value may have; what copies and compares workflows is recursive."""


def read_workflow(path: Path) -> dict[str, Any]:
    """Read a workflow in API format.

    Raises:
        BadEntry: key `prompt`; the file is missing, no JSON, or no workflow in API format.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise _bad(f"there is no file {path}", "paths start at the schedule's folder") from error
    except OSError as error:
        raise _bad(f"{path} cannot be read: {error.strerror}", "check its permissions") from error
    except (ValueError, RecursionError) as error:
        raise _bad(f"{path} is no JSON: {error}", f"{EXPORT_HINT} again") from error
    return _checked(content, path)


def _checked(content: Any, path: Path) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise _bad(f"{path} holds no JSON object", EXPORT_HINT)
    if isinstance(content.get("nodes"), list):
        raise _bad(f"{path} is a workflow in the page's own format, not in API format", EXPORT_HINT)
    if isinstance(content.get("prompt"), dict) and "class_type" not in content["prompt"]:
        raise _bad(f"{path} is a whole submission", "keep only what stands under its key 'prompt'")
    if not content:
        raise _bad(f"{path} holds no nodes", EXPORT_HINT)
    if _is_deeper(content, _DEEPEST):
        raise _bad(f"{path} nests values more than {_DEEPEST} deep", f"{EXPORT_HINT} again")
    for node_id, node in content.items():
        if not isinstance(node, dict) or not isinstance(node.get("class_type"), str):
            raise _bad(f"{path}: node {node_id!r} has no class_type", EXPORT_HINT)
        if not isinstance(node.get("inputs"), dict):
            raise _bad(f"{path}: node {node_id!r} has no inputs", EXPORT_HINT)
    _check_links(content, path)
    return content


def _is_deeper(content: Any, limit: int) -> bool:
    """Whether JSON nests lists and objects deeper than this; level by level, so that no depth is too much for it."""
    level = [content]
    for _ in range(limit + 1):
        level = [
            value
            for item in level
            for value in (item.values() if isinstance(item, dict) else item)
            if isinstance(value, dict | list)
        ]
    return bool(level)


def _check_links(workflow: Mapping[str, Any], path: Path) -> None:
    for node_id, node in workflow.items():
        for name, value in node["inputs"].items():
            if not is_link(value):
                continue
            where = f"{path}: input {name} of node {node_id!r} comes from"
            if value[0] not in workflow:
                raise _bad(f"{where} node {value[0]!r}, which is not there", f"{EXPORT_HINT} again")
            if not (float(value[1]).is_integer() and value[1] >= 0):
                raise _bad(f"{where} output {value[1]!r}, which no node has", f"{EXPORT_HINT} again")


def _bad(problem: str, remedy: str) -> BadEntry:
    return BadEntry(Complaint("prompt", problem, remedy))


def split_path(path: str) -> tuple[str, str] | None:
    """Split `6.inputs.text` into node id and input name; ids may hold colons and names may hold dots. None: no path."""
    node_id, _, name = path.partition(_INPUTS)
    return (node_id, name) if node_id and name else None


def path_complaints(workflow: Mapping[str, Any], paths: Iterable[str]) -> list[Complaint]:
    """What is wrong with the paths of an entry's `set`: each must name an input that the graph has."""
    return [complaint for path in paths if (complaint := _path_complaint(workflow, path)) is not None]


def _path_complaint(workflow: Mapping[str, Any], path: str) -> Complaint | None:
    if (parts := split_path(path)) is None:
        return Complaint("set", f"{path!r} is no path", 'write "NODE.inputs.NAME", for example "6.inputs.text"')
    node_id, name = parts
    if (node := workflow.get(node_id)) is None:
        return Complaint("set", f"{path!r}: there is no node {node_id!r}", f"the nodes are {_listed(workflow)}")
    if name in node["inputs"]:
        return None
    remedy = nearest(name, node["inputs"], f"its inputs are {', '.join(node['inputs']) or 'none'}")
    return Complaint("set", f"{path!r}: node {node_id} ({node['class_type']}) has no input {name!r}", remedy)


def override(workflow: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the workflow in which each path, which must be in the graph, has its new value."""
    changed = copy.deepcopy(dict(workflow))
    for path, value in changes.items():
        node_id, _, name = path.partition(_INPUTS)
        changed[node_id]["inputs"][name] = value
    return changed


def _listed(workflow: Mapping[str, Any], most: int = 12) -> str:
    shown = [f"{node_id} ({workflow[node_id]['class_type']})" for node_id in list(workflow)[:most]]
    return ", ".join(shown) + (", …" if len(workflow) > most else "")
