"""The serving process and its signals: what it says to people, to systemd, to clients, and how it ends."""

import asyncio
import math
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from simulator import CacheMode, Simulator, SimulatorConfig
from tests.cli.serving_process import Serving, serving, write_config
from tests.contract.client import Client
from tests.engine.relay import Asked, Fate, Relay
from tests.engine.stage import MODELS, Gate, encode, fresh_id, until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no such signals")

FULL = '[proxy]\nlisten = "127.0.0.1:0"\nmode = "full"\n'


class Comfy:
    """A ComfyUI that holds prompts back at `gate`, behind a `relay`."""

    def __init__(self, simulated: Simulator, gate: Gate, relay: Relay) -> None:
        self.simulated = simulated
        self.gate = gate
        self.relay = relay

    async def blocked_with_waiting(self, client: Client, names: str) -> list[str]:
        """One prompt runs, the others wait behind it."""
        ids = [fresh_id() for _ in range(len(names) + 1)]
        self.gate.shut(ids[0])
        await client.submit(encode("a", "0"), prompt_id=ids[0])
        await self.gate.reached(ids[0])
        for name, prompt_id in zip(names, ids[1:], strict=True):
            await client.submit(encode(name, prompt_id), prompt_id=prompt_id)
        return ids

    def pending(self) -> list[str]:
        return [item[1] for item in sorted(self.simulated.process.queue.pending, key=lambda item: item[0])]


@pytest.fixture
async def comfy() -> AsyncIterator[Comfy]:
    gate = Gate()
    settings = SimulatorConfig(models=MODELS, time_scale=math.inf, before_node=gate)
    async with Simulator(settings) as simulated, Relay(simulated.url).serving() as relay:
        try:
            yield Comfy(simulated, gate, relay)
        finally:
            gate.open()


async def test_ready_alive_stopping_gone(comfy: Comfy, tmp_path: Path) -> None:
    async with serving(tmp_path, comfy.relay.url, FULL) as proxy:
        await proxy.tells("READY=1")
        await proxy.tells("WATCHDOG=1")
        async with Client(proxy.url) as client, connect(f"{proxy.url}/ws".replace("http", "ws")) as socket:
            ids = await comfy.blocked_with_waiting(client, "bc")
            proxy.signal(signal.SIGTERM)
            await proxy.tells("STOPPING=1")
            [_ async for _ in socket]
            assert socket.close_code == 1001
        assert await proxy.ends() == 0
        assert not any("Traceback" in line for line in proxy.said)
        assert comfy.pending() == [ids[1]]
    async with serving(tmp_path, comfy.relay.url, FULL) as proxy, Client(proxy.url) as client:
        await proxy.says("3 prompts are taken up from the journal")
        comfy.gate.open()
        for prompt_id in ids:
            await client.history(prompt_id)


async def test_not_ready_before_it_is_known_what_comfyui_has(comfy: Comfy, tmp_path: Path) -> None:
    looked, told = asyncio.Event(), asyncio.Event()

    async def slow(asked: Asked) -> Fate:
        if asked.is_("GET", "/queue"):
            looked.set()
            await told.wait()
        return Fate.PASSED

    comfy.relay.script = slow
    async with serving(tmp_path, comfy.relay.url, FULL) as proxy:
        await proxy.says("loader classes known")
        await looked.wait()
        for _ in range(20):  # turns in which it could be said
            await mode_of(proxy)
        assert "READY=1" not in proxy.told
        told.set()
        await proxy.tells("READY=1")


async def test_flushed_at_a_stop(comfy: Comfy, tmp_path: Path) -> None:
    async with serving(tmp_path, comfy.relay.url, FULL + '[service]\non_stop = "flush"\n') as proxy:
        async with Client(proxy.url) as client:
            ids = await comfy.blocked_with_waiting(client, "bcd")
        proxy.signal(signal.SIGINT)
        await proxy.says("2 prompts are handed to ComfyUI, 0 stay in the journal")
        assert await proxy.ends() == 0
        assert sorted(comfy.pending()) == sorted(ids[1:])


async def test_a_second_signal_hurries(comfy: Comfy, tmp_path: Path) -> None:
    async with serving(tmp_path, comfy.relay.url, FULL) as proxy, Client(proxy.url) as client:
        held = asyncio.Event()

        async def never(asked: Asked) -> Fate:
            if asked.is_("POST", "/prompt"):
                held.set()
                await asyncio.Event().wait()
            return Fate.PASSED

        comfy.relay.script = never
        early = asyncio.create_task(client.post("/prompt", {"prompt": encode("a", "1")}))
        await held.wait()
        proxy.signal(signal.SIGTERM)
        await proxy.says("stopping")
        late = await client.post("/prompt", {"prompt": encode("a", "2")})
        assert (late.status, "Retry-After" in late.headers) == (503, True)
        proxy.signal(signal.SIGTERM)
        await proxy.says("hurrying")
        assert await proxy.ends() == 0
        await asyncio.gather(early, return_exceptions=True)


async def test_a_reload_changes_what_it_can_and_names_the_rest(comfy: Comfy, tmp_path: Path) -> None:
    async with serving(tmp_path, comfy.relay.url, '[proxy]\nlisten = "127.0.0.1:0"\n') as proxy:
        await proxy.tells("READY=1")
        write_config(tmp_path, comfy.relay.url, '[proxy]\nlisten = "127.0.0.1:1"\nmode = "observe"\n')
        proxy.signal(signal.SIGHUP)
        await proxy.says("reloaded: changed proxy.mode")
        await proxy.says("only a restart brings it: proxy.listen")
        assert await mode_of(proxy) == "observe"
        write_config(tmp_path, comfy.relay.url, '[proxy]\nmode = "nonsense"\n')
        proxy.signal(signal.SIGHUP)
        await proxy.says("the configuration stays as it was: .*'nonsense'")
        assert await mode_of(proxy) == "observe"


