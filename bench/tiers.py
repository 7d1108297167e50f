"""Is the residency model right? Random workloads on simulated machines, every cache mode, several memory sizes.

Before each prompt the model says where each component is; the simulator knows. The predictions are also judged the way
they are on a real machine, by timing alone, and that verdict is held against the simulator's too.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from bench.rig import Rig
from bench.workflows import flux, sd15_with_lora, sdxl
from proxy.core.budget import Limits
from proxy.core.tiers import Tier
from simulator.config import DEFAULT_MODELS, GB, CacheMode, SimulatorConfig, VramMode
from simulator.memory import Killed

MODELS: Mapping[str, Mapping[str, int]] = {
    **DEFAULT_MODELS,
    "checkpoints": {
        f"checkpoint-{number}.safetensors": int(size * GB) for number, size in enumerate((6.8, 6.8, 6.5, 2, 4))
    },
    "diffusion_models": {"large.safetensors": int(11.6 * GB), "small.safetensors": int(7.5 * GB)},
}
EQUAL: Mapping[str, Mapping[str, int]] = {
    "checkpoints": {f"model-{number}.safetensors": int(6.8 * GB) for number in range(8)}
}
Kind: TypeAlias = Callable[[int], dict[str, Any]]
SMALL = SimulatorConfig(ram_gb=32, vram_gb=12, models=MODELS)
MEDIUM = SimulatorConfig(ram_gb=64, vram_gb=24, models=MODELS)
LARGE = SimulatorConfig(ram_gb=128, vram_gb=48, models=MODELS)
VRAM_MODES: Mapping[str, Mapping[str, Any]] = {
    "dynamic": {"dynamic_vram": True, "page_cache_gbps": 8.0},
    "dynamic, --fast-disk": {"dynamic_vram": True, "page_cache_gbps": 8.0, "fast_disk": True},
    "smart": {},
    "--lowvram": {"vram_mode": VramMode.LOW},
    "--novram": {"vram_mode": VramMode.NONE},
    "--highvram": {"vram_mode": VramMode.HIGH},
    "--disable-smart-memory": {"disable_smart_memory": True},
}
"""Ways to manage VRAM: "smart" is ComfyUI's with `--disable-dynamic-vram`."""


def random_prompt(
    rng: random.Random, seed: int, kinds: Sequence[Kind] = (sdxl, flux, sd15_with_lora)
) -> dict[str, Any]:
    """One of some kinds of workflow over random files."""
    prompt = rng.choice(kinds)(seed % 7)
    for node in prompt.values():
        inputs = node["inputs"]
        for name, folder in (("ckpt_name", "checkpoints"), ("unet_name", "diffusion_models"), ("lora_name", "loras")):
            if name in inputs:
                inputs[name] = rng.choice(list(MODELS[folder]))
        if "seed" in inputs:
            inputs["seed"] = seed
        if node["class_type"] == "PreviewImage":
            node.update(class_type="PreviewAny", inputs={"source": inputs["images"]})
    return prompt


def any_checkpoint(rng: random.Random, seed: int) -> dict[str, Any]:
    """A checkpoint out of eight, all of one size."""
    prompt = random_prompt(rng, seed, kinds=(sdxl,))
    prompt["4"]["inputs"]["ckpt_name"] = rng.choice(list(EQUAL["checkpoints"]))
    return prompt


@dataclass(frozen=True, slots=True)
class Setting:
    """One machine, one way to start ComfyUI, with or without pins. `name` is what is said of its cache, or of all."""

    name: str
    config: SimulatorConfig
    limits: Limits | None = field(default_factory=Limits)
    """What pins may take; None for pins without any bound."""
    prompt: Callable[[random.Random, int], dict[str, Any]] = field(default=random_prompt)
    visible: int = 4
    """Prompts of the queue that can be seen ahead."""
    vram: str = "smart"
    size: str = ""
    """GB of RAM and of VRAM."""


