"""What ComfyUI says about itself and its machine: flags, version, memory, model files."""

from dataclasses import dataclass
from typing import Any

from proxy.core.budget import Machine
from proxy.core.flags import Platform, UpstreamFlags, parse_flags
from proxy.upstream.client import UpstreamClient


@dataclass(frozen=True, slots=True)
class SystemStats:
    """One reading of `/system_stats`. Memory in bytes."""

    version: str
    flags: UpstreamFlags
    machine: Machine
    device: str


class StatsReader:
    """Asks one ComfyUI."""

    def __init__(self, client: UpstreamClient) -> None:
        self._client = client

    async def read(self) -> SystemStats:
        """Read `/system_stats`.

        Raises:
            UpstreamError: when ComfyUI does not answer.
        """
        answer = await self._client.get_json("/system_stats")
        system: dict[str, Any] = answer["system"]
        device: dict[str, Any] = (answer.get("devices") or [{}])[0]
        version = str(system.get("comfyui_version", ""))
        platform = Platform(str(device.get("type", "cpu")), str(system.get("pytorch_version", "")))
        flags = parse_flags([str(word) for word in system.get("argv", [])], version, platform)
        ram = int(system.get("ram_total", 0))
        vram = int(device.get("vram_total", 0)) if device.get("type") not in {None, "cpu", "mps"} else 0
        return SystemStats(version, flags, Machine(ram, ram, vram), str(device.get("name", "")))

    async def read_sizes(self) -> dict[str, int]:
        """Bytes by file name over all model folders.

        Raises:
            UpstreamError: when ComfyUI does not answer.
        """
        sizes: dict[str, int] = {}
        for folder in await self._client.get_json("/experiment/models"):
            for item in await self._client.get_json(f"/experiment/models/{folder['name']}"):
                sizes[item["name"]] = item["size"]
        return sizes
