"""`comfykeep service`: writes the systemd unit that runs comfykeep, and takes it away again."""

import os
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated

import typer
from rich.console import Console

from proxy.cli.options import ConfigOption
from proxy.cli.serving import ServeError
from proxy.cli.units import MARK, Unit

app = typer.Typer(name="service", help="Run comfykeep as a systemd service.", no_args_is_help=True)

UserOption = Annotated[bool, typer.Option("--user", help="a service of this user, not of the system")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="only show what would be written, and where")]

SYSTEM_UNITS = Path("/etc/systemd/system")
_SYSTEM_CONFIG = Path("/etc/comfykeep")
_TIMEOUT = 60.0


@app.command()
def install(
    config: ConfigOption = None,
    user: UserOption = False,
    instances: Annotated[
        bool, typer.Option("--instances", help="a template, comfykeep@NAME.service, with a NAME.toml for each GPU")
    ] = False,
    dry_run: DryRunOption = False,
) -> None:
    """Write the unit. Nothing is started: the command that does it is printed."""
    if instances and config is not None:
        raise ServeError("With --instances each instance NAME reads NAME.toml from one place; --config has no meaning.")
    path = (
        (_config_folder(user=user) / "%i.toml") if instances else (config or _config_folder(user=user) / "proxy.toml")
    )
    unit = Unit(_posix(_command()), _posix(path), user=user, instances=instances)
    target = _units_folder(user=user) / unit.name
    if dry_run:
        print(f"# {target}\n{unit.text}", end="")  # noqa: T201 - the answer of a command
        if not user and (folder := closed_folder(_command())) is not None:
            Console(stderr=True, soft_wrap=True, highlight=False).print(
                f"note: the service runs as a user of its own, which cannot enter {folder}.", markup=False
            )
        return
    _need_systemd()
    if not instances and not path.exists():
        raise ServeError(f"There is no {path}. Copy proxy.toml there and change what differs, or name yours: --config.")
    _refuse_strangers(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(unit.text, encoding="utf-8")
    except OSError as error:
        raise ServeError(f"{target} cannot be written: {error}. {_RIGHTS}") from error
    _say(f"written: {target}")
    _systemctl("daemon-reload", user=user)
    if not user and _in_a_home(unit.command):
        _say(f"note: the service runs as a user of its own, which must be able to read {unit.command.parent.parent}.")
    name = "comfykeep@NAME.service" if instances else unit.name
    _say(f"start it, now and at each boot: {' '.join(_systemctl_command(user=user))} enable --now {name}")


@app.command()
def uninstall(
    user: UserOption = False,
    instances: Annotated[bool, typer.Option("--instances", help="the template comfykeep@.service")] = False,
    dry_run: DryRunOption = False,
) -> None:
    """Stop the service and remove its unit. Configuration and journal stay."""
    target = _units_folder(user=user) / ("comfykeep@.service" if instances else "comfykeep.service")
    if not target.exists():
        raise ServeError(f"There is no {target}, so there is nothing to remove.")
    _refuse_strangers(target)
    running = "comfykeep@*.service" if instances else target.name
    if dry_run:
        _say(f"would stop and disable {running} and remove {target}")
        return
    _need_systemd()
    _systemctl("stop", running, user=user)
    _systemctl("disable", target.name, user=user)
    try:
        target.unlink()
    except OSError as error:
        raise ServeError(f"{target} cannot be removed: {error}. {_RIGHTS}") from error
    _systemctl("daemon-reload", user=user)
    _say(f"removed: {target}")


_RIGHTS = "Run it with sudo, or install a service of your own: --user."


def _need_systemd() -> None:
    if sys.platform != "linux":
        raise ServeError("There is no systemd here. --dry-run shows the unit all the same.")


def _refuse_strangers(target: Path) -> None:
    """A unit that somebody else wrote, or has changed on purpose, is not ours to overwrite or remove."""
    if target.exists() and not target.read_text(encoding="utf-8", errors="replace").startswith(MARK):
        raise ServeError(f"{target} was not written by this command; move it away first.")


def _command() -> Path:
    """This program, as systemd can start it."""
    return Path(sys.executable).with_name("comfykeep")


def _config_folder(*, user: bool) -> Path:
    return _user_config() / "comfykeep" if user else _SYSTEM_CONFIG


def _units_folder(*, user: bool) -> Path:
    return _user_config() / "systemd" / "user" if user else SYSTEM_UNITS


def _user_config() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")


def _posix(path: Path) -> PurePosixPath:
    return PurePosixPath(path.expanduser().absolute().as_posix())


def closed_folder(path: Path) -> Path | None:
    """The first folder above `path` that others than its owner and group may not enter."""
    folders = (folder for folder in reversed(path.parents) if folder.is_dir())
    return next((folder for folder in folders if not folder.stat().st_mode & stat.S_IXOTH), None)


def _in_a_home(command: PurePosixPath) -> bool:
    return any(command.is_relative_to(home) for home in ("/home", "/root"))


def _systemctl_command(*, user: bool) -> Sequence[str]:
    return ("systemctl", "--user") if user else ("systemctl",)


def _systemctl(*arguments: str, user: bool) -> None:
    """Tell systemd; where that fails, say so and go on: what is written is right all the same."""
    command = [*_systemctl_command(user=user), *arguments]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=False)  # noqa: S603 - words of ours
    except (OSError, subprocess.TimeoutExpired) as error:
        _say(f"failed: {' '.join(command)}: {error}")
        return
    if ended.returncode:
        _say(f"failed: {' '.join(command)}: {ended.stderr.strip()}")


def _say(text: str) -> None:
    Console(soft_wrap=True, highlight=False).print(text, markup=False)
