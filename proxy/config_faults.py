"""What is wrong with a configuration file, in words for people: the line, the key, the value, and what to do.

pydantic says what it checked. Here that becomes what somebody can change in a TOML file.
"""

import difflib
import re
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

Location = tuple[int | str, ...]
"""Names of tables and of a key; numbers where there are several tables of one name."""


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key with its default, as `section.key`: what the documentation must name. Of groups, the keys of one."""
    for name, field in model.model_fields.items():
        inner = _section(field.annotation)
        if inner is not None:
            yield from keys(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{field.alias or name}", field.default


def _section(annotation: Any) -> type[BaseModel] | None:
    """The model of a section, or of each table where there may be several."""
    inner = next(iter(get_args(annotation)), annotation)
    return inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None


def line_of(text: str, location: Location) -> int:
    """The line a key stands on, found by its name below its section's header; 1 where it cannot be told."""
    *sections, key = [str(part) for part in location if isinstance(part, str)] or [""]
    header = ".".join(sections)
    table = next((part for part in location[:2] if isinstance(part, int)), 0)
    if table:
        # Of several tables of one name it is the one that is meant: what is before it does not count.
        before = [match.start() for match in re.finditer(rf"^\s*\[\[\s*{location[0]}\s*\]\]", text, re.MULTILINE)]
        start = before[table] if table < len(before) else 0
        return text.count("\n", 0, start) + line_of(text[start:], tuple(part for part in location if part != table))
    current, header_line = "", 0
    for number, line in enumerate(text.splitlines(), start=1):
        if match := re.match(r"\s*\[+\s*([^\]]+?)\s*\]+", line):
            current = match[1]
            header_line = number if current in {header, f"{header}.{key}", key} else header_line
            if current in {f"{header}.{key}".strip("."), key if not header else ""}:
                return number
        elif current == header and re.match(rf'\s*"?{re.escape(key)}"?\s*[=.]', line):
            return number
    # In an inline table it stands where the table does.
    return header_line or (line_of(text, location[:-1]) if len(location) > 1 else 1)


def explain(fault: ErrorDetails, model: type[BaseModel]) -> str:
    """Say what is wrong with a key or a table of `model`, and what to do."""
    location = tuple(str(part) for part in fault["loc"] if isinstance(part, str))
    name = ".".join(location)
    if fault["type"] == "extra_forbidden":
        return _unknown(location, model, is_table=isinstance(fault["input"], dict))
    if fault["type"] == "missing":
        return f"{name} is missing; each [[{location[0]}]] needs it"
    default = dict(keys(model)).get(name)
    hint = f"; the default is {default}" if isinstance(default, int | float) and not isinstance(default, bool) else ""
    return f"{name} = {fault['input']!r}: {_remedy(fault)}{hint}"


def _remedy(fault: ErrorDetails) -> str:
    pattern = _REMEDIES.get(fault["type"])
    # What our own validators raise is in our own words.
    return pattern.format(**fault.get("ctx", {})) if pattern else fault["msg"].removeprefix("Value error, ")


_REMEDIES = {
    "string_type": 'must be a string, in quotes: "…"',
    "string_too_short": "must not be empty",
    "int_type": "must be a whole number, without quotes",
    "int_parsing": "must be a whole number, without quotes",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number, without quotes",
    "float_parsing": "must be a number, without quotes",
    "finite_number": "must be a finite number",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be {ge} or more",
    "less_than_equal": "must be {le} or less",
    "bool_type": "must be true or false, without quotes",
    "bool_parsing": "must be true or false, without quotes",
    "enum": "must be {expected}",
    "literal_error": "must be {expected}",
    "tuple_type": "must be a list: [ … ]",
    "too_short": "must have at least {min_length} entry",
    "model_type": "must be a table",
    "dict_type": "must be a table: {{ … }}",
    "mapping_type": "must be a table: {{ … }}",
}
"""What pydantic's types of faults mean in TOML, with the numbers that belong to each."""


def _unknown(location: tuple[str, ...], model: type[BaseModel], *, is_table: bool) -> str:
    name = ".".join(location)
    near = difflib.get_close_matches(location[-1], list(_names(location[:-1], model)), n=1, cutoff=0.5)
    if is_table:
        hint = f"did you mean [{'.'.join((*location[:-1], near[0]))}]?" if near else "see docs/configuration.md"
        return f"unknown table [{name}]: {hint}"
    close = difflib.get_close_matches(name, [key for key, _ in keys(model)], n=1, cutoff=0.5) or near
    hint = f"did you mean {close[0]}?" if close else "remove it, or see docs/configuration.md for the keys there are"
    return f"unknown key {name}: {hint}"


def _names(sections: tuple[str, ...], model: type[BaseModel]) -> Iterator[str]:
    for section in sections:
        field = model.model_fields.get(section)
        inner = _section(field.annotation) if field else None
        if inner is None:
            return
        model = inner
    yield from (field.alias or name for name, field in model.model_fields.items())
