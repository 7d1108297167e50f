"""A trace from a file, so that anybody can try the order of the queue with their own prompts.

docs/benchmarks.md has the format.
"""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bench.errors import BenchError
from bench.traces import GB, Machine, Prompt, Trace
from normalizer.models import ModelRef

_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Machine(_Part):
    vram_gb: _Positive = 24.0
    ram_gb: _Positive = 64.0
    disk_gb_per_s: _Positive = 1.5
    bus_gb_per_s: _Positive = 10.0


class _Prompt(_Part):
    at: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    models: Annotated[list[str], Field(min_length=1)]
    seconds: _Positive
    client: str = "one"
    priority: int = 0


class _File(_Part):
    name: str = "trace"
    machine: _Machine = _Machine()
    components_gb: dict[str, _Positive]
    prompts: Annotated[list[_Prompt], Field(min_length=1)]

    @model_validator(mode="after")
    def _components_are_known(self) -> "_File":
        unknown = {name for prompt in self.prompts for name in prompt.models} - self.components_gb.keys()
        if unknown:
            raise ValueError(f"prompts name components without a size: {', '.join(sorted(unknown))}")
        return self


_REMEDIES = {
    "missing": "add it",
    "extra_forbidden": "remove it, or mend its name",
    "value_error": "add each to components_gb, with its size in GB",
    "json_invalid": "mend the JSON there",
}
_REMEDY = "docs/benchmarks.md has the format, with an example"


def read(path: Path) -> Trace:
    """Read a trace from a file.

    Raises:
        BenchError: when it cannot be read or is not as it should be; says where, why, and what to do.
    """
    try:
        file = _File.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BenchError(f"{path}: {error.strerror}; give the path of a trace file") from error
    except ValidationError as error:
        faults = [_fault(e["loc"], e["type"], e["msg"]) for e in error.errors()]
        raise BenchError("\n".join(f"{path}: {fault}" for fault in faults)) from error
    prompts = [
        Prompt(prompt.at, frozenset(map(_ref, prompt.models)), prompt.seconds, prompt.client, prompt.priority)
        for prompt in file.prompts
    ]
    return Trace(
        file.name,
        Machine(
            int(file.machine.vram_gb * GB),
            int(file.machine.ram_gb * GB),
            file.machine.disk_gb_per_s * GB,
            file.machine.bus_gb_per_s * GB,
        ),
        {_ref(name): int(size * GB) for name, size in file.components_gb.items()},
        tuple(sorted(prompts, key=lambda prompt: prompt.at)),
    )


def _fault(place: tuple[int | str, ...], kind: str, message: str) -> str:
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
    return f"{field or 'file'}: {message}; {_REMEDIES.get(kind, _REMEDY)}"


def _ref(name: str) -> ModelRef:
    return ModelRef("component", (name,))
