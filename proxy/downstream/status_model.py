"""What `GET /comfykeep/status` answers, and `comfykeep status` shows. Sizes in bytes, times in seconds."""

from pydantic import BaseModel, ConfigDict, Field

from proxy.core.health import Health
from proxy.core.mode import Mode
from proxy.core.sizes import SizeSource
from proxy.core.tiers import Tier


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class MemoryStatus(_Model):
    """RAM or VRAM of ComfyUI's machine."""

    total: int = Field(description="what ComfyUI may use; of RAM the least of machine, container and ram_limit")
    free: int
    reserve: int = Field(description="what pins and models leave free")
    source: str = Field(description='who said so: "this machine", "NVML" or "ComfyUI"')
    age: float = Field(description="since it was read")
    others: int | None = Field(description="what anything but known models takes; null where it was not measured")


class ComponentStatus(_Model):
    """One model, as one loader brings it in."""

    label: str
    class_type: str
    files: tuple[str, ...]
    tier: Tier
    size: int
    size_source: SizeSource
    last_used: float | None = Field(description="seconds since a prompt with it began")
    needed_in: int | None = Field(description="the next waiting prompt that needs it: 1 is the first in the queue")
    needed_by: str | None = Field(description="the id of that prompt")
    pinned: bool = Field(description="a prompt that is at ComfyUI, or else the last that ran, carries it along")
    kept: bool | None = Field(description="whether the last plan of pins kept it; null where it was no candidate")
    why: str = Field(description="why, or why not; empty where it was no candidate")


class TierAccuracy(_Model):
    """Of the judged uses for which one tier was predicted, how many were right; of unknown none ever is."""

    uses: int
    right: int


class AccuracyStatus(_Model):
    """Predicted tiers against those that timing showed afterwards."""

    share: float | None = Field(description="right ones among all judged uses, unknown included; null before any")
    tiers: dict[Tier, TierAccuracy]


class PromptStatus(_Model):
    """A prompt that runs or waits."""

    prompt_id: str
    models: tuple[str, ...]
    state: str
    ours: bool = Field(description="whether it came through here; others are seen in ComfyUI's queue")
    expected_start: float | None = Field(description="Unix seconds; null where the queue is not held here")


class BudgetStatus(_Model):
    """What pins may take now."""

    chains: int
    pins: int = Field(description="bytes for pins alone")
    ram: int | None = Field(description="bytes in RAM for pins and a prompt's own models; null is no bound")
    vram: int | None = Field(description="the same in VRAM, where models cannot leave it")


class SlowPin(_Model):
    """Loaders that are not carried along, since prompts start late with them."""

    models: tuple[str, ...]
    seconds: float = Field(description="by how much each start was later")


class UpstreamStatus(_Model):
    """One ComfyUI."""

    url: str
    up: bool
    version: str | None
    ram: MemoryStatus | None
    vram: MemoryStatus | None
    budget: BudgetStatus
    components: tuple[ComponentStatus, ...] = Field(description="the most recently used first")
    accuracy: AccuracyStatus
    running: tuple[PromptStatus, ...]
    queue: tuple[PromptStatus, ...] = Field(description="the first of those that wait, in the order of their turn")
    waiting: int = Field(description="how many wait in all")


class TotalsStatus(_Model):
    """The sums since comfykeep was started."""

    prompts: int
    loaded: int = Field(description="loads of components")
    kept: int = Field(description="loads avoided: components that a prompt found in ComfyUI's cache")
    load_seconds: float
    saved_seconds: float = Field(
        description="for each kept component what loading it took the last time that was watched, if the prompt before "
        "did not hold it and ComfyUI does not keep it by its own flags"
    )
    avoidable_seconds: float = Field(description="seconds of loads that pins would have spared, for prompts left alone")


class Status(_Model):
    """All of it."""

    mode: Mode
    waiting_in_journal: int = Field(
        description="prompts of an earlier process in a journal that this mode does not open; mode full runs them"
    )
    upstream: UpstreamStatus
    slow_pins: tuple[SlowPin, ...]
    health: Health
    totals: TotalsStatus
