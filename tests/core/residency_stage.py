"""One ComfyUI, played to a residency event by event."""

from collections.abc import Mapping

from normalizer import Chain
from normalizer.models import ModelRef
from proxy.core.budget import Machine
from proxy.core.costs import LoadCosts
from proxy.core.evidence import (
    Ending,
    MemoryRead,
    NodesCached,
    Part,
    PromptEnded,
    PromptSent,
    PromptStarted,
    ResidencyEvent,
    SizesRead,
    UpstreamStarted,
    Use,
)
from proxy.core.flags import GB, CacheMode, UpstreamFlags
from proxy.core.residency import Residency
from proxy.core.sizes import Sizes
from proxy.core.tiers import Tier

CLASSIC = UpstreamFlags(cache=CacheMode.CLASSIC)
ROOMY = Machine(ram=64 * GB, host_ram=64 * GB, vram=24 * GB)
SIZES = dict.fromkeys("abcdef", 8 * GB)


def ref(name: str) -> ModelRef:
    return ModelRef("UNETLoader", (name,))


def chain(name: str, strength: float = 1.0) -> Chain:
    nodes = {f"node-{name}": {"class_type": "UNETLoader", "inputs": {"name": name, "strength": strength}}}
    return Chain(key=f"node-{name}", signature=f"{name}{strength}", nodes=nodes, models=frozenset({ref(name)}))


def part(name: str, kind: str = "MODEL", share: float = 1.0) -> Part:
    return Part(ref(name), kind, share)


def use(*names: str, waited: float = 0.0) -> Use:
    return Use(frozenset(map(part, names)), "KSampler", 1.0 + waited, 1.0)


class ComfyUI:
    """Plays one upstream to a residency, event by event."""

    def __init__(self, flags: UpstreamFlags = CLASSIC, machine: Machine = ROOMY, *, fresh: bool = True) -> None:
        self.costs = LoadCosts()
        self.residency = Residency(Sizes(), self.costs)
        self.now = 0.0
        self.prompts = 0
        self.tell(UpstreamStarted(flags, machine, fresh), SizesRead(SIZES))

    def tell(self, *events: ResidencyEvent) -> None:
        for event in events:
            self.now += 1.0
            self.residency.handle(event, self.now)

    def send(self, *own: str, pins: str = "", strength: float = 1.0) -> str:
        self.prompts += 1
        prompt_id = f"p{self.prompts}"
        chains = tuple(chain(name, strength) for name in own)
        components = {f"node-{name}": ref(name) for name in own}
        pinned = tuple(map(chain, pins))
        prompt = {node_id: node for each in (*chains, *pinned) for node_id, node in each.nodes.items()}
        others = {str(number): {"class_type": "X", "inputs": {"seed": (self.prompts, number)}} for number in range(3)}
        self.tell(PromptSent(prompt_id, chains, pinned, components, prompt | others))
        return prompt_id

    def run(self, prompt_id: str, *, cached: str = "", loads: Mapping[str, float] | None = None) -> None:
        self.tell(PromptStarted(prompt_id), NodesCached(prompt_id, frozenset(f"node-{name}" for name in cached)))
        self._loads = {f"node-{name}": seconds for name, seconds in (loads or {}).items()}

    def end(self, prompt_id: str, *uses: Use, ending: Ending = Ending.SUCCESS, disk_bytes: int | None = None) -> None:
        self.tell(PromptEnded(prompt_id, ending, self._loads, uses, disk_bytes))

    def prompt(
        self, name: str, *, pins: str = "", loaded: bool = True, waited: float = 0.0, strength: float = 1.0
    ) -> None:
        """One prompt with one model, from sending to success."""
        prompt_id = self.send(name, pins=pins, strength=strength)
        loads = {name: 5.0} if loaded else {}
        self.run(prompt_id, cached=pins if loaded else pins + name, loads=loads)
        self.end(prompt_id, use(name, waited=waited))

    def tiers(self, names: str) -> dict[str, Tier]:
        return {name: self.residency.tier(ref(name)) for name in names}


def in_ram(free: int) -> MemoryRead:
    return MemoryRead(ram_free=free, host_ram_free=free)
