"""The NVIDIA GPU that ComfyUI uses, by NVML: memory in all, and how much of it is ComfyUI's.

Everything here may be missing: the library, the driver, the right to see processes. Then NVML is simply no source, and
whoever asked goes on to ComfyUI's own word. Only one thing is an error that stops the start: several GPUs and no way to
tell which one is meant, because readings of the wrong GPU are worse than none.

Calls into NVML take up to some milliseconds and block: call them in a thread.
"""

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

from proxy.core.readings import ReadingFailed, VramReading
from proxy.errors import ConfigError

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as NVML names it; `memory` in bytes."""

    index: int
    uuid: str
    name: str
    memory: int

    def __str__(self) -> str:
        return f"{self.uuid} ({self.name}, {self.memory / 1024**3:.0f} GB, number {self.index})"


class Nvml:
    """An open NVML. `library` is the module pynvml, or something like it."""

    def __init__(self, library: Any) -> None:
        """Open it.

        Raises:
            ReadingFailed: there is no working driver.
        """
        self._library = library
        with self._failures():
            library.nvmlInit()

    @classmethod
    def load(cls) -> Self:
        """Open the installed library.

        Raises:
            ReadingFailed: there is none, or no working driver.
        """
        try:
            library = importlib.import_module("pynvml")
        except ImportError as error:
            raise ReadingFailed("nvidia-ml-py is not installed") from error
        return cls(library)

    def close(self) -> None:
        """Close it. May be called when the driver is gone."""
        try:
            self._library.nvmlShutdown()
        except self._library.NVMLError:
            return

    def gpus(self) -> tuple[Gpu, ...]:
        """All GPUs.

        Raises:
            ReadingFailed: NVML does not answer.
        """
        library = self._library
        with self._failures():
            handles = [library.nvmlDeviceGetHandleByIndex(index) for index in range(library.nvmlDeviceGetCount())]
            return tuple(
                Gpu(
                    index,
                    _text(library.nvmlDeviceGetUUID(handle)),
                    _text(library.nvmlDeviceGetName(handle)),
                    int(library.nvmlDeviceGetMemoryInfo(handle).total),
                )
                for index, handle in enumerate(handles)
            )

    def processes(self, gpu: Gpu) -> dict[int, int | None]:
        """Bytes that each process takes on a GPU, by process id; None where the driver does not tell (Windows).

        Raises:
            ReadingFailed: NVML does not answer.
        """
        with self._failures():
            handle = self._library.nvmlDeviceGetHandleByUUID(gpu.uuid)
            found = [
                *self._library.nvmlDeviceGetComputeRunningProcesses(handle),
                *self._library.nvmlDeviceGetGraphicsRunningProcesses(handle),
            ]
            return {int(each.pid): each.usedGpuMemory for each in found}

    def read(self, gpu: Gpu, pid: int | None) -> VramReading:
        """The memory of a GPU now; `pid` is ComfyUI's process, None where it is not known.

        Raises:
            ReadingFailed: NVML does not answer.
        """
        with self._failures():
            handle = self._library.nvmlDeviceGetHandleByUUID(gpu.uuid)
            memory = self._library.nvmlDeviceGetMemoryInfo(handle)
        mine = self.processes(gpu).get(pid) if pid is not None else None
        others = None if mine is None else max(0, int(memory.used) - mine)
        return VramReading(int(memory.total), int(memory.free), others)

    def choose(self, wanted: str, device_name: str, pid: int | None) -> Gpu:
        """Find the GPU that ComfyUI uses.

        Args:
            wanted: a UUID, or "auto".
            device_name: what ComfyUI calls its device ("cuda:0 NVIDIA GeForce RTX 4090 : cudaMallocAsync").
            pid: its process, None where it is not known.

        Raises:
            ConfigError: no GPU has that UUID, or it cannot be told which one is meant.
            ReadingFailed: NVML does not answer, or there is no GPU.
        """
        gpus = self.gpus()
        if not gpus:
            raise ReadingFailed("NVML knows no GPU")
        if wanted != AUTO:
            return _only([gpu for gpu in gpus if gpu.uuid == wanted], gpus, f"no GPU has the UUID {wanted!r}")
        if len(gpus) == 1:
            return gpus[0]
        running = [gpu for gpu in gpus if pid is not None and pid in self.processes(gpu)]
        if len(running) == 1:
            return running[0]
        return _only([gpu for gpu in gpus if gpu.name in device_name], gpus, "there are several GPUs")

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except self._library.NVMLError as error:
            raise ReadingFailed(f"NVML: {error}") from error


def _only(found: Sequence[Gpu], gpus: Sequence[Gpu], why: str) -> Gpu:
    if len(found) == 1:
        return found[0]
    listed = "\n".join(f"  {gpu}" for gpu in gpus)
    raise ConfigError(f"[upstream] gpu: {why}; set it to the UUID of the one that ComfyUI uses:\n{listed}")


def _text(value: str | bytes) -> str:
    """Older versions of the library answer in bytes."""
    return value.decode() if isinstance(value, bytes) else value
