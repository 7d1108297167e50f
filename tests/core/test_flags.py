import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.flags import (
    GB,
    CacheMode,
    CacheThresholds,
    Overlap,
    Platform,
    UpstreamFlags,
    VramMode,
    first_threshold,
    parse_flags,
    parse_version,
)

NVIDIA = Platform("cuda", "2.9.0+cu128")
CPU = Platform("cpu", "2.9.0+cpu")


def flags(line: str = "", version: str = "0.33.0", platform: Platform = NVIDIA) -> UpstreamFlags:
    return parse_flags(["main.py", *line.split()], version, platform)


@pytest.mark.parametrize(
    ("version", "line", "mode"),
    [
        ("0.33.0", "", CacheMode.RAM_PRESSURE),
        ("0.23.0", "", CacheMode.RAM_PRESSURE),
        ("0.22.0", "", CacheMode.CLASSIC),
        ("0.3.64", "", CacheMode.CLASSIC),
        ("0.22.0", "--cache-ram", CacheMode.RAM_PRESSURE),
        ("0.22.0", "--cache-ram 0", CacheMode.CLASSIC),
        ("0.33.0", "--cache-ram 2 2", CacheMode.RAM_PRESSURE),
        ("0.33.0", "--cache-classic", CacheMode.CLASSIC),
        ("0.33.0", "--high-ram", CacheMode.CLASSIC),
        ("0.33.0", "--cache-lru 7", CacheMode.LRU),
        ("0.33.0", "--cache-lru=7", CacheMode.LRU),
        ("0.33.0", "--cache-lru 0", CacheMode.RAM_PRESSURE),
        ("0.3.64", "--cache-none", CacheMode.NONE),
        ("", "", CacheMode.RAM_PRESSURE),
    ],
)
def test_cache_mode_by_version(version: str, line: str, mode: CacheMode) -> None:
    assert flags(line, version).cache is mode


def test_lru_size_is_read() -> None:
    assert flags("--cache-lru 7").lru_size == 7


@pytest.mark.parametrize(
    ("version", "line", "ram", "expected"),
    [
        ("0.33.0", "", 64, (6.4, 64)),
        ("0.33.0", "", 8, (2, 8)),
        ("0.33.0", "", 512, (10, 128)),
        ("0.28.0", "", 512, (10, 96)),
        ("0.33.0", "--cache-ram 3", 64, (3, 64)),
        ("0.33.0", "--cache-ram 3 5", 64, (3, 5)),
        ("0.20.0", "--cache-ram", 64, (16, 16)),
        ("0.3.70", "--cache-ram", 64, (4, 4)),
        ("0.3.70", "--cache-ram 9", 64, (9, 9)),
    ],
)
def test_thresholds(version: str, line: str, ram: int, expected: tuple[float, float]) -> None:
    active, inactive = expected
    assert flags(line, version).thresholds(ram * GB) == CacheThresholds(int(active * GB), int(inactive * GB))


@pytest.mark.parametrize(
    ("line", "platform", "mode"),
    [
        ("", NVIDIA, VramMode.NORMAL),
        ("--lowvram", NVIDIA, VramMode.LOW),
        ("--novram", NVIDIA, VramMode.NONE),
        ("--highvram", NVIDIA, VramMode.HIGH),
        ("--gpu-only", NVIDIA, VramMode.GPU_ONLY),
        ("--cpu", NVIDIA, VramMode.CPU),
        ("", CPU, VramMode.CPU),
        ("--cpu-vae", NVIDIA, VramMode.NORMAL),
    ],
)
def test_vram_mode(line: str, platform: Platform, mode: VramMode) -> None:
    assert flags(line, platform=platform).vram is mode


