"""All that belongs to one ComfyUI: its address, its schema, what it runs on, what it was seen to hold.

There is one of these today. Everything that will differ between several GPUs sits here, and nothing else does.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace

from normalizer import Chain, ModelSet, Normalized, Schema, SharedLoaders
from proxy.core.account import LoadBook
from proxy.core.budget import Limits, Machine
from proxy.core.chain_book import ChainBook
from proxy.core.costs import LoadCosts, ResidentCosts
from proxy.core.evidence import ModelsFreed, SizesRead, UpstreamDied, UpstreamStarted
from proxy.core.flags import CacheMode, UpstreamFlags
from proxy.core.letting_go import LetGo
from proxy.core.pinning import PinPlanner
from proxy.core.residency import Residency
from proxy.core.sizes import Sizes
from proxy.core.start_delays import StartDelays, kind_of
from proxy.core.strategy import Strategy
from proxy.errors import UpstreamError
from proxy.upstream.client import UpstreamClient
from proxy.upstream.schema import SchemaKeeper
from proxy.upstream.stats import StatsReader, SystemStats

log = logging.getLogger(__name__)

MEBIBYTE = 1 << 20


class Upstream:
    """One ComfyUI, as far as it is known."""

    def __init__(
        self,
        client: UpstreamClient,
        schema: SchemaKeeper,
        stats: StatsReader,
        limits: Limits,
        strategy: Strategy = Strategy.PINS,
    ) -> None:
        self.client = client
        self.schema = schema
        self.stats: SystemStats | None = None
        self.chain_book = ChainBook()
        self.load_book = LoadBook()
        self.start_delays = StartDelays()
        self.costs = LoadCosts()
        self.planner = PinPlanner(Residency(Sizes(), self.costs), limits, ())
        self.strategy = strategy
        """What the operator wants; see `shared_loaders`."""
        self._reader = stats
        self._looked_through: Schema | None = None
        self._shared_loaders = SharedLoaders()

    @property
    def flags(self) -> UpstreamFlags:
        """What ComfyUI was started with; the defaults until it has told."""
        return self.stats.flags if self.stats else UpstreamFlags()

    @property
    def machine(self) -> Machine:
        """The memory that ComfyUI may use; none until it has told."""
        return self.stats.machine if self.stats else Machine(0, 0)

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

    def load_seconds(self, models: ModelSet, after: Sequence[ModelSet] = ()) -> float:
        """See `proxy.core.costs.Costs`."""
        residency = self.planner.residency
        vram = self.machine.vram or None
        return ResidentCosts(self.costs, residency, residency.sizes.bytes_of, vram).load_seconds(models, after)

    async def learn(self, now: float, *, fresh: bool) -> None:
        """Read what a ComfyUI that has just answered is and has.

        Raises:
            UpstreamError: when it went away again.
        """
        self.stats = await self._reader.read()
        self.planner.handle(UpstreamStarted(self.flags, self.machine, fresh), now)
        try:
            self.planner.handle(SizesRead(await self._reader.read_sizes()), now)
        except UpstreamError as error:
            log.info("file sizes are not to be had, so models count as large: %s", error)
        await self.schema.load()

    def lost(self, now: float) -> None:
        """ComfyUI is gone, and with it everything it held."""
        self.planner.handle(UpstreamDied(), now)
        self.load_book.disturb()
        self.start_delays = StartDelays()
        self.schema.forget()

    def freed(self, event: ModelsFreed, now: float) -> None:
        """Somebody told ComfyUI to free memory."""
        self.planner.handle(event, now)
        self.load_book.disturb()

    def let_go(self, now: float) -> tuple[LetGo, ...]:
        """The keys of shared loaders to take out while nothing runs or waits."""
        return self.planner.let_go(self.chain_book.candidates(), now)

    def pins_for(self, normalized: Normalized, foresight: Sequence[ModelSet], now: float) -> Sequence[Chain]:
        """The chains to carry along with a prompt sent now; `foresight` has what those expected after it need."""
        if self.stats is None or self.strategy is Strategy.OFF:
            return ()
        kind = kind_of(normalized.prompt, frozenset())
        candidates = [
            replace(item, objection=self.start_delays.objection(item.chain.key, kind, item.load_seconds))
            for item in self.chain_book.candidates()
        ]
        return self.planner.plan(candidates, normalized.chains, foresight, now).chosen