async def test_a_reload_to_a_strategy_that_cannot_be_had_says_so(comfy: Comfy, tmp_path: Path) -> None:
    async with serving(tmp_path, comfy.relay.url, '[proxy]\nlisten = "127.0.0.1:0"\n') as proxy:
        await proxy.says("loader classes known")
        write_config(tmp_path, comfy.relay.url, '[proxy]\nlisten = "127.0.0.1:0"\n[normalizer]\nstrategy = "inspire"\n')
        proxy.signal(signal.SIGHUP)
        await proxy.says("reloaded: changed normalizer.strategy")
        await proxy.says("no shared loaders: models are pinned instead. Install ComfyUI-Inspire-Pack")


GROUP = '[proxy]\nlisten = "127.0.0.1:0"\n[[group]]\nname = "g"\nmodels = {models}\n'


async def test_a_group_of_nothing_is_said_at_a_start_and_a_reload_and_keeps_nobody_from_serving(
    comfy: Comfy, tmp_path: Path
) -> None:
    async with serving(tmp_path, comfy.relay.url, GROUP.format(models='["q*"]')) as proxy, Client(proxy.url) as client:
        await proxy.says(r"ERROR \[\[group\]\] 'g': models has 'q\*', .* the group is empty\. Correct the glob")
        await client.history((await client.submit(encode("a", "1")))["prompt_id"])
        write_config(tmp_path, comfy.relay.url, GROUP.format(models='["a.*", "b.safetensor"]'))
        proxy.signal(signal.SIGHUP)
        await proxy.says(r"WARNING \[\[group\]\] 'g': models has 'b.safetensor', .*; nearest: b.safetensors")


async def test_a_reload_says_that_the_configuration_has_not_changed_and_not_that_a_broken_schedule_has_not(
    comfy: Comfy, tmp_path: Path
) -> None:
    schedule = tmp_path / "warmup.toml"
    schedule.write_text("")
    write = f'[proxy]\nlisten = "127.0.0.1:0"\n[warmup]\nschedule = "{schedule}"\n'
    async with serving(tmp_path, comfy.relay.url, write) as proxy:
        await proxy.tells("READY=1")
        schedule.write_text("[[entry")
        proxy.signal(signal.SIGHUP)
        await proxy.says("warmup.toml: the schedule as it was before stays in force")
        await proxy.says("reloaded: nothing has changed in the configuration")


async def mode_of(proxy: Serving) -> str:
    async with Client(proxy.url) as client:
        mode: str = (await client.get_json("/comfykeep/mode"))["mode"]
        return mode


async def test_ready_without_a_comfyui(tmp_path: Path) -> None:
    async with serving(tmp_path, "http://127.0.0.1:1", FULL) as proxy:
        await proxy.tells("READY=1")
        await proxy.tells("STATUS=fronting http://127.0.0.1:1")
        proxy.signal(signal.SIGTERM)
        assert await proxy.ends() == 0


async def test_what_is_fronted_is_said_when_it_comes_and_when_it_has_changed(tmp_path: Path) -> None:
    async with Simulator(SimulatorConfig(models=MODELS)) as comfy:
        url = comfy.url
    port = int(url.rpartition(":")[2])
    async with serving(tmp_path, url, '[proxy]\nlisten = "127.0.0.1:0"\n') as proxy:
        await proxy.says("Start ComfyUI, or correct")
        async with Simulator(SimulatorConfig(models=MODELS, port=port)) as comfy:
            await proxy.says("ComfyUI .* at .*, on ")
            await comfy.restart()
            await proxy.says("ComfyUI at .* has gone")
            await proxy.says("ComfyUI answers again")
        async with Simulator(SimulatorConfig(models=MODELS, port=port, cache=CacheMode.NONE)):
            await proxy.says("--cache-none: .* Drop the flag")
    fronted = [line for line in proxy.said if re.search("ComfyUI .* at .*, on ", line)]
    assert len(fronted) == 2


async def test_a_journal_that_is_taken_is_said_with_a_remedy(comfy: Comfy, tmp_path: Path) -> None:
    async with serving(tmp_path, comfy.relay.url, FULL) as proxy:
        with pytest.raises(AssertionError) as caught:
            async with serving(tmp_path, comfy.relay.url, FULL):
                pass
        said = str(caught.value)
        assert "another comfykeep" in said
        assert str(proxy.process.pid) in said
        assert "Traceback" not in said


async def test_a_port_that_is_taken_is_said_with_a_remedy(comfy: Comfy, tmp_path: Path) -> None:
    async with serving(tmp_path, comfy.relay.url, '[proxy]\nlisten = "127.0.0.1:0"\n') as proxy:
        port = proxy.url.rpartition(":")[2]
        other = tmp_path / "other"
        other.mkdir()
        with pytest.raises(AssertionError, match="Cannot listen on"):
            async with serving(other, comfy.relay.url, f'[proxy]\nlisten = "127.0.0.1:{port}"\n'):
                pass
        await until(lambda: proxy.process.returncode is None, "the first one to live on")
