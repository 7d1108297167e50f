"""The systemd units: what is shipped is what is written, systemd takes them, and only our own are touched."""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path, PurePosixPath

import pytest
from typer.testing import CliRunner

from proxy.cli import commands, service
from proxy.cli.serving import ServeError
from proxy.cli.units import MARK, Unit
from proxy.config import load

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
COMMAND = PurePosixPath("/opt/comfykeep/.venv/bin/comfykeep")
SHIPPED = [
    Unit(COMMAND, PurePosixPath("/etc/comfykeep/proxy.toml")),
    Unit(COMMAND, PurePosixPath("/etc/comfykeep/%i.toml"), instances=True),
]
ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux's")


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    assert ANALYZE is not None
    return subprocess.run([ANALYZE, *arguments], capture_output=True, text=True, check=False)  # noqa: S603 - our words


def on_disk(unit: Unit, folder: Path) -> Path:
    """The unit with a command that exists, under the name of an instance if it is a template."""
    path = folder / unit.name.replace("@", "@gpu0")
    path.write_text(unit.text.replace(str(unit.command), "/bin/true"))
    return path


@pytest.mark.parametrize("unit", SHIPPED, ids=lambda unit: unit.name)
def test_the_shipped_files_are_what_the_command_writes(unit: Unit) -> None:
    assert (DEPLOY / unit.name).read_text() == unit.text


@needs_systemd
@pytest.mark.parametrize("unit", [*SHIPPED, Unit(COMMAND, PurePosixPath("/c.toml"), user=True)], ids=lambda u: u.name)
def test_systemd_takes_the_units(unit: Unit, tmp_path: Path) -> None:
    ended = analyze("verify", str(on_disk(unit, tmp_path)))
    assert (ended.returncode, ended.stderr) == (0, "")


@needs_systemd
@pytest.mark.parametrize("unit", SHIPPED, ids=lambda unit: unit.name)
def test_the_units_are_hardened(unit: Unit, tmp_path: Path) -> None:
    ended = analyze("security", "--offline=yes", "--no-pager", str(on_disk(unit, tmp_path)))
    if "unrecognized option" in ended.stderr:
        pytest.skip("this systemd-analyze judges running services only")
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", ended.stdout)
    assert exposure is not None, ended.stderr
    assert float(exposure[1]) < 3


@pytest.mark.parametrize("unit", SHIPPED, ids=lambda unit: unit.name)
def test_it_is_ordered_with_comfyui_but_does_not_depend_on_it(unit: Unit) -> None:
    assert re.search(r"^After=.*comfyui", unit.text, re.MULTILINE)
    assert not re.search(r"^(Requires|BindsTo|PartOf|Requisite)=", unit.text, re.MULTILINE)


def test_the_configuration_for_compose_is_valid() -> None:
    config = load(DEPLOY / "compose.toml")
    assert f"127.0.0.1:{config.proxy.port}:{config.proxy.port}" in (DEPLOY / "compose.yaml").read_text()
    assert f"EXPOSE {config.proxy.port}" in (DEPLOY / "Containerfile").read_text()
    assert "\n  comfyui:\n" in (DEPLOY / "compose.yaml").read_text()
    assert config.upstream.url.startswith("http://comfyui:")


def test_paths_are_words_of_systemd() -> None:
    odd = Unit(PurePosixPath("/opt/100% mine/comfykeep"), PurePosixPath('/etc/a "b"/$x/%i.toml'))
    assert r'ExecStart="/opt/100%% mine/comfykeep" serve --config "/etc/a \"b\"/$$x/%%i.toml"' in odd.text


