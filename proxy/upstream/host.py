"""ComfyUI's process and memory limits, where it runs on this machine under Linux.

ComfyUI believes in the RAM of the host. In a container with less the kernel kills it long before its own thresholds
speak, so the limit of its control group counts. And nobody but the kernel knows how much it really read from disk.
All of it is read from /proc and /sys, without asking ComfyUI; elsewhere these sources simply fail.

Sources: man 5 proc; kernel Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
"""

import ipaddress
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from proxy.core.readings import RamReading, ReadingFailed

_ROOT = Path("/")
_LISTENING = "0A"
"""State of a listening socket in /proc/net/tcp."""


def is_local(url: str) -> bool:
    """Whether an address is this machine's own for certain."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def find_process(port: int, root: Path = _ROOT) -> int | None:
    """The id of the process that listens on a TCP port, None if there is none that we may look at."""
    sockets = {f"socket:[{inode}]" for inode in _listening(port, root)}
    if not sockets:
        return None
    for directory in (root / "proc").glob("[0-9]*"):
        try:
            links = {str(link.readlink()) for link in (directory / "fd").iterdir()}
        except OSError:
            continue
        if links & sockets:
            return int(directory.name)
    return None


def disk_bytes(pid: int, root: Path = _ROOT) -> int:
    """Bytes that a process has read from storage so far, page faults on mapped files included.

    Raises:
        ReadingFailed: it is gone, or not ours to look at.
    """
    fields = dict(line.split(": ", 1) for line in _read(root / f"proc/{pid}/io").splitlines())
    try:
        return int(fields["read_bytes"])
    except (KeyError, ValueError) as error:
        raise ReadingFailed(f"/proc/{pid}/io is not as expected") from error


def resident_bytes(url: str, root: Path = _ROOT) -> int | None:
    """Bytes that the process which listens at an address of this machine has resident; None where that is hidden."""
    if not is_local(url):
        return None
    try:
        pid = find_process(urlsplit(url).port or 80, root)
        if pid is None:
            return None
        for line in (root / "proc" / str(pid) / "status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, LookupError):
        return None
    return None


def total_ram(root: Path = _ROOT) -> int:
    """The RAM of this machine, as any program on it sees it.

    Raises:
        ReadingFailed: this is no Linux.
    """
    return _host_memory(root)[0]


def read_ram(pid: int | None, limit: int | None, root: Path = _ROOT) -> RamReading:
    """The RAM that ComfyUI may use: the least of host, control group and configured limit.

    Args:
        pid: its process; None counts only the limit of the container that we are in ourselves.
        limit: bytes as configured, None for no such limit.
        root: where proc and sys are.

    Raises:
        ReadingFailed: this is no Linux.
    """
    total, host_free = _host_memory(root)
    rooms = [(total, host_free), *_group_rooms(pid, root)]
    if limit is not None:
        rooms.append((limit, limit - (total - host_free)))
    return RamReading(min(room[0] for room in rooms), max(0, min(room[1] for room in rooms)), host_free)


def _host_memory(root: Path) -> tuple[int, int]:
    text = _read(root / "proc/meminfo")
    found = {
        name: int(value) * 1024
        for name, value in re.findall(r"^(MemTotal|MemAvailable):\s+(\d+) kB", text, re.MULTILINE)
    }
    try:
        return found["MemTotal"], found["MemAvailable"]
    except KeyError as error:
        raise ReadingFailed("/proc/meminfo is not as expected") from error


@dataclass(frozen=True, slots=True)
class _Controller:
    """Where one version of control groups keeps what about memory."""

    top: Path
    limits: tuple[str, ...]
    usage: str
    prefix: str


def _group_rooms(pid: int | None, root: Path) -> Iterator[tuple[int, int]]:
    """Limit, and what is left of it, of each control group around a process."""
    for controller, path in _groups(pid, root):
        parts = [part for part in path.split("/") if part not in {"", ".."}]
        for depth in range(len(parts) + 1):
            directory = controller.top.joinpath(*parts[:depth])
            try:
                usage = int((directory / controller.usage).read_text())
                stat = (directory / "memory.stat").read_text()
            except (OSError, ValueError):
                continue  # the root group, or one that we may not look at
            limit = min(_limits(directory, controller), default=None)
            if limit is None:
                continue
            # File pages are given back under pressure, as the kernel's own MemAvailable counts them.
            pages = re.findall(rf"^{controller.prefix}(?:in)?active_file (\d+)$", stat, re.MULTILINE)
            yield limit, limit - max(0, usage - sum(map(int, pages)))


def _limits(directory: Path, controller: _Controller) -> Iterator[int]:
    for name in controller.limits:
        with suppress(OSError, ValueError):  # "max" is no number
            yield int((directory / name).read_text())


def _groups(pid: int | None, root: Path) -> Iterator[tuple[_Controller, str]]:
    """The control group of a process by each version that the system has."""
    base = root / "sys/fs/cgroup"
    v1 = _Controller(base / "memory", ("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_")
    # Beyond "high" nobody is killed, but slowed down until hardly anything moves.
    v2 = _Controller(base, ("memory.max", "memory.high"), "memory.current", "")
    try:
        lines = ["0::/", "0:memory:/"] if pid is None else (root / f"proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield v2, path
        elif "memory" in controllers.split(","):
            yield v1, path


def _listening(port: int, root: Path) -> set[str]:
    """Inodes of the sockets that listen on a port."""
    found = set()
    for name in ("tcp", "tcp6"):
        try:
            lines = (root / "proc/net" / name).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if int(fields[1].rpartition(":")[2], 16) == port and fields[3] == _LISTENING:
                found.add(fields[9])
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise ReadingFailed(f"{path} cannot be read: {error}") from error
