"""The simulated computer and what is installed on it: clock, memory, disk, model files, folders."""

import mimetypes
from collections.abc import Mapping, Sequence
from pathlib import Path

from .clock import Clock
from .config import GB, SimulatorConfig
from .ledger import DiskRead, Doer, Ledger, Transfer
from .memory import Killed, Memory, Move, Weights
from .paging import PagedMemory, PagedWeights
from .shared_cache import SharedCache

# ComfyUI folder_paths.py: the folders every installation has, in its order.
MODEL_FOLDERS = (
    "checkpoints", "configs", "loras", "vae", "text_encoders", "diffusion_models", "clip_vision", "style_models",
    "embeddings", "diffusers", "vae_approx", "controlnet", "gligen", "upscale_models", "latent_upscale_models",
    "custom_nodes", "datasets", "hypernetworks", "photomaker", "classifiers", "model_patches", "audio_encoders",
    "background_removal", "frame_interpolation", "geometry_estimation", "optical_flow", "detection",
)  # fmt: skip
_OPEN_SECONDS = 0.3
_LEGACY_NAMES = {"unet": "diffusion_models", "clip": "text_encoders"}


class Directories:
    """Folders of one simulated installation, below one root that the simulator owns; `output` may be elsewhere."""

    def __init__(self, root: Path, output: Path | None = None) -> None:
        self.root = root
        self.output = output or root / "output"
        self.input = root / "input"
        self.temp = root / "temp"
        self.user = root / "user"
        self.web = root / "web"

    def by_type(self, name: str) -> Path | None:
        """The folder that a client may name by its type (ComfyUI folder_paths.py, `get_directory_by_type`)."""
        return {"output": self.output, "temp": self.temp, "input": self.input}.get(name)

    def annotated(self, name: str) -> tuple[str, Path | None]:
        """Split `file.png [input]` into name and folder (ComfyUI folder_paths.py, `annotated_filepath`)."""
        for kind, folder in (("output", self.output), ("input", self.input), ("temp", self.temp)):
            suffix = f"[{kind}]"
            if name.endswith(suffix):
                return name[: -len(suffix) - 1], folder
        return name, None


class Machine:
    """One life of the simulated computer: its memories are empty when it is made.

    Args:
        config: how large and fast it is.
        clock: its time.
        ledger: where reads are written down.
        directories: its folders.
    """

    def __init__(self, config: SimulatorConfig, clock: Clock, ledger: Ledger, directories: Directories) -> None:
        self.config = config
        self.clock = clock
        self.ledger = ledger
        self.directories = directories
        self.memory = PagedMemory(config) if config.dynamic_vram else Memory(config)
        self.shared = SharedCache()
        self._pages: dict[tuple[str, int], int] = {}
        """What the page cache has: bytes by file and part of it, what was read last at the end."""

    def folders(self) -> list[str]:
        """Names of all model folders."""
        return list(dict.fromkeys((*MODEL_FOLDERS, *map(self._folder, self.config.models))))

    def files(self, folder: str) -> Mapping[str, int]:
        """Names and sizes of the files in a model folder, by name."""
        wanted = self._folder(folder)
        found = {
            name: size
            for each, files in self.config.models.items()
            if self._folder(each) == wanted
            for name, size in files.items()
        }
        return dict(sorted(found.items()))

    def size_of(self, folder: str | None, name: str) -> int:
        """Bytes of a file; without a folder all are searched; an unknown file has the default size."""
        folders = self.folders() if folder is None else [folder]
        for each in folders:
            if name in (files := self.files(each)):
                return files[name]
        return self.config.default_model_bytes

    def input_images(self) -> list[str]:
        """Images in the input folder, by name."""
        found = [path.name for path in self.directories.input.iterdir() if path.is_file()]
        return sorted(name for name in found if (mimetypes.guess_type(name)[0] or "").startswith("image/"))

    async def open(self) -> None:
        """Map a model file and build the model, with nothing read yet (dynamic VRAM)."""
        await self.clock.sleep(_OPEN_SECONDS)

    async def read(self, file: str, nbytes: int, doer: Doer) -> None:
        """Read a file into RAM: takes time, and is written down.

        Raises:
            Killed: it does not fit; the time until then has passed.
        """
        free = self.memory.ram_free
        if nbytes > free:
            await self.clock.sleep(self._seconds((file, 0), nbytes) * free / nbytes)
            raise Killed("out of memory: killed")
        await self._read(file, 0, nbytes, doer)
        self._shrink_pages(free - nbytes)

    async def _read(self, file: str, part: int, nbytes: int, doer: Doer) -> None:
        cached = self._in_page_cache((file, part), nbytes)
        seconds = self._seconds((file, part), nbytes)
        await self.clock.sleep(seconds)
        self.ledger.reads.append(DiskRead(file, nbytes, seconds, doer.prompt_id, doer.node_id, doer.class_type, cached))
        if self.config.page_cache_gbps is not None:
            self._pages[file, part] = max(nbytes, self._pages.pop((file, part), 0))
            self._shrink_pages(self.memory.ram_free)

    def _seconds(self, part: tuple[str, int], nbytes: int) -> float:
        speed = self.config.page_cache_gbps if self._in_page_cache(part, nbytes) else self.config.disk_gbps
        return nbytes / ((speed or self.config.disk_gbps) * GB)

    def in_page_cache(self, file: str) -> int:
        """Bytes of a file that the operating system still has."""
        self._shrink_pages(self.memory.ram_free)
        return sum(nbytes for (name, _), nbytes in self._pages.items() if name == file)

    def _in_page_cache(self, part: tuple[str, int], nbytes: int) -> bool:
        self._shrink_pages(self.memory.ram_free)
        return self._pages.get(part, 0) >= nbytes

    def _shrink_pages(self, room: int) -> None:
        """Files leave the page cache, those read first before the others, when processes need the RAM."""
        while self._pages and sum(self._pages.values()) > room:
            del self._pages[next(iter(self._pages))]

    async def moved(self, moves: Sequence[Move], doer: Doer) -> None:
        """Let the time of transfers, and of the reads that they need, pass and write them down."""
        for move in moves:
            if move.read_part is not None:
                await self._read(move.file, move.read_part, move.bytes, doer)
            seconds = abs(move.bytes) / (self.config.pcie_gbps * GB)
            await self.clock.sleep(seconds)
            self.ledger.transfers.append(Transfer(move.file, move.bytes, seconds, doer.prompt_id))

    async def compute(self, seconds: float, weights: Sequence[Weights], doer: Doer) -> None:
        """One pass over models: the computing, and what of them is not on the GPU is sent over for it."""
        for each in weights:
            if isinstance(each, PagedWeights) and (read := each.streamed_from_file):
                await self._read(each.file, each.part, read, doer)
                self.memory.keep_copy(each, read, doer.prompt_id)
            seconds += each.streamed / (self.config.pcie_gbps * GB)
        await self.clock.sleep(seconds)

    @staticmethod
    def _folder(name: str) -> str:
        return _LEGACY_NAMES.get(name, name)
