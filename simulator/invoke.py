"""Calling a node: its inputs gathered, mapped over lists, its results merged.

Behaviour from ComfyUI execution.py: `get_input_data`, `_async_map_node_over_list`, `get_output_from_returns`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from .graph import ExecutionBlocker, is_link
from .nodes.base import Inputs, Node, input_info

Values = dict[str, list[Any]]
"""Input values by name, each as the list of one value per call."""

MISSING = (None,)


@dataclass
class Gathered:
    """Inputs of a node."""

    values: Values = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)
    """Linked inputs without a value, which are None meanwhile."""


def gather(
    node: dict[str, Any], node_class: type[Node], schema: Inputs, linked: Callable[[str], Any], hidden: dict[str, Any]
) -> Gathered:
    """Collect the inputs of a node.

    Links in undeclared inputs are followed, constants in undeclared inputs are not passed.

    Args:
        node: its JSON.
        node_class: its class.
        schema: the class's inputs.
        linked: gives the cache entry of a linked node for this one, or None.
        hidden: values of the hidden inputs by kind (`PROMPT`, `UNIQUE_ID`, …).
    """
    gathered = Gathered()
    for name, value in node["inputs"].items():
        _, category, details = input_info(schema, name)
        if is_link(value) and not details.get("rawLink"):
            entry = linked(value[0])
            if entry is None or value[1] >= len(entry.outputs):
                gathered.missing.add(name)
                gathered.values[name] = list(MISSING)
            else:
                gathered.values[name] = entry.outputs[value[1]]
        elif category is not None or node_class.ACCEPTS_ALL:
            gathered.values[name] = [value]
    for name, kind in schema.get("hidden", {}).items():
        if (kind if isinstance(kind, str) else kind[0]) in hidden:
            gathered.values[name] = [hidden[kind if isinstance(kind, str) else kind[0]]]
    return gathered


def slices(values: Values, *, whole: bool) -> list[dict[str, Any]]:
    """Keyword arguments of each call: one per element of the longest list, shorter ones repeat their last.

    Args:
        values: the inputs.
        whole: the class takes lists as they are (INPUT_IS_LIST).
    """
    if whole:
        return [dict(values)]
    if not values:
        return [{}]
    count = max(len(items) for items in values.values())
    return [{name: items[min(index, len(items) - 1)] for name, items in values.items()} for index in range(count)]


def blocker_in(arguments: dict[str, Any], *, whole: bool) -> ExecutionBlocker | None:
    """The first blocker among the arguments."""
    for value in arguments.values():
        for item in value if whole else [value]:
            if isinstance(item, ExecutionBlocker):
                return item
    return None


async def start(work: Awaitable[Any], *, asynchronous: bool) -> Any:
    """The result of a call, or the task that will have it (asynchronous classes only)."""
    if not asynchronous:
        return await work
    task = asyncio.ensure_future(work)
    await asyncio.sleep(0)
    return task.result() if task.done() else task


@dataclass
class Returned:
    """What the calls of a node returned, taken together."""

    outputs: list[Any]
    """By slot; with `expands`, instead a pair of graph (or None) and result per call."""
    ui: dict[str, Any]
    expands: bool


def merge_returns(returns: list[Any], node_class: type[Node]) -> Returned:
    """Sort out ui, results and expansions."""
    results: list[Any] = []
    uis: list[dict[str, Any]] = []
    expansions: list[tuple[Any, Any]] = []
    expands = False
    for returned in returns:
        if not isinstance(returned, dict):
            results.append(_spread(returned, node_class))
            expansions.append((None, results[-1]))
            continue
        if "ui" in returned:
            uis.append(returned["ui"])
        result = _spread(returned.get("result"), node_class)
        if "expand" in returned:
            expands = True
            expansions.append((returned["expand"], result))
        elif "result" in returned:
            results.append(result)
            expansions.append((None, result))
    ui = {key: [item for each in uis for item in each[key]] for key in uis[0]} if uis else {}
    if expands:
        return Returned(list(expansions), ui, expands=True)
    return Returned(merge_results(results, node_class) if results else [], ui, expands=False)


def _spread(result: Any, node_class: type[Node]) -> Any:
    return (result,) * len(node_class.RETURN_TYPES) if isinstance(result, ExecutionBlocker) else result


def merge_results(results: list[Any], node_class: type[Node]) -> list[Any]:
    """Outputs by slot, each as the list of what all calls returned there."""
    is_list = node_class.OUTPUT_IS_LIST or (False,) * len(results[0])
    merged: list[Any] = []
    for slot in range(min(len(results[0]), len(is_list))):
        values: list[Any] = []
        for result in results:
            if is_list[slot] and not isinstance(result[slot], ExecutionBlocker):
                values.extend(result[slot])
            else:
                values.append(result[slot])
        merged.append(values)
    return merged
