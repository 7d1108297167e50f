"""What is fronted, in a few lines, and what stands in the way, each with its remedy: `comfykeep check`."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from normalizer import Role, Schema, SharedLoaders
from proxy.core.flags import CLIENT_PROMPT_ID, CacheMode
from proxy.core.strategy import INSTALL, NOT_INSTALLED, Strategy, in_effect
from proxy.errors import UpstreamError
from proxy.upstream.client import UpstreamClient
from proxy.upstream.stats import StatsReader, SystemStats

_GB = 1024**3


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and what to do about it."""

    what: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Report:
    """What was found at one address. `stats` and `schema` are None where ComfyUI did not answer."""

    url: str
    stats: SystemStats | None = None
    schema: Schema | None = None
    roles: Counter[Role] = field(default_factory=Counter)
    exchanged: tuple[str, ...] = ()
    """The loader classes that are sent as shared ones."""
    problems: tuple[Problem, ...] = ()

    def like(self, other: "Report") -> bool:
        """Whether both tell people the same."""
        return (*self.lines(), *self.problems) == (*other.lines(), *other.problems)

    def lines(self) -> Iterator[str]:
        """The report for people."""
        if self.stats is None:
            return
        stats = self.stats
        yield f"ComfyUI {stats.version or 'of unknown version'} at {self.url}, on {stats.device or 'an unknown device'}"
        memory = f"RAM {stats.machine.ram / _GB:.1f} GB"
        yield memory + (f", VRAM {stats.machine.vram / _GB:.1f} GB" if stats.machine.vram else "")
        yield from stats.flags.describe()
        yield f"{self.roles[Role.LOADER]} loader classes known, {self.roles[Role.CHAIN]} chain classes"
        if self.exchanged:
            yield f"Sent as Inspire's shared loaders: {', '.join(self.exchanged)}"


async def survey(
    client: UpstreamClient, include: Iterable[str], exclude: Iterable[str], strategy: Strategy = Strategy.PINS
) -> Report:
    """Look at the ComfyUI behind `client`. Never raises for what ComfyUI does: that is a problem in the report."""
    try:
        stats = await StatsReader(client).read()
        schema = Schema.from_object_info(await client.get_json("/object_info"), include=include, exclude=exclude)
    except UpstreamError as error:
        return Report(client.base_url, problems=(Problem(f"{error.message}.", error.details),))
    roles = Counter(node_class.role for node_class in schema.classes.values())
    shared = SharedLoaders.of(schema)
    exchanged = tuple(sorted(shared.siblings)) if strategy is Strategy.INSPIRE else ()
    return Report(client.base_url, stats, schema, roles, exchanged, tuple(_problems(stats, roles, strategy, shared)))


def _problems(stats: SystemStats, roles: Counter[Role], strategy: Strategy, shared: SharedLoaders) -> Iterator[Problem]:
    flags = stats.flags
    possible = in_effect(strategy, shared)
    if possible is not strategy:
        yield Problem(NOT_INSTALLED, INSTALL)
    if flags.cache is CacheMode.NONE and possible is Strategy.PINS:
        yield Problem(
            "--cache-none: ComfyUI keeps nothing between prompts, so pins cannot help.",
            'Drop the flag, or install ComfyUI-Inspire-Pack and set [normalizer] strategy = "inspire".',
        )
    if not flags.client_prompt_ids:
        needed = ".".join(map(str, CLIENT_PROMPT_ID))
        yield Problem(f"This ComfyUI does not take prompt ids from clients; {needed} does.", "Update ComfyUI.")
    if not roles[Role.LOADER]:
        yield Problem(
            "No node class is a model loader by its schema.", "See `comfykeep loaders --json` for the reasons."
        )
