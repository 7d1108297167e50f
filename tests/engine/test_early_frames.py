"""Hazard: a client that comes back before the proxy knows the prompt that runs reads ids that it never sent."""

import asyncio
from pathlib import Path

import pytest

from proxy.core.mode import Mode
from tests.contract.sockets import Event
from tests.engine.relay import Asked, Fate
from tests.engine.stage import encode, fresh_id, staged


@pytest.mark.parametrize("mode", [Mode.PINS, Mode.FULL])
async def test_what_runs_over_a_restart_of_the_proxy_is_told_in_the_clients_ids(mode: Mode, tmp_path: Path) -> None:
    prompt_id, asked, may_know = fresh_id(), asyncio.Event(), asyncio.Event()
    prompt = encode("a", "x", "four six nine")

    async def slow(request: Asked) -> Fate:
        if request.is_("GET", "/queue"):
            asked.set()
            await may_know.wait()
        return Fate.PASSED

    async with staged(mode, tmp_path) as stage:
        stage.gate.shut(prompt_id)
        async with stage.client.socket("ann"):
            await stage.client.submit(prompt, "ann", prompt_id=prompt_id)
            await stage.gate.reached(prompt_id)
        await stage.kill()
        await stage.start(slow, wait=False)
        async with stage.client.socket("ann") as back:
            await asked.wait()
            assert [frame.kind for frame in back.frames if isinstance(frame, Event)] == ["status"]
            may_know.set()
            first = await back.until_event("executing")
            assert first.data["node"] in prompt
            stage.gate.open(prompt_id)
            frames = await back.until_done(prompt_id)
        nodes = {frame.data.get("node") for frame in frames if isinstance(frame, Event)} - {None}
        assert nodes <= prompt.keys()
