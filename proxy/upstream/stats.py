"""What ComfyUI says about itself and its machine: flags, version, memory, model files.

An answer may come from any version, or from something that only looks like ComfyUI; what is missing counts as not
there, and what is of the wrong kind as an upstream that does not answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from proxy.core.budget import Machine
from proxy.core.flags import Platform, UpstreamFlags, parse_flags
from proxy.core.readings import RamReading, ReadingFailed, VramReading
from proxy.errors import UpstreamError
from proxy.upstream.client import UpstreamClient

_STRANGE = (AttributeError, LookupError, TypeError, ValueError)
"""What reading an answer raises when it is of another shape."""
_AIMDO = "comfy-aimdo"
"""The package that dynamic VRAM needs."""


@dataclass(frozen=True, slots=True)
class SystemStats:
    """One reading of `/system_stats`. Memory in bytes; `vram` is None without a GPU."""

    version: str
    flags: UpstreamFlags
    machine: Machine
    device: str
    ram: RamReading
    vram: VramReading | None


class StatsReader:
    """Asks one ComfyUI. `ram_limit` is what it may use of its machine's RAM, None for all."""

    def __init__(self, client: UpstreamClient, ram_limit: int | None = None) -> None:
        self._client = client
        self._ram_limit = ram_limit

    async def read(self) -> SystemStats:
        """Read `/system_stats`.

        Raises:
            UpstreamError: when ComfyUI does not answer, or not as ComfyUI does.
        """
        answer = await self._client.get_json("/system_stats")
        try:
            return parse_stats(answer, self._ram_limit)
        except _STRANGE as error:
            raise self._strange("/system_stats") from error

    async def read_sizes(self) -> dict[str, int]:
        """Bytes by file name over all model folders; of files of one name in several, the largest.

        Raises:
            UpstreamError: when ComfyUI does not answer, or not as ComfyUI does.
        """
        sizes: dict[str, int] = {}
        path = "/experiment/models"
        try:
            for folder in await self._client.get_json(path):
                for item in await self._client.get_json(f"/experiment/models/{folder['name']}"):
                    sizes[item["name"]] = max(int(item["size"]), sizes.get(item["name"], 0))
        except _STRANGE as error:
            raise self._strange(path) from error
        return sizes

    async def read_ram(self) -> RamReading:
        """The RAM by ComfyUI's own word.

        Raises:
            UpstreamError: when ComfyUI does not answer.
        """
        return (await self.read()).ram

    async def read_vram(self) -> VramReading:
        """The VRAM by ComfyUI's own word.

        Raises:
            UpstreamError: when ComfyUI does not answer.
            ReadingFailed: it has no GPU.
        """
        vram = (await self.read()).vram
        if vram is None:
            raise ReadingFailed("ComfyUI has no GPU")
        return vram

    def _strange(self, path: str) -> UpstreamError:
        return UpstreamError(
            self._client.base_url,
            f"the answer to {path} is not ComfyUI's",
            "Check that the address is that of a ComfyUI.",
        )


def parse_stats(answer: Any, ram_limit: int | None) -> SystemStats:
    """Read an answer of `/system_stats` (ComfyUI server.py).

    Raises:
        AttributeError, LookupError, TypeError, ValueError: it is not such an answer.
    """
    system: Mapping[str, Any] = answer["system"]
    devices = answer.get("devices") or [{}]
    device: Mapping[str, Any] = devices[0]
    kind = str(device.get("type", "cpu"))
    version = str(system.get("comfyui_version", ""))
    platform = Platform(kind, str(system.get("pytorch_version", "")), aimdo_installed=_has_aimdo(system))
    flags = parse_flags([str(word) for word in system.get("argv", ())], version, platform)
    host_total, host_free = int(system.get("ram_total", 0)), int(system.get("ram_free", 0))
    total, free = host_total, host_free
    if ram_limit is not None and ram_limit < host_total:
        total, free = ram_limit, max(0, ram_limit - (host_total - host_free))
    vram = None
    if kind not in {"cpu", "mps"}:
        vram = VramReading(int(device["vram_total"]), int(device["vram_free"]))
    machine = Machine(total, host_total, vram.total if vram else 0)
    return SystemStats(version, flags, machine, str(device.get("name", "")), RamReading(total, free, host_free), vram)


def _has_aimdo(system: Mapping[str, Any]) -> bool:
    """Whether dynamic VRAM's package is there; a version that lists no packages says nothing against it."""
    packages = system.get("comfy_package_versions")
    if packages is None:
        return True
    return any(package.get("name") == _AIMDO and package.get("installed") for package in packages)
