"""Prompts as clients send them: who, when, with which components, for how long. Reproducible, in seconds and bytes.

A trace names its machine too: the same prompts are easy where everything fits into VRAM and hard where not even RAM
holds the models. `read` takes a trace from a file, so that anybody can try their own.
"""

import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from normalizer.models import ModelRef, ModelSet

GB = 1_000_000_000
SEED = 20_240_601


@dataclass(frozen=True, slots=True)
class Machine:
    """Memory in bytes, bandwidths in bytes per second."""

    vram: int = 24 * GB
    ram: int = 64 * GB
    disk_bandwidth: float = 1.5 * GB
    bus_bandwidth: float = 10 * GB


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt: when it arrives, what it needs, and how long it runs when everything is loaded."""

    at: float
    models: ModelSet
    seconds: float
    client: str = "one"
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Trace:
    """Prompts in order of arrival, for one machine; `sizes` in bytes for every component."""

    name: str
    machine: Machine
    sizes: dict[ModelRef, int]
    prompts: Sequence[Prompt]


class _Maker:
    """A trace in the making."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.sizes: dict[ModelRef, int] = {}
        self.prompts: list[Prompt] = []

    def model(self, name: str, gigabytes: float) -> ModelRef:
        ref = ModelRef("component", (name,))
        self.sizes[ref] = int(gigabytes * GB)
        return ref

    def checkpoints(self, count: int, gigabytes: float) -> list[ModelSet]:
        return [frozenset({self.model(f"checkpoint-{number}", gigabytes)}) for number in range(count)]

    def seconds(self, mean: float) -> float:
        """Run times vary by steps and sizes: from half to twice the mean."""
        return mean * math.exp(self.random.uniform(-math.log(2), math.log(2)))

    def arrivals(self, count: int, gap: float) -> Iterable[float]:
        """Poisson arrivals, `gap` seconds apart on average."""
        now = 0.0
        for _ in range(count):
            now += self.random.expovariate(1 / gap)
            yield now

    def done(self, name: str, machine: Machine) -> Trace:
        ordered = sorted(self.prompts, key=lambda prompt: prompt.at)
        return Trace(name, machine, self.sizes, tuple(ordered))


def _zipf(count: int) -> list[float]:
    return [1 / (rank + 1) for rank in range(count)]


def small(seed: int = SEED) -> Trace:
    """Twelve prompts at once for three models: small enough for an exhaustive search."""
    make = _Maker(seed)
    for models in make.checkpoints(3, 6.5) * 4:
        make.prompts.append(Prompt(0.0, models, 6.0))
    return make.done("small, 12 at once", Machine(vram=8 * GB))


def alternating(name: str, vram: int, seed: int = SEED) -> Trace:
    """Two workflows in turn, a little faster than they can run."""
    make = _Maker(seed)
    sets = make.checkpoints(2, 6.5)
    for number, at in enumerate(make.arrivals(200, 7.0)):
        make.prompts.append(Prompt(at, sets[number % 2], make.seconds(6.0)))
    return make.done(name, Machine(vram=vram))


def popular(name: str, count: int, gigabytes: float, machine: Machine, gap: float, seed: int = SEED) -> Trace:
    """Models by popularity (Zipf), prompts at random times."""
    make = _Maker(seed)
    sets = make.checkpoints(count, gigabytes)
    for at in make.arrivals(250, gap):
        chosen = make.random.choices(sets, _zipf(count))[0]
        make.prompts.append(Prompt(at, chosen, make.seconds(8.0)))
    return make.done(name, machine)


def shared(seed: int = SEED) -> Trace:
    """Two large models with a common text encoder and decoder, and forty LoRAs."""
    make = _Maker(seed)
    common = {make.model("text-encoder", 9.0), make.model("decoder", 0.3)}
    bases = [make.model("model-a", 12.0), make.model("model-b", 12.0)]
    loras = [make.model(f"lora-{number}", 0.3) for number in range(40)]
    for at in make.arrivals(250, 16.0):
        lora = make.random.choices(loras, _zipf(len(loras)))[0]
        base = bases[loras.index(lora) % 2]
        make.prompts.append(Prompt(at, frozenset({*common, base, lora}), make.seconds(12.0)))
    return make.done("shared parts, 40 LoRAs", Machine(vram=24 * GB))


def bursts(seed: int = SEED) -> Trace:
    """Every ten minutes forty prompts at once, over four models in random order."""
    make = _Maker(seed)
    sets = make.checkpoints(4, 6.5)
    for burst in range(6):
        for _ in range(40):
            make.prompts.append(Prompt(burst * 600.0, make.random.choice(sets), make.seconds(8.0)))
    return make.done("bursts of 40", Machine(vram=12 * GB, ram=32 * GB))


