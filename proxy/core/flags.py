"""What ComfyUI was started with, and so how it keeps models.

Whether a loader that is merely present in a prompt keeps its model, whether a model can leave VRAM, and when ComfyUI
drops what it holds all hang on its flags and on what they meant in its version. `/system_stats` tells both.

Sources: ComfyUI `comfy/cli_args.py`, `main.py` (`prompt_worker`, `dynamic_vram_supported`), `comfy/model_management.py`
of 0.3.64 and 0.33.0, and the history between them for the versions named below.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from proxy.core.tiers import Tier

GB = 1024**3
"""ComfyUI's flags count in these."""

Version: TypeAlias = tuple[int, ...]

RAM_PRESSURE_DEFAULT: Version = (0, 23)
"""From here on the RAM-pressure cache with two thresholds is the default; before, `--cache-ram` asked for one."""
CACHE_RAM_AUTO: Version = (0, 19)
"""From here on `--cache-ram` without a value means a quarter of the RAM; before, 4 GB."""
INACTIVE_LIMIT_128: Version = (0, 29)
"""From here on the default inactive threshold ends at 128 GB; before, at 96 GB."""
DYNAMIC_VRAM_DEFAULT: Version = (0, 16)
CORS_PATCH: Version = (0, 4)
"""From here on `--enable-cors-header` allows PATCH too."""
CLIENT_PROMPT_ID: Version = (0, 3, 45)
"""From here on a client may name its prompt itself."""

_DYNAMIC_VRAM_TORCH: Version = (2, 8)
_DYNAMIC_VRAM_ROCM: Version = (7, 14)


class CacheMode(StrEnum):
    """How ComfyUI's node cache forgets."""

    CLASSIC = "classic"
    RAM_PRESSURE = "ram-pressure"
    LRU = "lru"
    NONE = "none"


class VramMode(StrEnum):
    """What ComfyUI does with a model that is not computing."""

    NORMAL = "normal"
    LOW = "lowvram"
    NONE = "novram"
    HIGH = "highvram"
    GPU_ONLY = "gpu-only"
    CPU = "cpu"


class Overlap(StrEnum):
    """How much of a prompt is loaded before ComfyUI lets go of what that prompt does not carry.

    The classic cache lets go at once, the RAM-pressure cache after the first node has run, the LRU cache by its count
    of results, whatever the RAM.
    """

    NOTHING = "nothing"
    FIRST = "the first model"
    WHOLE = "all models"


@dataclass(frozen=True, slots=True)
class Platform:
    """What ComfyUI runs on, as `/system_stats` tells it: `device_type` is torch's ("cuda" for AMD too)."""

    device_type: str = "cpu"
    pytorch_version: str = ""
    aimdo_installed: bool = True

    @property
    def rocm(self) -> Version | None:
        """The ROCm version torch was built for; None on anything but AMD."""
        match = re.search(r"\+rocm([\d.]+)", self.pytorch_version)
        return parse_version(match[1]) if match else None


@dataclass(frozen=True, slots=True)
class CacheThresholds:
    """Below how many bytes of available RAM the RAM-pressure cache drops entries.

    `active` holds for the entries of the running prompt, `inactive` for all others.
    """

    active: int
    inactive: int


