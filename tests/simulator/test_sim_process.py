"""How the simulated process dies, what is lost with it, and what a new one finds."""

import asyncio
import json
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from simulator import CacheMode, NodeStart, Simulator, SimulatorConfig
from tests.simulator.support import Driver, image, messages, node, pinned, shown, simulated

LOADER = {"9": {"class_type": "FakeCheckpointLoader"}}
"""A node without inputs, wired to nothing."""
LOST_LINK = {"1": node("PreviewAny", source="x", junk=["77", 0])}
"""A link to a missing node, in an input that the class does not declare."""


async def dead(driver: Driver) -> None:
    """Wait until the worker is dead."""
    await asyncio.wait_for(driver.sim.process.ended.wait(), timeout=10)


@pytest.mark.parametrize("poison", [{**shown("x"), **LOADER}, LOST_LINK], ids=["no inputs", "lost link"])
async def test_a_poisoned_prompt_kills_the_worker_and_http_lives_on(poison: Any) -> None:
    async with simulated() as driver:
        await driver.submit(poison)
        await dead(driver)
        await driver.submit(shown("y"))
        assert not driver.sim.process.worker_alive
        assert (await driver.get("/prompt"))["exec_info"]["queue_remaining"] == 2
        with pytest.raises(RuntimeError, match="dead"):
            await driver.sim.idle()
        await driver.sim.restart()
        assert (await driver.get("/queue")) == {"queue_running": [], "queue_pending": []}
        assert (await driver.run(shown("z")))["status"]["completed"]


async def test_the_same_id_with_the_same_number_is_a_500_and_the_end_of_the_worker() -> None:
    started = asyncio.Event()
    go_on = asyncio.Event()

    async def hold(start: NodeStart) -> None:
        del start
        started.set()
        await go_on.wait()

    prompt_id = str(uuid.uuid4())
    async with simulated(before_node=hold) as driver:
        await driver.submit(shown("first"))
        await started.wait()
        await driver.submit(shown("a"), prompt_id=prompt_id, number=7)
        status, text = await driver.post("/prompt", {"prompt": shown("b"), "prompt_id": prompt_id, "number": 7})
        assert (status, text.splitlines()[0]) == (500, "500 Internal Server Error")
        await driver.submit(shown("in between"), number=6)
        assert len((await driver.get("/queue"))["queue_pending"]) == 3
        go_on.set()
        await dead(driver)


@pytest.mark.parametrize("client_id", [[], {}])
async def test_a_client_id_that_cannot_be_a_key_ends_the_process(client_id: Any) -> None:
    async with simulated() as driver:
        await driver.submit(shown("x"), client_id=client_id)
        await asyncio.wait_for(driver.sim.crashed.wait(), timeout=10)
        assert driver.sim.crash_reason is not None
        assert "unhashable" in driver.sim.crash_reason
        with pytest.raises(aiohttp.ClientError):
            await driver.get("/prompt")


async def test_a_crash_takes_queue_history_and_memory_but_not_files() -> None:
    async with simulated(cache=CacheMode.CLASSIC) as driver:
        saved = image("a")
        saved["6"] = node("SaveImage", images=["5", 0], filename_prefix="kept")
        entry = await driver.run({**saved, "7": node("PreviewImage", images=["5", 0])})
        (temporary,) = entry["outputs"]["7"]["images"]
        address = driver.sim.url
        async with driver.session.ws_connect(f"{address}/ws?clientId=c") as socket:
            await socket.receive()
            await driver.sim.crash("kill -9")
            assert (await socket.receive()).type in {aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR}
        assert driver.sim.crash_reason == "kill -9"
        with pytest.raises(aiohttp.ClientError):
            await driver.get("/prompt")
        await driver.sim.restart()
        assert driver.sim.url == address
        assert await driver.get("/history") == {}
        assert (driver.sim.directories.output / "kept_00001_.png").exists()
        assert not (driver.sim.directories.temp / temporary["filename"]).exists()
        assert driver.memory.residency() == {}
        await driver.run(image("a", seed=2))
        assert driver.files_read() == ["a", "a"]


async def test_a_crash_in_the_middle_of_a_prompt() -> None:
    """From within the node itself, as a fault would come."""

    async def die(start: NodeStart) -> None:
        if start.class_type == "KSampler":
            asyncio.get_running_loop().call_soon(crashing.set)
            await asyncio.Event().wait()

    crashing = asyncio.Event()
    async with simulated(before_node=die) as driver:
        await driver.submit(image("a"))
        await crashing.wait()
        await driver.sim.crash()
        await driver.sim.restart()
        assert await driver.get("/history") == {}


async def test_what_a_hook_raises_the_node_raises() -> None:
    async def fail(start: NodeStart) -> None:
        if start.class_type == "VAEDecode":
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    async with simulated(before_node=fail) as driver:
        error = messages(await driver.run(image("a")))["execution_error"]
        assert (error["node_id"], error["exception_type"]) == ("5", "RuntimeError")
        assert "illegal memory access" in error["exception_message"]


async def test_nothing_is_left_behind() -> None:
    async with Simulator() as sim:
        root = sim.directories.root
        assert root.is_dir()
    assert not root.exists()
    with pytest.raises(RuntimeError):
        _ = sim.process


async def test_two_at_a_time_do_not_meet() -> None:
    async with simulated() as one, simulated() as other:
        await one.run(image("a"))
        assert one.sim.url != other.sim.url
        assert other.sim.loads() == ()
        assert await other.get("/history") == {}


@asynccontextmanager
async def own_process(*flags: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """`python -m simulator` with its address."""
    words = (sys.executable, "-m", "simulator", "--port", "0", "--time-scale", "1000", *flags)
    process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        yield process, line.rsplit(" ", 1)[-1].strip()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def post(address: str, body: Any) -> None:
    async with aiohttp.ClientSession() as session, session.post(f"{address}/prompt", json=body) as answer:
        assert answer.status == 200


@pytest.mark.skipif(os.name == "nt", reason="no SIGTERM to handle")
async def test_in_a_process_of_its_own_it_stops_when_told() -> None:
    async with own_process("--cache-lru", "5", "--lowvram") as (process, address):
        async with aiohttp.ClientSession() as session, session.get(f"{address}/system_stats") as answer:
            argv = (await answer.json())["system"]["argv"]
        assert argv[0] == "main.py"
        assert argv[-3:] == ["--cache-lru", "5", "--lowvram"]
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0


async def test_in_a_process_of_its_own_it_really_dies(tmp_path: Path) -> None:
    async with own_process() as (process, address):
        await post(address, {"prompt": shown("x"), "client_id": []})
        assert await process.wait() == 1
    models = tmp_path / "models.json"
    models.write_text(json.dumps({"checkpoints": dict.fromkeys("abcd", 2**32)}))
    async with own_process("--ram", "8", "--models", str(models)) as (process, address):
        await post(address, {"prompt": pinned(image("a"), "b") | {"7": node("PreviewAny", source=["90", 0])}})
        assert await process.wait() == 137


def test_a_time_scale_must_be_positive() -> None:
    with pytest.raises(ValueError, match="time_scale"):
        Simulator(SimulatorConfig(time_scale=0))
