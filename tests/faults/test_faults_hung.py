"""ComfyUI or the proxy hangs: its sockets stay open and nothing answers. Nothing is lost or doubled by that."""

from pathlib import Path
from random import Random
from typing import Any

import pytest

from bench.chaos import suffer
from bench.victims import Side, Victims

pytestmark = pytest.mark.timeout(900)
"""As in the tests with kills."""


def is_stalled(status: Any) -> bool:
    return status["health"]["stalled_since"] is not None


def is_idle(queue: dict[str, list[Any]]) -> bool:
    return not queue["queue_running"] and not queue["queue_pending"]


async def comfyui_hangs(victims: Victims, _: Random) -> None:
    await victims.until("/queue", lambda queue: bool(queue["queue_running"]))
    victims.freeze(Side.COMFYUI)
    await victims.until("/comfykeep/status", is_stalled)
    victims.thaw(Side.COMFYUI)
    await victims.until("/comfykeep/status", lambda status: not is_stalled(status))


async def the_proxy_hangs(victims: Victims, _: Random) -> None:
    await victims.until("/queue", lambda queue: bool(queue["queue_running"]))
    victims.freeze(Side.PROXY)
    await victims.until("/queue", is_idle, Side.COMFYUI)
    victims.thaw(Side.PROXY)


async def test_a_comfyui_that_hangs_is_reported_and_goes_on_afterwards(tmp_path: Path) -> None:
    report = await suffer(tmp_path, 1, comfyui_hangs)
    assert report.faults == {}
    assert report.finished > 0
    log = (tmp_path / f"{Side.PROXY}.log").read_text()
    assert "nothing has started, ended or progressed" in log
    assert "has gone" not in log


async def test_a_proxy_that_hangs_goes_on_afterwards(tmp_path: Path) -> None:
    report = await suffer(tmp_path, 1, the_proxy_hangs)
    assert report.faults == {}
    assert report.finished > 0