@dataclass(frozen=True, slots=True)
class UpstreamFlags:
    """ComfyUI's command line, read with its version in mind. Sizes in GB as on the command line."""

    version: Version = ()
    cache: CacheMode = CacheMode.CLASSIC
    lru_size: int = 0
    cache_ram: tuple[float, ...] = ()
    high_ram: bool = False
    vram: VramMode = VramMode.NORMAL
    dynamic_vram: bool = False
    smart_memory: bool = True
    reserve_vram: float | None = None
    vram_headroom: float = 0.0
    fast_disk: bool = False
    unified_memory: bool = False
    cors_origin: str | None = None
    max_upload_mb: float = 100.0

    @property
    def can_offload(self) -> bool:
        """Whether a model that is not computing can leave VRAM for RAM."""
        return self.vram not in {VramMode.HIGH, VramMode.GPU_ONLY} or self.dynamic_vram

    @property
    def uses_vram(self) -> bool:
        """Whether weights come to lie in VRAM at all."""
        return self.vram not in {VramMode.CPU, VramMode.NONE}

    @property
    def only_place(self) -> Tier | None:
        """Where all weights of a model that ComfyUI holds are, if they can only be in one place."""
        if not self.uses_vram:
            return Tier.WARM
        return None if self.can_offload else Tier.HOT

    def computes_on_cpu(self, kind: str) -> bool:
        """Whether models of this type of output stay in RAM, to compute there."""
        in_ram = self.vram is VramMode.LOW and not self.dynamic_vram
        return not self.uses_vram or (in_ram and kind == "CLIP")

    @property
    def overlap(self) -> Overlap:
        """How much of the next prompt comes while what the one before held is still there.

        With dynamic VRAM weights lie in mapped files, which the kernel drops when RAM runs short.
        """
        return Overlap.NOTHING if self.dynamic_vram else _OVERLAPS[self.cache]

    @property
    def pins_help(self) -> bool:
        """Whether carrying a loader along keeps its model."""
        return self.cache is not CacheMode.NONE

    @property
    def client_prompt_ids(self) -> bool:
        """Whether this version takes a `prompt_id` from the client; an unknown version is taken for a new one."""
        return not self.version or self.version >= CLIENT_PROMPT_ID

    def thresholds(self, ram_total: int) -> CacheThresholds:
        """The RAM-pressure thresholds in bytes.

        Args:
            ram_total: the RAM that ComfyUI sees, in bytes: the host's, also inside a container with less.
        """
        if self.version and self.version < RAM_PRESSURE_DEFAULT:
            automatic = min(32.0, max(4.0, ram_total * 0.25 / GB)) if self.version >= CACHE_RAM_AUTO else 4.0
            single = int((self.cache_ram[0] if self.cache_ram else automatic) * GB)
            return CacheThresholds(single, single)
        limit = 96.0 if self.version and self.version < INACTIVE_LIMIT_128 else 128.0
        active, inactive = (*self.cache_ram, None, None)[:2]
        return CacheThresholds(
            first_threshold(ram_total) if active is None else int(active * GB),
            min(int(limit * GB), ram_total) if inactive is None else int(inactive * GB),
        )

    def describe(self) -> tuple[str, ...]:
        """What the flags mean for models, one sentence each."""
        sentences = [_CACHE_SENTENCES[self.cache].format(size=self.lru_size)]
        if self.high_ram:
            sentences.append("--high-ram: the classic cache, and weights stay in RAM even when it runs short.")
        sentences.append(_VRAM_SENTENCES[self.vram])
        if self.dynamic_vram:
            sentences.append(
                "Dynamic VRAM is on: weights are paged in on demand, so a cached loader does not tell where they are."
            )
        if not self.smart_memory:
            sentences.append("--disable-smart-memory: models leave VRAM after every prompt.")
        if self.reserve_vram is not None:
            sentences.append(f"--reserve-vram: {self.reserve_vram:g} GB of VRAM are left to other programs.")
        if self.fast_disk:
            sentences.append("--fast-disk: weights are read again from disk rather than kept in RAM.")
        return tuple(sentences)


_OVERLAPS: Mapping[CacheMode, Overlap] = {
    CacheMode.CLASSIC: Overlap.NOTHING,
    CacheMode.NONE: Overlap.NOTHING,
    CacheMode.RAM_PRESSURE: Overlap.FIRST,
    CacheMode.LRU: Overlap.WHOLE,
}
_CACHE_SENTENCES: Mapping[CacheMode, str] = {
    CacheMode.CLASSIC: "The node cache is classic: what the next prompt does not contain is dropped at once.",
    CacheMode.RAM_PRESSURE: "The node cache works by RAM pressure: what the prompt does not contain is dropped while "
    "available RAM is below the inactive threshold.",
    CacheMode.LRU: "The node cache keeps the {size} newest node results; loaders compete with all other nodes.",
    CacheMode.NONE: "The node cache is off: of itself ComfyUI keeps no model from one prompt to the next.",
}
_VRAM_SENTENCES: Mapping[VramMode, str] = {
    VramMode.NORMAL: "Models move between VRAM and RAM as needed.",
    VramMode.LOW: "--lowvram: text encoders run on the CPU; other models move between VRAM and RAM as needed.",
    VramMode.NONE: "--novram: weights stay in RAM and are streamed to the GPU at every step.",
    VramMode.HIGH: "--highvram: diffusion models stay in VRAM and cannot be moved to RAM.",
    VramMode.GPU_ONLY: "--gpu-only: all models stay in VRAM and cannot be moved to RAM.",
    VramMode.CPU: "Everything runs on the CPU: weights are in RAM or not loaded.",
}


