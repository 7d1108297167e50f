"""What ComfyUI accepts as a prompt, and in which words it refuses the rest.

Behaviour, texts and order of checks from ComfyUI execution.py, `validate_prompt` and `validate_inputs`, including the
conversions that validation makes in the prompt itself.
"""

import traceback
from dataclasses import dataclass
from typing import Any

from .machine import Machine
from .nodes.base import Classes, Inputs, Node, input_info
from .run import type_name

Error = dict[str, Any]

_ANY = "*"
_MATCH_TYPE = "COMFY_MATCHTYPE_V3"
_COMBO = "COMBO"
_LINK_LENGTH = 2
_LONGEST_LIST_SHOWN = 20


@dataclass(frozen=True)
class Verdict:
    """The answer to a submission."""

    error: Error | None
    outputs: list[str]
    """Output nodes that may run."""
    node_errors: dict[str, Any]


@dataclass(frozen=True)
class _Checked:
    valid: bool
    errors: list[Error]


def _error(kind: str, message: str, details: str, **extra: Any) -> Error:
    return {"type": kind, "message": message, "details": details, "extra_info": extra}


def types_match(received: Any, wanted: Any) -> bool:
    """Whether an output type may go into an input (ComfyUI comfy_execution/validation.py)."""
    if received == wanted or _ANY in (received, wanted) or _MATCH_TYPE in (received, wanted):
        return True
    if isinstance(received, list) and wanted == _COMBO:
        return True
    if not isinstance(received, str) or not isinstance(wanted, str):
        return False
    offered = {each.strip() for each in received.split(",")}
    taken = {each.strip() for each in wanted.split(",")}
    return _ANY in offered | taken or bool(offered & taken)


def validate_prompt(prompt: Any, targets: Any, classes: Classes, machine: Machine) -> Verdict:
    """Judge a prompt.

    Args:
        prompt: nodes by id, as submitted; values are converted in place.
        targets: output nodes that shall run (`partial_execution_targets`); None for all.
        classes: the node classes.
        machine: whose files may be named.

    Raises:
        Exception: whatever makes ComfyUI answer 500, for prompts that are no prompts at all.
    """
    outputs: list[str] = []
    for node_id in prompt:
        error = _unknown_class(node_id, prompt[node_id], classes)
        if error is not None:
            return Verdict(error, [], {})
        if classes[prompt[node_id]["class_type"]].OUTPUT_NODE and (targets is None or node_id in targets):
            outputs.append(node_id)
    if not outputs:
        return Verdict(_error("prompt_no_outputs", "Prompt has no outputs", ""), [], {})
    return _Validator(prompt, classes, machine).judge(outputs)


def _unknown_class(node_id: str, node: Any, classes: Classes) -> Error | None:
    extra = {"node_id": node_id, "class_type": None, "node_title": None}
    details = f"Node ID '#{node_id}'"
    if "class_type" not in node:
        title = node.get("_meta", {}).get("title")
        name = title or f"ID #{node_id}"
        text = f"Node '{name}' has no class_type. The workflow may be corrupted or a custom node is missing."
        return _error("missing_node_type", text, details, **{**extra, "node_title": title})
    class_type = node["class_type"]
    if classes.get(class_type) is not None:
        return None
    title = node.get("_meta", {}).get("title", class_type)
    text = f"Node '{title}' not found. The custom node may not be installed."
    return _error("missing_node_type", text, details, **{**extra, "class_type": class_type, "node_title": title})


