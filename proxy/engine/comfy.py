"""All that belongs to one ComfyUI: its address, its schema, what it runs on, what it was seen to hold.

There is one of these today. Everything that will differ between several GPUs sits here, and nothing else does.
"""

import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import replace

from normalizer import REMOVER, Chain, ModelRef, ModelSet, Normalized, Schema, SharedLoaders
from proxy.core.account import LoadBook
from proxy.core.budget import Machine
from proxy.core.chain_book import ChainBook
from proxy.core.costs import LoadCosts, ResidentCosts
from proxy.core.evidence import MemoryRead, ModelsFreed, PromptStarted, SizesRead, UpstreamDied, UpstreamStarted
from proxy.core.flags import CacheMode, UpstreamFlags
from proxy.core.letting_go import LetGo, all_keys
from proxy.core.pinning import PinPlanner
from proxy.core.release import Idleness, Release, Releases
from proxy.core.sizes import SizeSource
from proxy.core.start_delays import StartDelays, kind_of
from proxy.core.strategy import Strategy
from proxy.engine.memory import MemoryWatch
from proxy.errors import UpstreamError
from proxy.upstream.client import UpstreamClient
from proxy.upstream.schema import SchemaKeeper
from proxy.upstream.stats import SystemStats

log = logging.getLogger(__name__)

MEBIBYTE = 1 << 20


async def _nothing_between(_now: float) -> None:
    """Until the engine has told how."""


