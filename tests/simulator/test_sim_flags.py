"""ComfyUI's command line, read and reported."""

import pytest

from simulator import CacheMode, SimulatorConfig
from simulator.flags import parse


@pytest.mark.parametrize(
    ("words", "mode"),
    [
        ([], CacheMode.RAM),
        (["--cache-ram"], CacheMode.RAM),
        (["--cache-ram", "2", "4"], CacheMode.RAM),
        (["--cache-classic"], CacheMode.CLASSIC),
        (["--high-ram"], CacheMode.CLASSIC),
        (["--cache-lru", "7"], CacheMode.LRU),
        (["--cache-none"], CacheMode.NONE),
    ],
)
def test_cache_modes(words: list[str], mode: CacheMode) -> None:
    assert parse(words).cache is mode


def test_modes_exclude_each_other() -> None:
    with pytest.raises(SystemExit):
        parse(["--cache-classic", "--cache-none"])


@pytest.mark.parametrize(
    ("ram", "given", "expected"),
    [
        (64.0, (), (6.4, 64.0)),
        (8.0, (), (2.0, 8.0)),
        (512.0, (), (10.0, 128.0)),
        (64.0, (3.0,), (3.0, 64.0)),
        (64.0, (3.0, 5.0), (3.0, 5.0)),
    ],
)
def test_thresholds(ram: float, given: tuple[float, ...], expected: tuple[float, float]) -> None:
    assert SimulatorConfig(ram_gb=ram, cache_ram=given).cache_ram_thresholds() == pytest.approx(expected)


def test_what_was_asked_for_is_reported_in_comfyuis_words() -> None:
    words = ["--port", "9", "--cache-ram", "2", "4.5", "--highvram", "--reserve-vram", "1.5", "--enable-cors-header"]
    words += ["--preview-method", "auto", "--max-upload-size", "3", "--fast"]
    assert parse(words).argv(9) == [
        "main.py", "--listen", "127.0.0.1", "--port", "9", "--disable-dynamic-vram", "--cache-ram", "2", "4.5",
        "--highvram", "--reserve-vram", "1.5", "--preview-method", "auto", "--enable-cors-header", "*",
        "--max-upload-size", "3", "--fast",
    ]  # fmt: skip


def test_flags_of_the_simulated_machine_are_not_reported() -> None:
    config = parse(["--time-scale", "60", "--ram", "32", "--vram", "8", "--disk", "1.5", "--pcie", "10"])
    assert (config.time_scale, config.ram_gb, config.vram_gb, config.disk_gbps) == (60, 32, 8, 1.5)
    assert config.argv(1) == ["main.py", "--listen", "127.0.0.1", "--port", "1", "--disable-dynamic-vram"]


def test_a_flag_that_comfyui_has_not_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--prot", "8542"])
    assert "unknown flag --prot: did you mean --port?" in capsys.readouterr().err