class _Validator:
    """Judges the outputs of one prompt; what was found about a node holds for all outputs."""

    def __init__(self, prompt: dict[str, Any], classes: Classes, machine: Machine) -> None:
        self._prompt = prompt
        self._classes = classes
        self._machine = machine
        self._checked: dict[str, _Checked] = {}
        self._schemas: dict[str, Inputs] = {}

    def judge(self, outputs: list[str]) -> Verdict:
        good: list[str] = []
        failed: list[list[Error]] = []
        node_errors: dict[str, Any] = {}
        for output in outputs:
            checked = self._output(output)
            if checked.valid:
                good.append(output)
                continue
            failed.append(checked.errors)
            self._collect(output, node_errors)
        if good:
            return Verdict(None, good, node_errors)
        details = "\n".join(f"{error['message']}: {error['details']}" for errors in failed for error in errors)
        error = _error("prompt_outputs_failed_validation", "Prompt outputs failed validation", details)
        return Verdict(error, [], node_errors)

    def _output(self, output: str) -> _Checked:
        try:
            return self._node(output, [])
        except Exception as error:  # noqa: BLE001  # whatever validation trips over is told to the client
            extra = {"exception_type": type_name(error), "traceback": traceback.format_tb(error.__traceback__)}
            text = "Exception when validating node"
            checked = _Checked(valid=False, errors=[_error("exception_during_validation", text, str(error), **extra)])
            self._checked[output] = checked
            return checked

    def _collect(self, output: str, node_errors: dict[str, Any]) -> None:
        """Add the errors that keep this output from running; nodes that merely depend on bad ones have none."""
        for node_id, checked in self._checked.items():
            if checked.valid or not checked.errors:
                continue
            entry = node_errors.setdefault(
                node_id,
                {
                    "errors": checked.errors,
                    "dependent_outputs": [],
                    "class_type": self._prompt[node_id]["class_type"],
                },
            )
            entry["dependent_outputs"].append(output)

    def _node(self, node_id: str, path: list[str]) -> _Checked:
        if node_id in self._checked:
            return self._checked[node_id]
        if node_id in path:
            return self._cycle(node_id, path)
        inputs = self._prompt[node_id]["inputs"]
        node_class = self._classes[self._prompt[node_id]["class_type"]]
        schema = node_class.finalized(self._machine, inputs)
        errors: list[Error] = []
        valid = True
        for category in ("required", "optional"):
            for name in schema.get(category, {}):
                found = self._input(node_id, name, schema, node_class, path)
                valid = valid and found.valid
                errors += found.errors
        errors += self._custom(node_class, inputs, schema)
        before = self._checked.get(node_id, _Checked(valid=True, errors=[]))
        merged = before.errors + [error for error in errors if error not in before.errors]
        self._checked[node_id] = _Checked(before.valid and valid and not errors, merged)
        return self._checked[node_id]

    def _cycle(self, node_id: str, path: list[str]) -> _Checked:
        around = [*path[path.index(node_id) :], node_id]
        nodes = list(dict.fromkeys(around))
        text = " -> ".join(f"{each} ({self._prompt[each]['class_type']})" for each in around)
        for each in nodes:
            error = _error("dependency_cycle", "Dependency cycle detected", text, node_id=each, cycle_nodes=nodes)
            self._checked[each] = _Checked(valid=False, errors=[error])
        return self._checked[node_id]

    def _input(self, node_id: str, name: str, schema: Inputs, node_class: type[Node], path: list[str]) -> _Checked:
        inputs = self._prompt[node_id]["inputs"]
        kind, category, details = input_info(schema, name)
        if name not in inputs:
            if category != "required":
                return _Checked(valid=True, errors=[])
            shown = node_class.shown_name(name)
            missing = _error("required_input_missing", "Required input is missing", shown, input_name=name)
            return _Checked(valid=True, errors=[missing])
        if isinstance(inputs[name], list):
            return self._link(node_id, name, (kind, details), path)
        errors = _convert(inputs, name, kind, details)
        if not errors and name not in node_class.CHECKED_INPUTS:
            errors = _out_of_bounds(name, inputs[name], kind, details)
        return _Checked(valid=True, errors=errors)

    def _link(self, node_id: str, name: str, info: tuple[Any, Any], path: list[str]) -> _Checked:
        link = self._prompt[node_id]["inputs"][name]
        config = {"input_name": name, "input_config": info}
        if len(link) != _LINK_LENGTH:
            text = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
            return _Checked(valid=True, errors=[_error("bad_linked_input", text, name, **config, received_value=link)])
        source = link[0]
        received = self._classes[self._prompt[source]["class_type"]].RETURN_TYPES[link[1]]
        if not types_match(received, info[0]):
            text = "Return type mismatch between linked nodes"
            details = f"{name}, received_type({received}) mismatch input_type({info[0]})"
            error = _error("return_type_mismatch", text, details, **config, received_type=received, linked_node=link)
            return _Checked(valid=True, errors=[error])
        try:
            return _Checked(self._node(source, [*path, node_id]).valid, [])
        except Exception as error:  # noqa: BLE001  # whatever validation trips over is told to the client
            extra = {
                "exception_message": str(error),
                "exception_type": type_name(error),
                "traceback": traceback.format_tb(error.__traceback__),
                "linked_node": link,
            }
            text = "Exception when validating inner node"
            reason = _error("exception_during_inner_validation", text, str(error), **config, **extra)
            self._checked[source] = _Checked(valid=False, errors=[reason])
            return _Checked(valid=False, errors=[])

    def _custom(self, node_class: type[Node], inputs: dict[str, Any], schema: Inputs) -> list[Error]:
        """Ask the class itself, with what is constant and declared (ComfyUI's VALIDATE_INPUTS)."""
        names = [name for name in node_class.CHECKED_INPUTS if name in inputs and input_info(schema, name)[1]]
        if not names:
            return []
        verdict = node_class.check(self._machine, **{name: _constant(inputs[name]) for name in names})
        if verdict is True:
            return []
        text = "Custom validation failed for node"
        suffix = "" if verdict is False else f" - {verdict}"
        return [_error("custom_validation_failed", text, name + suffix, input_name=name) for name in names]


