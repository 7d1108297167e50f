"""Prompts as clients send them: who, when, with which components, for how long. Reproducible, in seconds and bytes.

A trace names its machine too: the same prompts are easy where everything fits into VRAM and hard where not even RAM
holds the models. `bench.trace_file` takes a trace from a file, so that anybody can try their own.
"""

import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from normalizer.models import ModelRef, ModelSet
from proxy.core import budget
from proxy.core.budget import PROCESS_OVERHEAD, Limits, ram_reserve

GB = 1_000_000_000
SEED = 20_240_601
CHECKPOINT_GB = 6.5
"""An SDXL checkpoint."""
WORKSPACE = int(1.5 * GB)
"""VRAM that ComfyUI keeps to compute with."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Memory in bytes, bandwidths in bytes per second."""

    vram: int = 24 * GB
    ram: int = 64 * GB
    disk_bandwidth: float = 1.5 * GB
    bus_bandwidth: float = 10 * GB

    @property
    def model_vram(self) -> int:
        """Bytes of VRAM for components."""
        return max(0, self.vram - WORKSPACE)

    @property
    def model_ram(self) -> int:
        """Bytes of RAM for components: all but what the system takes and the reserve that pins leave."""
        return max(0, self.ram - PROCESS_OVERHEAD - ram_reserve(budget.Machine(self.ram, self.ram), Limits()))

    def crossing_seconds(self, size: int) -> float:
        """From RAM to VRAM."""
        return size / self.bus_bandwidth

    def reading_seconds(self, size: int) -> float:
        """From disk to RAM."""
        return size / self.disk_bandwidth


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
    sizes: Mapping[ModelRef, int]
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

    def checkpoints(self, count: int) -> list[ModelSet]:
        return [frozenset({self.model(f"checkpoint-{number}", CHECKPOINT_GB)}) for number in range(count)]

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


def small(name: str, seed: int = SEED) -> Trace:
    """Twelve prompts at once for three models: small enough for an exhaustive search."""
    make = _Maker(seed)
    for models in make.checkpoints(3) * 4:
        make.prompts.append(Prompt(0.0, models, 6.0))
    return make.done(name, Machine(vram=8 * GB))


def alternating(name: str, vram: int, seed: int = SEED) -> Trace:
    """Two workflows in turn, a little faster than they can run."""
    make = _Maker(seed)
    sets = make.checkpoints(2)
    for number, at in enumerate(make.arrivals(200, 7.0)):
        make.prompts.append(Prompt(at, sets[number % 2], make.seconds(6.0)))
    return make.done(name, Machine(vram=vram))


def popular(name: str, count: int, machine: Machine, gap: float, seed: int = SEED) -> Trace:
    """Models by popularity (Zipf), prompts at random times."""
    make = _Maker(seed)
    sets = make.checkpoints(count)
    for at in make.arrivals(250, gap):
        chosen = make.random.choices(sets, _zipf(count))[0]
        make.prompts.append(Prompt(at, chosen, make.seconds(8.0)))
    return make.done(name, machine)


def shared(name: str, seed: int = SEED) -> Trace:
    """Two large models with a common text encoder and decoder, and forty LoRAs."""
    make = _Maker(seed)
    common = {make.model("text-encoder", 9.0), make.model("decoder", 0.3)}
    bases = [make.model("model-a", 12.0), make.model("model-b", 12.0)]
    loras = [make.model(f"lora-{number}", 0.3) for number in range(40)]
    for at in make.arrivals(250, 16.0):
        lora = make.random.choices(loras, _zipf(len(loras)))[0]
        base = bases[loras.index(lora) % 2]
        make.prompts.append(Prompt(at, frozenset({*common, base, lora}), make.seconds(12.0)))
    return make.done(name, Machine(vram=24 * GB))


def bursts(name: str, seed: int = SEED) -> Trace:
    """Every ten minutes forty prompts at once, over four models in random order."""
    make = _Maker(seed)
    sets = make.checkpoints(4)
    for burst in range(6):
        for _ in range(40):
            make.prompts.append(Prompt(burst * 600.0, make.random.choice(sets), make.seconds(8.0)))
    return make.done(name, Machine(vram=12 * GB, ram=32 * GB))


def flood(name: str, seed: int = SEED) -> Trace:
    """One client sends 300 prompts over two models at once; seven others come with two each, for a third."""
    make = _Maker(seed)
    first, second, third = make.checkpoints(3)
    for number in range(300):
        make.prompts.append(Prompt(0.0, (first, second)[number % 2], make.seconds(6.0), "flood"))
    for client in range(7):
        at = make.random.uniform(60.0, 1200.0)
        make.prompts += [Prompt(at + more, third, make.seconds(6.0), f"client-{client}") for more in (0.0, 1.0)]
    return make.done(name, Machine(vram=12 * GB, ram=48 * GB))


def day(name: str, seed: int = SEED) -> Trace:
    """A day: quiet at night, too much at noon; five clients with habits, eight models, urgent and idle prompts."""
    make = _Maker(seed)
    sets = make.checkpoints(8)
    habits = {f"client-{number}": make.random.sample(sets, 3) for number in range(5)}
    now = 0.0
    while now < 24 * 3600.0:
        load = 0.15 + 1.05 * max(0.0, math.sin(math.pi * (now / 3600.0 - 6.0) / 14.0)) ** 2
        now += make.random.expovariate(load / 30.0)
        client = make.random.choice(list(habits))
        chosen = make.random.choices(habits[client], (6, 3, 1))[0]
        priority = make.random.choices((0, 1, -1), (18, 1, 1))[0]
        make.prompts.append(Prompt(now, chosen, make.seconds(20.0), client, priority))
    return make.done(name, Machine(vram=16 * GB, ram=48 * GB))


TRACES: Mapping[str, Callable[[str], Trace]] = {
    "small": small,
    "alternating-fit-vram": lambda name: alternating(name, 24 * GB),
    "alternating-fit-ram": lambda name: alternating(name, 12 * GB),
    "zipf-3-fit-vram": lambda name: popular(name, 3, Machine(), 8.5),
    "zipf-8-fit-ram": lambda name: popular(name, 8, Machine(vram=16 * GB, ram=128 * GB), 9.0),
    "zipf-8-exceed-ram": lambda name: popular(name, 8, Machine(vram=12 * GB, ram=32 * GB), 9.0),
    "zipf-20-exceed-ram": lambda name: popular(name, 20, Machine(vram=12 * GB, ram=48 * GB), 11.0),
    "shared-40-loras": shared,
    "bursts": bursts,
    "flood": flood,
    "day": day,
}
"""The built-in traces: what makes each, given its name."""