def flood(seed: int = SEED) -> Trace:
    """One client sends 300 prompts over two models at once; seven others come with two each, for a third."""
    make = _Maker(seed)
    first, second, third = make.checkpoints(3, 6.5)
    for number in range(300):
        make.prompts.append(Prompt(0.0, (first, second)[number % 2], make.seconds(6.0), "flood"))
    for client in range(7):
        at = make.random.uniform(60.0, 1200.0)
        make.prompts += [Prompt(at + more, third, make.seconds(6.0), f"client-{client}") for more in (0.0, 1.0)]
    return make.done("one client floods", Machine(vram=12 * GB, ram=48 * GB))


def day(seed: int = SEED) -> Trace:
    """A day: quiet at night, too much at noon; five clients with habits, eight models, urgent and idle prompts."""
    make = _Maker(seed)
    sets = make.checkpoints(8, 6.5)
    habits = {f"client-{number}": make.random.sample(sets, 3) for number in range(5)}
    now = 0.0
    while now < 24 * 3600.0:
        load = 0.15 + 1.05 * max(0.0, math.sin(math.pi * (now / 3600.0 - 6.0) / 14.0)) ** 2
        now += make.random.expovariate(load / 30.0)
        client = make.random.choice(list(habits))
        chosen = make.random.choices(habits[client], (6, 3, 1))[0]
        priority = make.random.choices((0, 1, -1), (18, 1, 1))[0]
        make.prompts.append(Prompt(now, chosen, make.seconds(20.0), client, priority))
    return make.done("a day", Machine(vram=16 * GB, ram=48 * GB))


TRACES: Sequence[Callable[[], Trace]] = (
    small,
    lambda: alternating("two in turn, fit VRAM", 24 * GB),
    lambda: alternating("two in turn, fit RAM", 12 * GB),
    lambda: popular("3 models, fit VRAM", 3, 6.5, Machine(), 8.5),
    lambda: popular("8 models, fit RAM", 8, 6.5, Machine(vram=16 * GB, ram=128 * GB), 9.0),
    lambda: popular("8 models, do not fit RAM", 8, 6.5, Machine(vram=12 * GB, ram=32 * GB), 9.0),
    lambda: popular("20 models, do not fit RAM", 20, 6.5, Machine(vram=12 * GB, ram=48 * GB), 11.0),
    shared,
    bursts,
    flood,
    day,
)
"""The built-in traces."""


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")


_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _MachineFile(_File):
    vram_gb: _Positive = 24.0
    ram_gb: _Positive = 64.0
    disk_gb_per_s: _Positive = 1.5
    bus_gb_per_s: _Positive = 10.0


class _PromptFile(_File):
    at: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    models: Annotated[list[str], Field(min_length=1)]
    seconds: _Positive
    client: str = "one"
    priority: int = 0


class _TraceFile(_File):
    name: str = "trace"
    machine: _MachineFile = _MachineFile()
    components_gb: dict[str, _Positive]
    prompts: Annotated[list[_PromptFile], Field(min_length=1)]

    @model_validator(mode="after")
    def _components_are_known(self) -> "_TraceFile":
        unknown = {name for prompt in self.prompts for name in prompt.models} - self.components_gb.keys()
        if unknown:
            raise ValueError(f"components_gb lacks {', '.join(sorted(unknown))}")
        return self


class TraceFileError(Exception):
    """A trace file that cannot be used; the message says where and why."""


def read(path: Path) -> Trace:
    """Read a trace from a file; docs/scheduling.md has the format.

    Raises:
        TraceFileError: when it cannot be read or is not as it should be.
    """
    try:
        file = _TraceFile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise TraceFileError(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise TraceFileError(f"{path}: {faults}") from error
    sizes = {ModelRef("component", (name,)): int(size * GB) for name, size in file.components_gb.items()}
    machine = Machine(
        int(file.machine.vram_gb * GB),
        int(file.machine.ram_gb * GB),
        file.machine.disk_gb_per_s * GB,
        file.machine.bus_gb_per_s * GB,
    )
    prompts = [
        Prompt(
            prompt.at,
            frozenset(ModelRef("component", (name,)) for name in prompt.models),
            prompt.seconds,
            prompt.client,
            prompt.priority,
        )
        for prompt in file.prompts
    ]
    return Trace(file.name, machine, sizes, tuple(sorted(prompts, key=lambda prompt: prompt.at)))
