"""What is simulated: the machine, its model files, and how ComfyUI was started."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

GB = 1024**3
MB = 1024**2

# ComfyUI main.py, prompt_worker: the RAM thresholds that hold when --cache-ram gives none.
_ACTIVE_SHARE_OF_RAM = 0.10
_ACTIVE_GB_RANGE = (2.0, 10.0)
_INACTIVE_GB_MAX = 128.0

_MAX_UPLOAD_MB = 100.0

DEFAULT_MODELS: Mapping[str, Mapping[str, int]] = {
    "checkpoints": {
        "dreamscape_xl.safetensors": 6_940 * MB,
        "photoreal_xl.safetensors": 6_940 * MB,
        "sketchbook_15.safetensors": 2_130 * MB,
    },
    "diffusion_models": {"flux_dev_fp8.safetensors": 11_900 * MB, "qwen_image_fp8.safetensors": 20_400 * MB},
    "text_encoders": {
        "clip_l.safetensors": 246 * MB,
        "t5xxl_fp8.safetensors": 4_890 * MB,
        "qwen_2.5_vl_7b_fp8.safetensors": 9_380 * MB,
    },
    "vae": {"flux_vae.safetensors": 335 * MB, "qwen_image_vae.safetensors": 254 * MB},
    "loras": {"watercolor.safetensors": 230 * MB, "pixelart.safetensors": 170 * MB},
}


class VramMode(StrEnum):
    """What becomes of a model that is not computing. The values are ComfyUI's flags; NORMAL is none of them."""

    NORMAL = ""
    LOW = "--lowvram"
    NONE = "--novram"
    HIGH = "--highvram"
    GPU_ONLY = "--gpu-only"


class CacheMode(StrEnum):
    """ComfyUI's node caches; RAM pressure is what it uses when no flag says otherwise."""

    CLASSIC = "classic"
    LRU = "lru"
    NONE = "none"
    RAM = "ram"


@dataclass(frozen=True)
class NodeStart:
    """Told to `before_node` when a node is about to run."""

    prompt_id: str
    node_id: str
    class_type: str


@dataclass(frozen=True, kw_only=True)
class SimulatorConfig:
    """All that a simulated ComfyUI can be told.

    Unless told otherwise it manages VRAM the classical way, so its command line has --disable-dynamic-vram.

    Sizes in GB are 2^30 bytes; bandwidths are GB per second.
    """

    host: str = "127.0.0.1"
    port: int = 0
    """0 takes any free port."""
    version: str = "0.33.0"

    cache: CacheMode = CacheMode.RAM
    cache_lru: int = 0
    """Node results kept by the LRU cache."""
    cache_ram: tuple[float, ...] = ()
    """Thresholds of the RAM-pressure cache in GB, active then inactive; what is missing takes ComfyUI's default."""

    ram_gb: float = 64.0
    base_ram_gb: float = 4.0
    """RAM taken by the system, Python and torch before any model is loaded."""
    vram_gb: float = 24.0
    disk_gbps: float = 2.0
    pcie_gbps: float = 16.0
    page_cache_gbps: float | None = None
    """Bandwidth of files that the operating system still has in otherwise free RAM; None reads from disk each time."""
    step_seconds: float = 0.2
    """One sampling step for one image of a megapixel."""
    time_scale: float = 1.0
    """Simulated seconds per real second."""

    models: Mapping[str, Mapping[str, int]] = field(default_factory=lambda: DEFAULT_MODELS)
    """Model files: folder, name, size in bytes."""
    default_model_bytes: int = 1 * GB
    """Size of a file that a generic loader names but `models` does not."""
    object_info_file: Path | None = None
    """An answer of GET /object_info; its classes are accepted beside the built-in ones."""
    inspire_pack: bool = False
    """Whether ComfyUI-Inspire-Pack is installed: loaders that share a cache of their own."""

    output_directory: Path | None = None
    """Where saved files go, and stay when it ends; None is a folder that ends with it."""
    vram_mode: VramMode = VramMode.NORMAL
    dynamic_vram: bool = False
    """Weights are paged into VRAM on demand; see `paging.py`."""
    high_ram: bool = False
    """With dynamic VRAM, copies of weights stay in RAM even when it runs short."""
    fast_disk: bool = False
    """With dynamic VRAM, no copies of weights are made in RAM."""
    vram_headroom_gb: float = 0.0
    disable_smart_memory: bool = False
    reserve_vram_gb: float | None = None
    preview_method: str = "none"
    disable_metadata: bool = False
    cors_origin: str | None = None
    """The value of --enable-cors-header; None leaves the origin guard on."""
    compress: bool = False
    max_upload_mb: float = _MAX_UPLOAD_MB
    extra_flags: tuple[str, ...] = ()
    """Further command-line words, for `argv` in /system_stats only."""

    before_node: Callable[[NodeStart], Awaitable[None]] | None = None
    """Awaited before each node runs. What it raises, the node raises: faults and standstills for tests."""
    between_prompts: Callable[[], Awaitable[None]] | None = None
    """Awaited where ComfyUI collects garbage: requests have been carried out, the next prompt is not looked for yet."""

    def cache_ram_thresholds(self) -> tuple[float, float]:
        """Active and inactive threshold of the RAM-pressure cache in GB (ComfyUI main.py, prompt_worker)."""
        low, high = _ACTIVE_GB_RANGE
        active = min(high, max(low, self.ram_gb * _ACTIVE_SHARE_OF_RAM))
        inactive = min(_INACTIVE_GB_MAX, self.ram_gb)
        given = self.cache_ram
        return (given[0] if given else active, given[1] if len(given) > 1 else inactive)

    def argv(self, port: int) -> list[str]:
        """The command line as ComfyUI would report it in /system_stats."""
        words = ["main.py", "--listen", self.host, "--port", str(port)]
        words.append("--enable-dynamic-vram" if self.dynamic_vram else "--disable-dynamic-vram")
        words += self._cache_flags()
        switches = {
            str(self.vram_mode): self.vram_mode is not VramMode.NORMAL,
            "--fast-disk": self.fast_disk,
            "--disable-smart-memory": self.disable_smart_memory,
            "--disable-metadata": self.disable_metadata,
            "--enable-compress-response-body": self.compress,
        }
        words += [flag for flag, on in switches.items() if on]
        if self.reserve_vram_gb is not None:
            words += ["--reserve-vram", f"{self.reserve_vram_gb:g}"]
        if self.vram_headroom_gb:
            words += ["--vram-headroom", f"{self.vram_headroom_gb:g}"]
        if self.preview_method != "none":
            words += ["--preview-method", self.preview_method]
        if self.cors_origin is not None:
            words += ["--enable-cors-header", self.cors_origin]
        if self.output_directory is not None:
            words += ["--output-directory", str(self.output_directory)]
        if self.max_upload_mb != _MAX_UPLOAD_MB:
            words += ["--max-upload-size", f"{self.max_upload_mb:g}"]
        return [*words, *self.extra_flags]

    def _cache_flags(self) -> list[str]:
        match self.cache:
            case CacheMode.CLASSIC:
                return ["--high-ram" if self.high_ram else "--cache-classic"]
            case CacheMode.LRU:
                return ["--cache-lru", str(self.cache_lru)]
            case CacheMode.NONE:
                return ["--cache-none"]
            case CacheMode.RAM:
                return ["--cache-ram", *(f"{gb:g}" for gb in self.cache_ram)] if self.cache_ram else []