@dataclass(slots=True)
class Tally:
    """What came of one setting: uses by (predicted, actual) tier, and by (timed, actual) where timing told."""

    uses: Counter[tuple[Tier, Tier]] = field(default_factory=Counter)
    judged_share: float | None = None
    killed_after: int | None = None
    """Prompts until ComfyUI was killed for want of RAM; None if it was not."""

    def predicted(self, tier: Tier | None = None) -> int:
        """Uses for which this tier was predicted, or all."""
        return sum(count for (predicted, _), count in self.uses.items() if tier in {None, predicted})

    def right(self, tier: Tier | None = None) -> int:
        """Those of them for which it was right."""
        return sum(c for (predicted, seen), c in self.uses.items() if predicted is seen and tier in {None, predicted})

    def share(self, tier: Tier | None = None) -> float | None:
        """Right predictions among the uses for which this tier was predicted, or among all; None without any."""
        return self.right(tier) / self.predicted(tier) if self.predicted(tier) else None

    @property
    def unknown(self) -> float | None:
        """The share of uses for which it could not be told; None without any."""
        return self.predicted(Tier.UNKNOWN) / self.predicted() if self.uses else None


def settings() -> Iterator[Setting]:
    """Every cache mode with every way to manage VRAM, on machines of three sizes.

    With `--cache-ram` ComfyUI keeps models by itself, so nothing is pinned. Where models cannot leave VRAM, there is
    twice as much of it, and no small machine.
    """
    for vram, changes in VRAM_MODES.items():
        for machine, results in ((SMALL, 10), (MEDIUM, 40), (LARGE, 40)):
            if changes.get("vram_mode") is VramMode.HIGH:
                if machine is SMALL:
                    continue
                machine = replace(machine, vram_gb=2 * machine.vram_gb)  # noqa: PLW2901 - the machine of this setting
            yield from _cache_modes(replace(machine, **changes), vram, results)


def _cache_modes(machine: SimulatorConfig, vram: str, results: int) -> Iterator[Setting]:
    size = f"{machine.ram_gb:g} / {machine.vram_gb:g}"
    modes: dict[str, tuple[dict[str, Any], Limits]] = {
        "default": ({}, Limits()),
        "--cache-classic": ({"cache": CacheMode.CLASSIC}, Limits()),
        "--cache-lru 10 / 40 / 40": ({"cache": CacheMode.LRU, "cache_lru": results}, Limits()),
        "--cache-none": ({"cache": CacheMode.NONE}, Limits()),
        "--cache-ram 6 16, no pins": ({"cache_ram": (6.0, 16.0)}, Limits(max_chains=0)),
    }
    for cache, (changes, limits) in modes.items():
        yield Setting(cache, replace(machine, **changes), limits, vram=vram, size=size)


def ram_for_three() -> Iterator[Setting]:
    """RAM for three of eight models beside what ComfyUI needs itself: with planned pins, and with all of them."""
    machine = SimulatorConfig(ram_gb=32, vram_gb=8, models=EQUAL)
    planned = Limits(ram_share=1.0)
    yield Setting("RAM for 3 of 8 models, planned pins", machine, planned, any_checkpoint)
    yield Setting("RAM for 3 of 8 models, planned pins, no queue in sight", machine, planned, any_checkpoint, visible=0)
    yield Setting("RAM for 3 of 8 models, every model pinned", machine, None, any_checkpoint)


async def measure(setting: Setting, prompts: int, seed: int) -> Tally:
    """Run a random workload."""
    rng = random.Random(seed)
    rig = Rig(setting.config, setting.limits)
    tally = Tally()
    coming = [setting.prompt(rng, number) for number in range(prompts)]
    needs = [rig.components(prompt) for prompt in coming]
    for number, prompt in enumerate(coming):
        try:
            watched = await rig.run(prompt, needs[number + 1 : number + 1 + setting.visible])
        except Killed:
            tally.killed_after = number
            break
        tally.uses.update((each.predicted, each.actual) for each in watched)
    tally.judged_share = rig.residency.accuracy().share
    return tally
