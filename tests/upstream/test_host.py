import sys
from pathlib import Path

import pytest

from proxy.core.readings import RamReading, ReadingFailed
from proxy.upstream.host import disk_bytes, find_process, is_local, read_ram, resident_bytes

GB = 1024**3
HOST = RamReading(total=64 * GB, free=40 * GB, host_free=40 * GB)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A Linux machine with 64 GB of which 40 GB are available."""
    write(tmp_path, "proc/meminfo", f"MemTotal: {64 * 1024**2} kB\nMemFree: 1 kB\nMemAvailable: {40 * 1024**2} kB\n")
    return tmp_path


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def group_v2(root: Path, path: str, limit: str, used: int, files: int) -> None:
    write(root, f"sys/fs/cgroup/{path}/memory.max", f"{limit}\n")
    write(root, f"sys/fs/cgroup/{path}/memory.current", f"{used}\n")
    stat = f"anon 1\nactive_file {files // 2}\ninactive_file {files // 2}\nworkingset_refault_file 7\n"
    write(root, f"sys/fs/cgroup/{path}/memory.stat", stat)


def test_without_limits_it_is_the_host(machine: Path) -> None:
    assert read_ram(None, None, machine) == HOST
    assert read_ram(7, None, machine) == HOST


def test_the_limit_of_the_own_container_counts(machine: Path) -> None:
    group_v2(machine, ".", str(16 * GB), used=10 * GB, files=4 * GB)
    assert read_ram(None, None, machine) == RamReading(16 * GB, 10 * GB, 40 * GB)


def test_the_tightest_group_around_the_process_counts(machine: Path) -> None:
    write(machine, "proc/7/cgroup", "0::/system.slice/comfy.service\n")
    group_v2(machine, "system.slice", str(32 * GB), used=30 * GB, files=0)
    group_v2(machine, "system.slice/comfy.service", "max", used=4 * GB, files=0)
    assert read_ram(7, None, machine) == RamReading(32 * GB, 2 * GB, 40 * GB)


def test_version_1_of_control_groups(machine: Path) -> None:
    write(machine, "proc/7/cgroup", "5:cpu,cpuacct:/x\n4:memory:/docker/abc\n")
    base = "sys/fs/cgroup/memory/docker/abc"
    write(machine, f"{base}/memory.limit_in_bytes", str(8 * GB))
    write(machine, f"{base}/memory.usage_in_bytes", str(6 * GB))
    write(machine, f"{base}/memory.stat", f"inactive_file 9\ntotal_inactive_file {GB}\ntotal_active_file {GB}\n")
    assert read_ram(7, None, machine) == RamReading(8 * GB, 4 * GB, 40 * GB)


def group_v1(root: Path, path: str, limit: int, used: int, files: int = 0) -> None:
    write(root, f"sys/fs/cgroup/memory/{path}/memory.limit_in_bytes", f"{limit}\n")
    write(root, f"sys/fs/cgroup/memory/{path}/memory.usage_in_bytes", f"{used}\n")
    write(root, f"sys/fs/cgroup/memory/{path}/memory.stat", f"total_inactive_file {files}\ntotal_active_file 0\n")


UNLIMITED_V1 = 9223372036854771712


def test_version_1_without_a_limit_is_the_host(machine: Path) -> None:
    write(machine, "proc/7/cgroup", "4:memory:/user.slice\n")
    group_v1(machine, "user.slice", UNLIMITED_V1, used=9 * GB)
    assert read_ram(7, None, machine) == HOST


def test_in_a_container_the_group_of_version_1_stands_at_the_top(machine: Path) -> None:
    write(machine, "proc/7/cgroup", "4:memory:/docker/abc\n")
    group_v1(machine, ".", 12 * GB, used=10 * GB, files=GB)
    assert read_ram(7, None, machine) == RamReading(12 * GB, 3 * GB, 40 * GB)


def test_where_both_versions_are_there_the_tighter_counts(machine: Path) -> None:
    write(machine, "proc/7/cgroup", "4:memory:/a\n0::/b\n")
    group_v1(machine, "a", 12 * GB, used=2 * GB)
    group_v2(machine, "b", str(20 * GB), used=19 * GB, files=0)
    assert read_ram(7, None, machine) == RamReading(12 * GB, GB, 40 * GB)


@pytest.mark.parametrize(
    ("limits", "total", "free"),
    [
        (("max", "max", "max"), 64 * GB, 40 * GB),
        (("max", str(32 * GB), "max"), 32 * GB, 24 * GB),
        ((str(32 * GB), "max", str(16 * GB)), 16 * GB, 8 * GB),
        ((str(16 * GB), str(32 * GB), str(48 * GB)), 16 * GB, 8 * GB),
        ((str(100 * GB), "max", "max"), 64 * GB, 40 * GB),
    ],
)
def test_of_nested_groups_the_smallest_limit_counts_whatever_its_depth(
    machine: Path, limits: tuple[str, str, str], total: int, free: int
) -> None:
    write(machine, "proc/7/cgroup", "0::/one/two/three\n")
    for path, limit in zip(("one", "one/two", "one/two/three"), limits, strict=True):
        group_v2(machine, path, limit, used=8 * GB, files=0)
    assert read_ram(7, None, machine) == RamReading(total, free, 40 * GB)


def test_a_limit_that_only_slows_down_counts_as_one(machine: Path) -> None:
    write(machine, "proc/7/cgroup", "0::/comfy.service\n")
    group_v2(machine, "comfy.service", str(32 * GB), used=8 * GB, files=0)
    write(machine, "sys/fs/cgroup/comfy.service/memory.high", f"{24 * GB}\n")
    assert read_ram(7, None, machine) == RamReading(24 * GB, 16 * GB, 40 * GB)
    write(machine, "sys/fs/cgroup/comfy.service/memory.max", "max\n")
    assert read_ram(7, None, machine) == RamReading(24 * GB, 16 * GB, 40 * GB)


def test_groups_that_may_not_be_looked_at_leave_the_others(machine: Path) -> None:
    write(machine, "proc/7/cgroup", "0::/../../hidden/comfy.service\n")
    group_v2(machine, ".", str(48 * GB), used=GB, files=0)
    assert read_ram(7, None, machine) == RamReading(48 * GB, 40 * GB, 40 * GB)


@pytest.mark.parametrize(("configured", "total"), [(8, 8), (16, 16), (24, 16), (100, 16), (None, 16)])
def test_the_smallest_of_host_group_and_configuration_counts(machine: Path, configured: int | None, total: int) -> None:
    group_v2(machine, ".", str(16 * GB), used=GB, files=0)
    reading = read_ram(None, None if configured is None else configured * GB, machine)
    assert (reading.total, reading.host_free) == (total * GB, 40 * GB)


def test_the_configured_limit_counts_what_everybody_takes(machine: Path) -> None:
    assert read_ram(None, 32 * GB, machine) == RamReading(32 * GB, 8 * GB, 40 * GB)
    assert read_ram(None, 16 * GB, machine) == RamReading(16 * GB, 0, 40 * GB)


@pytest.mark.parametrize("text", ["", "MemTotal: 5 kB\n"])
def test_no_linux_is_no_source(tmp_path: Path, text: str) -> None:
    if text:
        write(tmp_path, "proc/meminfo", text)
    with pytest.raises(ReadingFailed):
        read_ram(None, None, tmp_path)


def test_the_process_is_found_by_its_port(machine: Path) -> None:
    head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    listening = "   0: 0100007F:1FFC 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1\n"
    connected = "   1: 0100007F:1FFD 0100007F:1FFC 01 00000000:00000000 00:00000000 00000000     0        0 4343 1\n"
    write(machine, "proc/net/tcp", head + listening + connected)
    for pid, inode in ((7, 4343), (8, 4242)):
        (machine / f"proc/{pid}/fd").mkdir(parents=True)
        (machine / f"proc/{pid}/fd/3").symlink_to(f"socket:[{inode}]")
    assert find_process(0x1FFC, machine) == 8
    assert find_process(0x1FFD, machine) is None
    assert find_process(1, machine) is None
    address = f"http://127.0.0.1:{0x1FFC}"
    assert resident_bytes(address, machine) is None
    write(machine, "proc/8/status", "Name:\tpython\nVmRSS:\t  2048 kB\nThreads:\t9\n")
    assert resident_bytes(address, machine) == 2 * 1024**2
    assert resident_bytes(f"http://192.0.2.1:{0x1FFC}", machine) is None


def test_disk_reads_are_those_of_the_storage(machine: Path) -> None:
    write(machine, "proc/7/io", "rchar: 999\nwchar: 1\nread_bytes: 4096\nwrite_bytes: 0\n")
    assert disk_bytes(7, machine) == 4096
    with pytest.raises(ReadingFailed):
        disk_bytes(8, machine)


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:8188", True),
        ("http://localhost:8188", True),
        ("http://[::1]:8188", True),
        ("http://192.168.1.5:8188", False),
        ("http://gpu.example:8188", False),
    ],
)
def test_local_addresses(url: str, local: bool) -> None:
    assert is_local(url) is local


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_this_machine() -> None:
    reading = read_ram(None, None)
    assert 0 < reading.free <= reading.total