class Upstream:
    """One ComfyUI, as far as it is known."""

    def __init__(
        self,
        client: UpstreamClient,
        schema: SchemaKeeper,
        memory: MemoryWatch,
        planner: PinPlanner,
        releases: Releases,
        strategy: Strategy = Strategy.PINS,
    ) -> None:
        self.client = client
        self.schema = schema
        self.memory = memory
        self.planner = planner
        self.releases = releases
        self.idle_since: float | None = None
        """Since when its queue has been empty, in monotonic seconds; None while it is not, or nobody knows."""
        self.stats: SystemStats | None = None
        """What it said of itself when it last came up."""
        self._met = False
        self._unlisted: set[ModelRef] = set()
        """Components whose files ComfyUI did not list when it was asked for them."""
        self.machine = Machine(0, 0)
        """The memory that ComfyUI may use; none until it has told."""
        self.chain_book = ChainBook()
        self.load_book = LoadBook()
        self.start_delays = StartDelays()
        self.strategy = strategy
        """What the operator wants; see `shared_loaders`."""
        self.between: Callable[[float], Awaitable[None]] = _nothing_between
        """Brings ComfyUI to where it frees memory; told monotonic seconds."""
        self._looked_through: Schema | None = None
        self._shared_loaders = SharedLoaders()

    @property
    def flags(self) -> UpstreamFlags:
        """What ComfyUI was started with; the defaults until it has told."""
        return self.stats.flags if self.stats else UpstreamFlags()

    @property
    def costs(self) -> LoadCosts:
        """What loading is known to cost."""
        return self.planner.residency.costs

    @property
    def body_limit(self) -> int:
        """Bytes of a request body that ComfyUI takes at most."""
        return round(self.flags.max_upload_mb * MEBIBYTE)

    @property
    def keeps_alone(self) -> bool:
        """Whether ComfyUI keeps models across workflows by its flags, so that pins are not to be thanked for it."""
        flags = self.flags
        if flags.cache is CacheMode.RAM_PRESSURE:
            return flags.thresholds(self.machine.host_ram).inactive < self.machine.host_ram // 2
        return flags.cache is CacheMode.LRU

    @property
    def shared_loaders(self) -> SharedLoaders:
        """The loaders to exchange for shared ones: none where that is not wanted or not installed."""
        schema = self.schema.schema
        if self._looked_through is not schema:
            self._looked_through, self._shared_loaders = schema, SharedLoaders.of(schema)
        return self._shared_loaders if self.strategy is Strategy.INSPIRE else SharedLoaders()

    @property
    def removable(self) -> bool:
        """Whether the Inspire Pack is there to take keys out of its cache, whatever the strategy is."""
        return REMOVER in self.schema.schema

    def load_seconds(self, models: ModelSet, after: Sequence[ModelSet] = ()) -> float:
        """See `proxy.core.costs.Costs`."""
        residency = self.planner.residency
        vram = self.machine.vram or None
        return ResidentCosts(self.costs, residency, residency.sizes.bytes_of, vram).load_seconds(models, after)

    async def meet(self, now: float, *, fresh: bool) -> None:
        """Read what a ComfyUI that has just answered is; `fresh` says that it is a new process, and holds nothing.

        Raises:
            UpstreamError: when it does not tell.
        """
        if self._met:
            return
        stats = await self.memory.reader.read()
        self.machine = await self.memory.settle(stats)
        self.stats, self._met = stats, True
        self.planner.handle(UpstreamStarted(self.flags, self.machine, fresh), now)

    async def learn(self, now: float) -> None:
        """Read what else is to be known of a ComfyUI that has been met."""
        await self.read_sizes(now)
        await self.schema.load()

    async def read_sizes(self, now: float) -> None:
        """Read what model files there are; where ComfyUI does not list them, models count as large."""
        try:
            self.planner.handle(SizesRead(await self.memory.reader.read_sizes()), now)
        except UpstreamError as error:
            log.info("file sizes are not to be had, so models count as large: %s", error)

    def lists_anew(self, refs: Iterable[ModelRef]) -> bool:
        """Whether ComfyUI is to be asked again for its files: one of these may have come since. Once for each."""
        size = self.planner.residency.sizes.size
        unlisted = {ref for ref in refs if ref.files and size(ref).source is SizeSource.ASSUMED} - self._unlisted
        self._unlisted |= unlisted
        return bool(unlisted)

    async def watch_memory(self, clock: Callable[[], float], on_release: Callable[[Release], None]) -> None:
        """Take in readings of its memory until cancelled; `clock` gives monotonic seconds.

        `on_release` is told what is to be freed, whenever it is time for that.
        """

        def take(reading: MemoryRead) -> None:
            self.planner.handle(reading, clock())
            release = self.releases.decide(reading, self._idleness(), self.planner.ram_reserve, clock())
            if release is not None:
                on_release(release)

        await self.memory.run(take, has_gpu=self.stats is not None and self.stats.vram is not None)

    def _idleness(self) -> Idleness | None:
        residency = self.planner.residency
        if self.idle_since is None or not residency.lives:
            return None
        return Idleness(self.idle_since, residency.holds_pins, residency.may_be_hot)

    def queued(self, remaining: int, now: float) -> None:
        """ComfyUI's queue holds so many prompts now, the running one among them."""
        self.memory.set_busy(remaining > 0)
        if remaining:
            self.idle_since = None
        elif self.idle_since is None:
            self.idle_since = now

    async def make_room(self, own: Sequence[Chain], now: float) -> None:
        """Have memory freed before a prompt with these chains, if it would not fit beside what is there."""
        if self.stats is not None and self.planner.must_free(own):
            whole = ModelsFreed(unload_models=True, free_memory=True)
            await self.release(Release(whole, "the next prompt does not fit beside what is kept"), now)

    async def release(self, release: Release, now: float) -> None:
        """Have ComfyUI free memory before the next prompt. Where it does not answer, that is all."""
        wanted = {"unload_models": release.what.unload_models, "free_memory": release.what.free_memory}
        try:
            await self.client.post_json("/free", wanted)
        except UpstreamError as error:
            log.info("memory is not freed: %s", error)
            return
        log.info("ComfyUI was told to free %s: %s", "memory" if release.what.free_memory else "VRAM", release.reason)
        self.freed(release.what, now)
        await self.between(now)

    def lost(self, now: float) -> None:
        """ComfyUI does not answer any more. What it held is gone, unless it turns out to have lived on."""
        self._met = False
        self._unlisted.clear()
        self.planner.handle(UpstreamDied(), now)
        self.load_book.disturb()
        self.start_delays = StartDelays()
        self.schema.forget()

    def ran_foreign(self, prompt_id: str, now: float) -> None:
        """A prompt that did not come through here runs: what it leaves nobody knows."""
        self.planner.handle(PromptStarted(prompt_id), now)
        self.load_book.disturb()

    def freed(self, event: ModelsFreed, now: float) -> None:
        """Somebody told ComfyUI to free memory."""
        self.planner.handle(event, now)
        self.load_book.disturb()

    def let_go(self, now: float) -> tuple[LetGo, ...]:
        """The keys of shared loaders to take out while nothing runs or waits."""
        if self.strategy is not Strategy.INSPIRE:
            return all_keys(self.planner.residency.shared, f'the strategy is "{self.strategy}"')
        return self.planner.let_go(self.chain_book.candidates(), now)

    def overdue(self, now: float) -> ModelSet:
        """What is to be let go while nothing runs, since its group has kept it for long enough."""
        if self.strategy is Strategy.OFF:
            return frozenset()
        return self.planner.overdue(self.chain_book.candidates(), now)

    def pins_for(
        self, normalized: Normalized, foresight: Sequence[ModelSet], now: float, behind: Collection[str] = ()
    ) -> Sequence[Chain]:
        """The chains to carry along with a prompt sent now.

        `foresight` has what those expected after it need; `behind` those of them that ComfyUI has already.
        """
        if self.stats is None or self.strategy is Strategy.OFF:
            return ()
        kind = kind_of(normalized.prompt, frozenset())
        candidates = [
            replace(item, objection=self.start_delays.objection(item.chain.key, kind))
            for item in self.chain_book.candidates()
        ]
        return self.planner.plan(candidates, normalized.chains, foresight, now, behind).chosen