def _constant(value: Any) -> Any:
    return None if isinstance(value, list) else value


def _convert(inputs: dict[str, Any], name: str, kind: Any, details: dict[str, Any]) -> list[Error]:
    """Make the value what the input's type says, in the prompt itself."""
    value = inputs[name]
    try:
        if isinstance(value, dict) and "__value__" in value:
            value = inputs[name] = value["__value__"]
        convert = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}.get(
            kind if isinstance(kind, str) else ""
        )
        if convert is not None:
            inputs[name] = convert(value)
    except Exception as error:  # noqa: BLE001  # as broad as ComfyUI's: a TypeError, ValueError or OverflowError
        text = f"Failed to convert an input value to a {kind} value"
        extra = {"input_config": (kind, details), "received_value": value, "exception_message": str(error)}
        return [_error("invalid_input_type", text, f"{name}, {value}, {error}", input_name=name, **extra)]
    return []


def _out_of_bounds(name: str, value: Any, kind: Any, details: dict[str, Any]) -> list[Error]:
    extra = {"input_name": name, "input_config": (kind, details), "received_value": value}
    if "min" in details and value < details["min"]:
        text = f"Value {value} smaller than min of {details['min']}"
        return [_error("value_smaller_than_min", text, name, **extra)]
    if "max" in details and value > details["max"]:
        text = f"Value {value} bigger than max of {details['max']}"
        return [_error("value_bigger_than_max", text, name, **extra)]
    if not isinstance(kind, list) and kind != _COMBO:
        return []
    options = details.get("options", []) if kind == _COMBO else kind
    chosen = value if details.get("multiselect", False) and isinstance(value, list) else [value]
    wrong = [each for each in chosen if each not in options]
    if not wrong:
        return []
    shown = str(options)
    if len(options) > _LONGEST_LIST_SHOWN:
        shown = f"(list of length {len(options)})"
        extra["input_config"] = None
    text = f"{name}: {', '.join(repr(each) for each in wrong)} not in {shown}"
    return [_error("value_not_in_list", "Value not in list", text, **extra)]
