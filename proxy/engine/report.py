"""What is fronted, in a few lines, and what stands in the way, each with its remedy: `comfykeep check`."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from normalizer import Role, Schema, SharedLoaders
from proxy.core.advice import Advice, Severity, advise
from proxy.core.budget import Limits, Machine
from proxy.core.flags import CacheMode
from proxy.core.groups import Group
from proxy.core.strategy import INSTALL, NOT_INSTALLED, Strategy, in_effect
from proxy.engine.instance import asked_instance
from proxy.engine.memory import MemoryWatch
from proxy.errors import ConfigError, UpstreamError
from proxy.upstream.client import UpstreamClient
from proxy.upstream.stats import StatsReader, SystemStats

_GB = 1024**3
_CHAINED = Advice("What answers at [upstream] url is itself a comfykeep.", "Set it to ComfyUI's own address.")


@dataclass(frozen=True, slots=True)
class Report:
    """What was found at one address. `stats` and `schema` are None where ComfyUI did not answer."""

    url: str
    stats: SystemStats | None = None
    schema: Schema | None = None
    machine: Machine = Machine(0, 0)  # noqa: RUF009 - frozen
    roles: Counter[Role] = field(default_factory=Counter)
    exchanged: tuple[str, ...] = ()
    """The loader classes that are sent as shared ones."""
    problems: tuple[Advice, ...] = ()

    def like(self, other: "Report") -> bool:
        """Whether both tell people the same."""
        return (*self.lines(), *self.problems) == (*other.lines(), *other.problems)

    def lines(self) -> Iterator[str]:
        """The report for people."""
        if self.stats is None:
            return
        stats, machine = self.stats, self.machine
        yield f"ComfyUI {stats.version or 'of unknown version'} at {self.url}, on {stats.device or 'an unknown device'}"
        memory = f"RAM {machine.ram / _GB:.1f} GB"
        if machine.ram < machine.host_ram:
            memory += f" of {machine.host_ram / _GB:.1f} GB"
        yield memory + (f", VRAM {machine.vram / _GB:.1f} GB" if machine.vram else "")
        yield from stats.flags.describe()
        yield f"{self.roles[Role.LOADER]} loader classes known, {self.roles[Role.CHAIN]} chain classes"
        if self.exchanged:
            yield f"Sent as Inspire's shared loaders: {', '.join(self.exchanged)}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the configuration asks for."""

    limits: Limits
    groups: Sequence[Group] = ()
    strategy: Strategy = Strategy.PINS
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Bytes of model files that ComfyUI does not list, or not rightly."""


async def survey(
    client: UpstreamClient, memory: MemoryWatch, wanted: Wanted, include: Iterable[str], exclude: Iterable[str]
) -> Report:
    """Look at the ComfyUI behind `client`. Never raises for what is found: that is a problem in the report."""
    chained = () if await asked_instance(client) is None else (_CHAINED,)
    try:
        stats = await memory.reader.read()
        schema = Schema.from_object_info(await client.get_json("/object_info"), include=include, exclude=exclude)
    except UpstreamError as error:
        return Report(client.base_url, problems=(*chained, Advice(f"{error.message}.", error.details)))
    try:
        unclear = await _gpu_problems(memory)
        machine = await memory.settle(stats)
    finally:
        memory.close()
    roles = Counter(node_class.role for node_class in schema.classes.values())
    shared = SharedLoaders.of(schema)
    exchanged = tuple(sorted(shared.siblings)) if wanted.strategy is Strategy.INSPIRE else ()
    possible = in_effect(wanted.strategy, shared)
    missing = () if possible is wanted.strategy else (Advice(NOT_INSTALLED, INSTALL),)
    # Shared loaders keep models by themselves; what the node cache does is nothing to them.
    flags = replace(stats.flags, cache=CacheMode.CLASSIC) if _needs_no_cache(stats, possible) else stats.flags
    files = {**await _files(memory.reader), **wanted.sizes}
    advice = advise(flags, machine, wanted.limits, wanted.groups, files, frozenset(_choices(schema)))
    problems = (*chained, *missing, *unclear, *advice, *_about_loaders(roles))
    return Report(client.base_url, stats, schema, machine, roles, exchanged, problems)


def _needs_no_cache(stats: SystemStats, strategy: Strategy) -> bool:
    return stats.flags.cache is CacheMode.NONE and strategy is not Strategy.PINS


async def _gpu_problems(memory: MemoryWatch) -> tuple[Advice, ...]:
    try:
        await memory.check_gpu()
    except ConfigError as error:
        return (Advice(str(error), "", Severity.ERROR),)
    return ()


async def _files(reader: StatsReader) -> dict[str, int]:
    """Bytes of each model file; empty where ComfyUI does not list them."""
    try:
        return await reader.read_sizes()
    except UpstreamError:
        return {}


def _choices(schema: Schema) -> Iterator[str]:
    """What can be loaded by name."""
    for node_class in schema.classes.values():
        if node_class.role is not Role.NEITHER:
            specs = (spec for spec in node_class.inputs.values() if spec.names_file)
            yield from (choice for spec in specs for choice in spec.choices if isinstance(choice, str))


def _about_loaders(roles: Counter[Role]) -> Iterator[Advice]:
    if not roles[Role.LOADER]:
        yield Advice(
            "No node class is a model loader by its schema.", "See `comfykeep loaders --json` for the reasons."
        )
