"""A queue that is cleared: all that waited is out, what comes meanwhile stays, and others have their turn."""

import asyncio
from pathlib import Path

import pytest

from proxy.core.mode import Mode
from proxy.engine import holding
from tests.engine.relay import Asked, Fate
from tests.engine.stage import encode, fresh_id, staged, until


async def test_what_is_submitted_while_a_clear_is_under_way_stays(tmp_path: Path) -> None:
    release = asyncio.Event()
    withheld: list[Asked] = []

    async def withhold_deletions(request: Asked) -> Fate:
        if request.is_("POST", "/queue") and foreign.encode() in request.body:
            withheld.append(request)
            await release.wait()
        return Fate.PASSED

    foreign = fresh_id()
    async with staged(Mode.FULL, tmp_path, script=withhold_deletions) as stage:
        running = await stage.blocker()
        await stage.client.submit(encode("b", "waits"), prompt_id=fresh_id())
        await stage.direct.submit(encode("c", "foreign"), prompt_id=foreign)
        await until(lambda: stage.proxy.engine._remaining() == 3, "the foreign prompt to be seen")
        clearing = asyncio.create_task(stage.post("/queue", {"clear": True}))
        await until(lambda: withheld, "the foreign prompt to be deleted")
        late = fresh_id()
        await stage.client.submit(encode("d", "late"), prompt_id=late)
        release.set()
        assert (await clearing).status == 200
        assert [[item[1] for item in items] for items in await stage.client.queue()] == [[running], [late]]
        stage.gate.open()
        await stage.ended(running, late)
        assert stage.gate.started == [running, late]


async def test_a_clear_without_comfyui_takes_out_what_is_here(tmp_path: Path) -> None:
    async with staged(Mode.FULL, tmp_path) as stage:
        running = await stage.blocker()
        ids = [fresh_id() for _ in range(4)]
        for prompt_id in ids:
            await stage.client.submit(encode("b", prompt_id), prompt_id=prompt_id)
        await stage.comfy.crash()
        await until(lambda: not stage.proxy.engine.feed.up, "the loss to be noticed")
        assert (await stage.post("/queue", {"clear": True})).status == 200
        assert [len(items) for items in await stage.client.queue()] == [0, 0]
        await stage.comfy.restart()
        again = fresh_id()
        stage.gate.open()
        await stage.client.submit(encode("b", "again"), prompt_id=again)
        await stage.ended(again)
        assert stage.gate.started == [running, again]


async def test_others_have_their_turn_while_very_much_is_taken_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holding, "_AT_ONCE", 2)
    async with staged(Mode.FULL, tmp_path) as stage:
        running = await stage.blocker()
        for number in range(10):
            await stage.client.submit(encode("b", str(number)))
        held = stage.proxy.engine.held
        assert held is not None
        left: list[int] = []

        async def look() -> None:
            while True:
                left.append(held.holding.remaining)
                await asyncio.sleep(0)

        looking = asyncio.create_task(look())
        await stage.post("/queue", {"clear": True})
        looking.cancel()
        assert len(set(left)) > 4
        assert [len(items) for items in await stage.client.queue()] == [1, 0]
        assert stage.gate.started == [running], "nothing was sent in place of what was taken out"


async def test_what_was_taken_out_is_not_in_the_journal(tmp_path: Path) -> None:
    async with staged(Mode.FULL, tmp_path) as stage:
        await stage.blocker()
        for number in range(5):
            await stage.client.submit(encode("b", str(number)))
        await stage.post("/queue", {"clear": True})
        await stage.stop()
        await stage.start()
        held = stage.proxy.engine.held
        assert held is not None
        await held.until_reconciled()
        assert [len(items) for items in await stage.client.queue()] == [1, 0]
        stage.gate.open()
