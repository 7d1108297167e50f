"""Which ComfyUI a command is told to front, and one that is told to front itself."""

import asyncio
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from proxy.cli import commands
from proxy.errors import ConfigError
from simulator import Simulator, SimulatorConfig
from tests.cli.serving_process import COMFYKEEP, write_config
from tests.contract.sockets import PATIENCE
from tests.engine.relay import Relay


def run(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "300"}).invoke(commands.app, arguments)


@pytest.mark.parametrize("command", ["serve", "check", "loaders"])
def test_an_address_that_is_none_is_refused(command: str) -> None:
    result = run(command, "--upstream", "127.0.0.1:8188")
    assert result.exit_code == 2
    assert "must look like http://127.0.0.1:8188" in result.output


@pytest.mark.parametrize("command", ["serve", "check"])
def test_nobody_is_told_to_front_himself(command: str) -> None:
    result = run(command, "--upstream", "http://localhost:8189")
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception).startswith("upstream.url is comfykeep's own address")


async def test_the_command_line_stands_above_the_file(tmp_path: Path) -> None:
    """Even where the file alone would make it front itself."""
    config = tmp_path / "proxy.toml"
    config.write_text(f'[proxy]\nlisten = "127.0.0.1:8188"\n[journal]\npath = "{tmp_path}/journal"\n')
    async with Simulator(SimulatorConfig()) as comfy:
        arguments = ("check", "--config", str(config), "--upstream", comfy.url)
        result = await asyncio.to_thread(run, *arguments)
    assert f"at {comfy.url}" in result.output


async def test_an_address_that_leads_back_is_found_out_at_the_start(tmp_path: Path) -> None:
    """No spelling shows it: here a forwarded port, elsewhere one of the machine's many addresses."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        listen = f"127.0.0.1:{free.getsockname()[1]}"
    async with Relay(f"http://{listen}").serving() as forwarded:
        write_config(tmp_path, forwarded.url, f'[proxy]\nlisten = "{listen}"\n')
        arguments = ("serve", "--config", str(tmp_path / "proxy.toml"))
        process = await asyncio.create_subprocess_exec(COMFYKEEP, *arguments, stderr=asyncio.subprocess.PIPE)
        async with asyncio.timeout(PATIENCE):
            _, said = await process.communicate()
    assert process.returncode == 1
    assert f"{forwarded.url} leads back to comfykeep itself, which listens on {listen}" in said.decode()