@pytest.mark.parametrize(
    ("version", "line", "platform", "on"),
    [
        ("0.33.0", "", NVIDIA, True),
        ("0.15.1", "", NVIDIA, False),
        ("0.33.0", "--disable-dynamic-vram", NVIDIA, False),
        ("0.33.0", "--disable-smart-memory", NVIDIA, True),
        ("0.33.0", "--highvram", NVIDIA, False),
        ("0.33.0", "--novram", NVIDIA, False),
        ("0.33.0", "--highvram --enable-dynamic-vram", NVIDIA, True),
        ("0.33.0", "--cpu --enable-dynamic-vram", NVIDIA, False),
        ("0.33.0", "", Platform("cuda", "2.7.1+cu128"), False),
        ("0.33.0", "", Platform("cuda", "2.9.0+rocm6.4"), False),
        ("0.33.0", "", Platform("cuda", "2.11.0+rocm7.14"), True),
        ("0.33.0", "", Platform("mps", "2.9.0"), False),
        ("0.33.0", "", Platform("cuda", "2.9.0+cu128", aimdo_installed=False), False),
    ],
)
def test_dynamic_vram(version: str, line: str, platform: Platform, on: bool) -> None:
    assert flags(line, version, platform).dynamic_vram is on


def test_offloading_is_impossible_only_where_models_stay_in_vram() -> None:
    assert not flags("--highvram").can_offload
    assert not flags("--gpu-only").can_offload
    assert flags("--highvram --enable-dynamic-vram").can_offload
    assert flags("").can_offload


def test_weights_in_mapped_files_may_overlap() -> None:
    assert flags("").overlap is Overlap.NOTHING
    assert flags("--disable-dynamic-vram").overlap is Overlap.FIRST
    assert flags("--disable-dynamic-vram --cache-lru 9").overlap is Overlap.WHOLE
    assert flags("--disable-dynamic-vram --cache-classic").overlap is Overlap.NOTHING


def test_values_and_switches() -> None:
    parsed = flags(
        "--reserve-vram 1.5 --vram-headroom=2 --fast-disk --disable-smart-memory --max-upload-size 7 "
        "--enable-cors-header https://a.example"
    )
    assert (parsed.reserve_vram, parsed.vram_headroom, parsed.fast_disk) == (1.5, 2.0, True)
    assert (parsed.smart_memory, parsed.max_upload_mb, parsed.cors_origin) == (False, 7.0, "https://a.example")
    plain = flags()
    assert (plain.reserve_vram, plain.cors_origin, plain.max_upload_mb, plain.smart_memory) == (None, None, 100.0, True)
    assert flags("--enable-cors-header").cors_origin == "*"


def test_client_prompt_ids_by_version() -> None:
    assert flags(version="0.33.0").client_prompt_ids
    assert flags(version="").client_prompt_ids
    assert not flags(version="0.3.44").client_prompt_ids


@pytest.mark.parametrize(
    ("text", "version"),
    [("0.33.0", (0, 33, 0)), ("v0.3.64", (0, 3, 64)), ("0.9-rc1", (0, 9)), ("nightly", ()), ("", ())],
)
def test_versions(text: str, version: tuple[int, ...]) -> None:
    assert parse_version(text) == version


def test_description_names_what_matters() -> None:
    text = " ".join(flags("--cache-lru 9 --gpu-only --disable-smart-memory --reserve-vram 2").describe())
    for part in ("9 newest", "--gpu-only", "--disable-smart-memory", "2 GB"):
        assert part in text
    assert "Dynamic VRAM" in " ".join(flags().describe())


@given(
    st.lists(
        st.sampled_from(["--cache-ram", "--cache-lru", "--reserve-vram", "--cpu", "inf", "nan", "-1", "x", "=", "--="])
    ),
    st.text(),
    st.text(),
)
def test_never_raises(argv: list[str], version: str, torch: str) -> None:
    parsed = parse_flags(argv, version, Platform("cuda", torch))
    assert parsed.describe()
    assert parsed.thresholds(16 * GB).active <= parsed.thresholds(16 * GB).inactive or parsed.cache_ram


@given(st.integers(0, 2**45))
def test_first_threshold_is_within_its_bounds(ram: int) -> None:
    assert 2 * GB <= first_threshold(ram) <= 10 * GB
