"""What is served where there are no signals but Ctrl-C, no uvloop and no `fcntl`."""

import asyncio
import math
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from simulator import Simulator, SimulatorConfig
from tests.cli import windows_stand_in
from tests.cli.serving_process import Serving, serving
from tests.contract.client import Client
from tests.contract.sockets import PATIENCE
from tests.engine.stage import MODELS, encode

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the real one is there")

STAND_IN = (sys.executable, windows_stand_in.__file__)
FULL = '[proxy]\nlisten = "127.0.0.1:0"\nmode = "full"\n'


@asynccontextmanager
async def served(folder: Path, upstream: str) -> AsyncIterator[Serving]:
    async with serving(folder, upstream, FULL, command=STAND_IN) as proxy:
        yield proxy


async def test_a_queue_is_held_served_and_left(tmp_path: Path) -> None:
    settings = SimulatorConfig(models=MODELS, time_scale=math.inf)
    async with Simulator(settings) as comfy, served(tmp_path, comfy.url) as proxy:
        async with Client(proxy.url) as client, client.socket() as socket:
            answer = await client.submit(encode("a", "1"), socket.client_id)
            await socket.until_event("execution_success", prompt_id=answer["prompt_id"])
        proxy.signal(signal.SIGINT)  # Ctrl-C
        assert await proxy.ends() == 0
        assert not any("Traceback" in line for line in proxy.said)


async def test_one_journal_has_one_process(tmp_path: Path) -> None:
    async with served(tmp_path, "http://127.0.0.1:1") as first:
        arguments = ("serve", "--config", str(tmp_path / "proxy.toml"))
        second = await asyncio.create_subprocess_exec(*STAND_IN, *arguments, stderr=asyncio.subprocess.PIPE)
        async with asyncio.timeout(PATIENCE):
            _, said = await second.communicate()
    assert second.returncode == 1
    assert f"process {first.process.pid}, uses the journal" in said.decode()


@pytest.mark.parametrize("arguments", [["check"], ["mode", "--proxy", "http://127.0.0.1:1"], ["service", "install"]])
async def test_other_commands_end_without_tracebacks(arguments: list[str]) -> None:
    process = await asyncio.create_subprocess_exec(*STAND_IN, *arguments, stderr=asyncio.subprocess.PIPE)
    async with asyncio.timeout(PATIENCE):
        _, said = await process.communicate()
    assert process.returncode == 1
    assert "Traceback" not in said.decode()


async def test_the_simulator_is_stopped_with_ctrl_c(tmp_path: Path) -> None:
    arguments = ("simulate", "--port", "0", "--output-directory", str(tmp_path))
    process = await asyncio.create_subprocess_exec(
        *STAND_IN, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        while b"To see the GUI go to" not in await process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        _, said = await process.communicate()
    assert "Traceback" not in said.decode()
