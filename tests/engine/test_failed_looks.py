"""Hazard: the queue stands still because one look at ComfyUI's own failed, and nothing happens there any more."""

import asyncio
from pathlib import Path

from proxy.core.mode import Mode
from tests.engine.relay import Asked, Fate, pass_all
from tests.engine.stage import encode, fresh_id, staged, until


async def test_a_failed_look_is_repeated(tmp_path: Path) -> None:
    async with staged(Mode.FULL, tmp_path) as stage:
        await stage.blocker(stage.direct)
        behind, ours = fresh_id(), fresh_id()
        stage.gate.shut(behind)
        await stage.direct.submit(encode("b", "theirs"), prompt_id=behind)
        held = stage.proxy.engine.held
        assert held is not None
        foreign = held.holding.scheduler.context.foreign
        await until(lambda: len(foreign) == 2, "strangers' prompts to be seen")
        await stage.client.submit(encode("c", "ours"), prompt_id=ours)
        failed = asyncio.Event()

        async def broken(asked: Asked) -> Fate:
            if not asked.is_("GET", "/queue"):
                return Fate.PASSED
            failed.set()
            return Fate.BROKEN

        stage.relay.script = broken
        stage.gate.open()
        await stage.comfy.idle()
        await failed.wait()
        stage.relay.script = pass_all
        assert [entry["status"]["status_str"] for entry in await stage.ended(ours)] == ["success"]
