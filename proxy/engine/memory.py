"""Where the memory of one ComfyUI's machine is read: which process, which GPU, from the best source that answers.

NVML and the kernel tell more than ComfyUI does, but only of this machine. So they are asked where ComfyUI runs here, or
where the operator names the GPU; everywhere else, and whenever they fail, ComfyUI's own word counts. Whatever of this
blocks is done in a thread.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from urllib.parse import urlsplit

from proxy.core.budget import Machine
from proxy.core.evidence import MemoryRead
from proxy.core.readings import RamReading, ReadingFailed, VramReading
from proxy.errors import ConfigError, UpstreamError
from proxy.gpu import AUTO, Gpu, Nvml
from proxy.upstream.host import disk_bytes, find_process, is_local, read_ram, total_ram
from proxy.upstream.readings import Fallback, MemoryPoll, Source, Sourced
from proxy.upstream.stats import StatsReader, SystemStats

log = logging.getLogger(__name__)

_PORTS = {"http": 80, "https": 443}


class MemoryWatch:
    """Reads the memory of one ComfyUI's machine while `run` runs.

    `ram_limit` is in bytes, None for no such limit; `clock` gives monotonic seconds.
    """

    def __init__(
        self,
        url: str,
        reader: StatsReader,
        clock: Callable[[], float],
        *,
        gpu: str = AUTO,
        ram_limit: int | None = None,
        load_nvml: Callable[[], Nvml] = Nvml.load,
    ) -> None:
        self._url = url
        self.reader = reader
        self._clock = clock
        self._wanted = gpu
        self._ram_limit = ram_limit
        self._load_nvml = load_nvml
        self._nvml: Nvml | None = None
        self._here = False
        self._pid: int | None = None
        self._gpu: Gpu | None = None
        self._busy = False
        self._poll: MemoryPoll | None = None

    @property
    def ram(self) -> Sourced[RamReading] | None:
        """The last reading of the RAM; None before there was one."""
        return self._poll.ram.last if self._poll else None

    @property
    def vram(self) -> Sourced[VramReading] | None:
        """The last reading of the VRAM; None before there was one, and without a GPU."""
        return self._poll.vram.last if self._poll else None

    def close(self) -> None:
        """Let go of the driver."""
        if self._nvml is not None:
            self._nvml.close()
            self._nvml = None

    async def check_gpu(self) -> None:
        """Make sure that it can be told which GPU is meant; ComfyUI is asked only where there are several.

        Raises:
            ConfigError: no GPU has the configured UUID, or there are several and it does not show which one is used.
        """
        with suppress(ReadingFailed, UpstreamError):
            gpus = await asyncio.to_thread(lambda: self._opened().gpus())
            if self._wanted != AUTO:
                await asyncio.to_thread(self._opened().choose, self._wanted, "", None)
            elif len(gpus) > 1:
                await asyncio.to_thread(self._choose, await self.reader.read())

    async def settle(self, stats: SystemStats) -> Machine:
        """A ComfyUI has just answered: find its process and its GPU; the memory that it may use."""
        self._poll, self._gpu = None, None
        try:
            self._gpu = await asyncio.to_thread(self._choose, stats)
        except ReadingFailed as error:
            log.info("VRAM is read from ComfyUI (%s)", error)
        except ConfigError as error:
            log.error("VRAM is read from ComfyUI: %s", error)  # noqa: TRY400 - it says all
        machine = stats.machine
        if self._here:
            with suppress(ReadingFailed):
                ram = await self._read_ram()
                machine = replace(machine, ram=min(machine.ram, ram.total))
        return machine

    async def run(self, on_reading: Callable[[MemoryRead], None], *, has_gpu: bool) -> None:
        """Poll until cancelled."""
        ram = [Source("ComfyUI", self.reader.read_ram)]
        if self._here:
            ram.insert(0, Source("this machine", self._read_ram))
        vram = [Source("ComfyUI", self.reader.read_vram)] if has_gpu else []
        if has_gpu and self._gpu is not None:
            vram.insert(0, Source("NVML", self._read_vram))
        poll = self._poll = MemoryPoll(
            Fallback("RAM", ram, self._clock), Fallback("VRAM", vram, self._clock), on_reading
        )
        poll.set_busy(self._busy)
        await poll.run()

    def set_busy(self, busy: bool) -> None:
        """Prompts run, or no more."""
        self._busy = busy
        if self._poll is not None:
            self._poll.set_busy(busy)

    def disk_bytes(self) -> int | None:
        """What ComfyUI's process has read from storage so far; None where nobody counts it. Takes microseconds."""
        if self._pid is None:
            return None
        try:
            return disk_bytes(self._pid)
        except ReadingFailed:
            return None

    def _opened(self) -> Nvml:
        if self._nvml is None:
            self._nvml = self._load_nvml()
        return self._nvml

    def _choose(self, stats: SystemStats) -> Gpu | None:
        """Find process and GPU. None where there is no GPU of this machine to be read.

        Raises:
            ConfigError: it cannot be told which one is meant.
            ReadingFailed: NVML does not answer.
        """
        self._here = is_local(self._url) and _same_ram(stats)
        self._pid = self._process() if self._here else None
        if stats.vram is None or (self._wanted == AUTO and not self._here):
            return None
        return self._opened().choose(self._wanted, stats.device, self._pid)

    def _process(self) -> int | None:
        parts = urlsplit(self._url)
        return find_process(parts.port or _PORTS.get(parts.scheme, 80))

    async def _read_ram(self) -> RamReading:
        return await asyncio.to_thread(read_ram, self._pid, self._ram_limit)

    async def _read_vram(self) -> VramReading:
        if self._nvml is None or self._gpu is None:
            raise ReadingFailed("NVML is closed")
        return await asyncio.to_thread(self._nvml.read, self._gpu, self._pid)


def _same_ram(stats: SystemStats) -> bool:
    """Whether ComfyUI sees the RAM of this machine: behind a loopback address there may be a tunnel to another."""
    try:
        return total_ram() == stats.machine.host_ram
    except ReadingFailed:
        return True