def first_threshold(ram_total: int) -> int:
    """ComfyUI's own default for the active threshold: 10 % of the RAM within 2 to 10 GB. Bytes in, bytes out."""
    return int(min(10 * GB, max(2 * GB, ram_total * 0.10)))


def parse_version(text: str) -> Version:
    """The leading numbers of a version: "0.33.0-rc1" is (0, 33, 0); nothing readable is ()."""
    match = re.match(r"\s*v?(\d+(?:\.\d+)*)", text)
    return tuple(int(part) for part in match[1].split(".")) if match else ()


def parse_flags(argv: Sequence[str], version: str, platform: Platform) -> UpstreamFlags:
    """Read ComfyUI's command line. Never raises: what it cannot read counts as not given.

    Args:
        argv: `system.argv` of `/system_stats`; the program's name may come first.
        version: `system.comfyui_version`.
        platform: what it runs on; decides whether dynamic VRAM is on by default.
    """
    options = _options(argv)
    parsed = parse_version(version)
    cache, lru_size = _cache_mode(options, parsed)
    vram = _vram_mode(options, platform)
    reserve = _numbers(options.get("--reserve-vram"))
    return UpstreamFlags(
        version=parsed,
        cache=cache,
        lru_size=lru_size,
        cache_ram=_numbers(options.get("--cache-ram"))[:2],
        high_ram="--high-ram" in options,
        vram=vram,
        dynamic_vram=_dynamic_vram(options, parsed, vram, platform),
        smart_memory="--disable-smart-memory" not in options,
        reserve_vram=reserve[0] if reserve else None,
        vram_headroom=next(iter(_numbers(options.get("--vram-headroom"))), 0.0),
        fast_disk="--fast-disk" in options,
        unified_memory=platform.device_type == "mps",
        cors_origin=next(iter(options["--enable-cors-header"]), "*") if "--enable-cors-header" in options else None,
        max_upload_mb=next(iter(_numbers(options.get("--max-upload-size"))), 100.0),
    )


def _options(argv: Sequence[str]) -> dict[str, list[str]]:
    """Every option with the values that follow it; `--name=value` and `--name value` alike, the last one wins."""
    options: dict[str, list[str]] = {}
    current: list[str] = []
    for word in argv:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            current = options[name] = [value] if equals else []
        else:
            current.append(word)
    return options


def _numbers(values: Sequence[str] | None) -> tuple[float, ...]:
    numbers = []
    for value in values or ():
        try:
            number = float(value)
        except ValueError:
            break
        if not math.isfinite(number):
            break
        numbers.append(number)
    return tuple(numbers)


def _cache_mode(options: Mapping[str, Sequence[str]], version: Version) -> tuple[CacheMode, int]:
    lru_size = int(next(iter(_numbers(options.get("--cache-lru"))), 0.0))
    if "--cache-classic" in options or "--high-ram" in options:
        return CacheMode.CLASSIC, 0
    if lru_size > 0:
        return CacheMode.LRU, lru_size
    if "--cache-none" in options:
        return CacheMode.NONE, 0
    asked = "--cache-ram" in options and _numbers(options["--cache-ram"])[:1] != (0.0,)
    if asked or not version or version >= RAM_PRESSURE_DEFAULT:
        return CacheMode.RAM_PRESSURE, 0
    return CacheMode.CLASSIC, 0


def _vram_mode(options: Mapping[str, Sequence[str]], platform: Platform) -> VramMode:
    if "--cpu" in options or platform.device_type == "cpu":
        return VramMode.CPU
    for option, mode in (
        ("--lowvram", VramMode.LOW),
        ("--novram", VramMode.NONE),
        ("--gpu-only", VramMode.GPU_ONLY),
        ("--highvram", VramMode.HIGH),
    ):
        if option in options:
            return mode
    return VramMode.NORMAL


def _dynamic_vram(options: Mapping[str, Sequence[str]], version: Version, vram: VramMode, platform: Platform) -> bool:
    old = version and version < DYNAMIC_VRAM_DEFAULT
    if old or not platform.aimdo_installed or vram is VramMode.CPU:
        return False
    if "--enable-dynamic-vram" in options:
        return True
    if "--disable-dynamic-vram" in options or vram not in {VramMode.NORMAL, VramMode.LOW}:
        return False
    if platform.device_type != "cuda" or parse_version(platform.pytorch_version) < _DYNAMIC_VRAM_TORCH:
        return False
    return platform.rocm is None or platform.rocm >= _DYNAMIC_VRAM_ROCM
