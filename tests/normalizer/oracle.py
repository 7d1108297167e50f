"""What ComfyUI keys a node's outputs by, written from its documented rule and not from the code under test.

The signature of a node is its class, its `is_changed`, its id if its class has UNIQUE_ID, and all entries of its
inputs by name; links are replaced by the place of the node they come from in the walk over all ancestors; the same
follows for each ancestor in that order. Before, validation has cast the declared values of every node that it reaches
from an output node over declared inputs. (`IS_CHANGED` functions are left out: they see no more than the inputs.)
"""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

Prompt = Mapping[str, Any]
Info = Mapping[str, Any]


def is_link(value: Any) -> bool:
    return type(value) is list and len(value) == 2 and type(value[0]) is str and type(value[1]) in (int, float, bool)


def validated(prompt: Prompt, info: Info) -> dict[str, Any]:
    """The prompt as validation leaves it."""
    result = copy.deepcopy(dict(prompt))
    seen: set[str] = set()
    stack = [node_id for node_id, node in result.items() if info[node["class_type"]]["output_node"]]
    while stack:
        node_id = stack.pop()
        if node_id in seen or node_id not in result:
            continue
        seen.add(node_id)
        inputs = result[node_id]["inputs"]
        for name, declared in _declared(info[result[node_id]["class_type"]]):
            value = inputs.get(name)
            if is_link(value):
                stack.append(value[0])
            elif type(value) is list:
                continue  # a bad link: validation reports it, and neither follows nor casts it
            elif name in inputs:
                inputs[name] = _cast(value, declared)
    return result


def _declared(entry: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for section in ("required", "optional"):
        for name, declared in entry["input"].get(section, {}).items():
            yield name, declared[0]


def _cast(value: Any, declared: Any) -> Any:
    if type(value) is dict and "__value__" in value:
        value = value["__value__"]
    try:
        match declared:
            case "INT":
                return int(value)
            case "FLOAT":
                return float(value)
            case "STRING":
                return str(value)
            case "BOOLEAN":
                return bool(value)
    except (ValueError, TypeError, OverflowError):
        pass
    return value


def signature(prompt: Prompt, node_id: str, info: Info) -> tuple[Any, ...]:
    """The key of one node, for a prompt that validation has been through."""
    order: dict[str, int] = {}
    _walk(prompt, node_id, order)
    return tuple(_immediate(prompt, part, order, info) for part in (node_id, *order))


def _walk(prompt: Prompt, node_id: str, order: dict[str, int]) -> None:
    if node_id in prompt:
        for _, value in sorted(prompt[node_id]["inputs"].items()):
            if is_link(value) and value[0] not in order:
                order[value[0]] = len(order)
                _walk(prompt, value[0], order)


def _immediate(prompt: Prompt, node_id: str, order: Mapping[str, int], info: Info) -> tuple[Any, ...]:
    if node_id not in prompt:
        return ("missing",)  # ComfyUI puts a NaN here, which equals nothing; one name keeps it comparable
    node = prompt[node_id]
    unique = node_id if "UNIQUE_ID" in info[node["class_type"]]["input"].get("hidden", {}).values() else None
    inputs = tuple(
        (name, ("ANCESTOR", order[value[0]], value[1]) if is_link(value) else _hashable(value))
        for name, value in sorted(node["inputs"].items())
    )
    return (node["class_type"], _hashable(node.get("is_changed", False)), unique, inputs)


def _hashable(value: Any) -> Any:
    if type(value) is dict:
        return frozenset((key, _hashable(item)) for key, item in value.items())
    if type(value) is list:
        return frozenset(enumerate(_hashable(item) for item in value))
    return value