@pytest.mark.parametrize(("home", "hidden"), [("/home/me/.venv/bin/comfykeep", False), ("/opt/bin/comfykeep", True)])
def test_homes_are_hidden_unless_it_lives_in_one(home: str, hidden: bool) -> None:
    text = Unit(PurePosixPath(home), PurePosixPath("/c")).text
    assert f"ProtectHome={'yes' if hidden else 'read-only'}\n" in text


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for units, and a systemctl that only writes down what it is asked."""
    folder = tmp_path / "bin"
    folder.mkdir()
    asked = tmp_path / "asked"
    (folder / "systemctl").write_text(f'#!/bin/sh\necho "$@" >> {asked}\n')
    (folder / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(service, "SYSTEM_UNITS", tmp_path / "units")
    return asked


def comfykeep(*arguments: str) -> str:
    result = CliRunner().invoke(commands.app, ["service", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def config_in(folder: Path) -> Path:
    path = folder / "proxy.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


@linux_only
@pytest.mark.parametrize("user", [True, False])
def test_installed_and_removed(user: bool, tmp_path: Path, systemctl: Path) -> None:
    flags = ["--user"] if user else []
    units = tmp_path / "config/systemd/user" if user else tmp_path / "units"
    config = config_in(tmp_path / "config/comfykeep" if user else tmp_path)
    said = comfykeep("install", *flags, *([] if user else ["--config", str(config)]))
    unit = units / "comfykeep.service"
    assert f"--config {config}" in unit.read_text()
    assert f"{' '.join(['systemctl', *flags])} enable --now comfykeep.service" in said
    comfykeep("install", *flags, "--config", str(config))  # once more, over its own
    comfykeep("uninstall", *flags)
    assert not unit.exists()
    prefix = "--user " if user else ""
    asked = systemctl.read_text().splitlines()
    ordered = ["daemon-reload"] * 2 + ["stop comfykeep.service", "disable comfykeep.service", "daemon-reload"]
    assert asked == [f"{prefix}{words}" for words in ordered]
    assert config.exists()


@linux_only
def test_a_template_for_several_gpus(tmp_path: Path, systemctl: Path) -> None:
    said = comfykeep("install", "--instances")
    assert "enable --now comfykeep@NAME.service" in said
    assert "/etc/comfykeep/%i.toml" in (tmp_path / "units/comfykeep@.service").read_text()
    comfykeep("uninstall", "--instances")
    assert "stop comfykeep@*.service" in systemctl.read_text()


def test_a_dry_run_writes_nothing(tmp_path: Path, systemctl: Path) -> None:
    shown = comfykeep("install", "--dry-run", "--config", "some.toml")
    assert MARK in shown
    assert f"--config {Path('some.toml').absolute()}" in shown
    assert not (tmp_path / "units").exists()
    assert not systemctl.exists()


@linux_only
def test_what_cannot_be_done_is_said_before_anything_is(tmp_path: Path, systemctl: Path) -> None:
    with pytest.raises(ServeError, match=r"There is no .*nowhere"):
        comfykeep("install", "--config", str(tmp_path / "nowhere"))
    with pytest.raises(ServeError, match="nothing to remove"):
        comfykeep("uninstall")
    with pytest.raises(ServeError, match="--config has no meaning"):
        comfykeep("install", "--instances", "--config", "x")
    stranger = tmp_path / "units/comfykeep.service"
    stranger.parent.mkdir()
    stranger.write_text("[Unit]\n")
    for arguments in (["install", "--config", str(config_in(tmp_path))], ["uninstall"]):
        with pytest.raises(ServeError, match="was not written by this command"):
            comfykeep(*arguments)
    assert stranger.read_text() == "[Unit]\n"
    assert not systemctl.exists()


@linux_only
def test_a_folder_that_a_service_cannot_enter_is_found() -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        folder = Path(name)
        program = folder / "bin" / "comfykeep"
        program.parent.mkdir()
        assert service.closed_folder(program) == folder
        folder.chmod(0o755)
        program.parent.chmod(0o755)
        assert service.closed_folder(program) is None


@linux_only
def test_a_dry_run_says_what_the_service_cannot_enter(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setattr(service, "_command", lambda: tmp_path / "comfykeep")
    service.install(dry_run=True)
    told = capsys.readouterr()
    assert told.out.startswith("# ")
    assert "which cannot enter" in told.err
    service.install(user=True, dry_run=True)
    assert capsys.readouterr().err == ""
