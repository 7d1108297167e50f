"""Warm-ups that people ask for: an entry or a file, with progress, and how it went."""

import asyncio
import contextlib

import pytest

from tests.warmup.stage import Stage, entry, row, settle
from warmup.entries import Depth
from warmup.ports import WarmResult
from warmup.service import WarmupService
from warmup.state import Result


async def test_by_hand_with_progress(stage: Stage) -> None:
    stage.engine.hold = True
    async with stage.playing(entry("a", to="ram")) as service:
        asked = [asyncio.create_task(service.warm("a", Depth.VRAM)), asyncio.create_task(service.warm("a"))]
        await settle()
        assert row(service, "a").progress == 0.0
        assert stage.engine.progress is not None
        stage.engine.progress(0.5)
        assert (row(service, "a").status, row(service, "a").progress) == ("running", 0.5)
        stage.engine.running["a"].set_result(WarmResult(Result.WARMED, 2.0))
        outcomes = [await task for task in asked]
        assert outcomes[0] is outcomes[1], "asked twice at once, run once"
        assert len(stage.engine.ran) == 1
        assert "KSampler" not in str(stage.engine.ran[0].prompt)
        assert "VAEDecode" in str(stage.engine.ran[0].prompt), "the depth asked for, not the entry's own"
        assert row(service, "a").progress is None


async def test_the_same_warm_up_again_is_another_prompt(stage: Stage) -> None:
    async with stage.playing(entry("a")) as service:
        for _ in range(2):
            await service.warm("a")
            stage.engine.empty()
            await stage.clock.advance(1)
        first, second = (ran.prompt for ran in stage.engine.ran)
        assert first != second


async def test_by_hand_what_is_unknown(stage: Stage) -> None:
    async with stage.playing(entry("a")) as service:
        with pytest.raises(KeyError):
            await service.warm("b")
        outcome = await service.warm_file("nope.safetensors")
        assert outcome.result is Result.FAILED
        assert "nope.safetensors" in outcome.detail


async def test_a_file_by_hand(stage: Stage) -> None:
    stage.engine.hold = True
    async with stage.playing(entry("a")) as service:
        first = asyncio.create_task(service.warm_file("ae.safetensors", Depth.RAM))
        second = asyncio.create_task(service.warm_file("wan_vae.safetensors"))
        await settle()
        assert [row(service, name).status for name in ("ae.safetensors", "wan_vae.safetensors")] == [
            "running",
            "waiting",
        ]
        stage.engine.running["ae.safetensors"].set_result(WarmResult(Result.WARMED, 2.0))
        assert (await first).result is Result.WARMED
        await settle()
        stage.engine.running["wan_vae.safetensors"].set_result(WarmResult(Result.CANCELLED, 0.0, "taken back"))
        assert (await second).result is Result.CANCELLED
        assert [row.name for row in service.report().rows] == ["a"]


async def test_a_file_that_is_there_is_skipped_with_the_reason(stage: Stage) -> None:
    async with stage.playing(entry("a")) as service:
        await service.warm_file("ae.safetensors", Depth.RAM)
        again = await service.warm_file("ae.safetensors", Depth.RAM)
        assert (again.result, again.detail) == (Result.SKIPPED, "ae.safetensors already in RAM")
        assert len(stage.engine.ran) == 1


async def test_whoever_asks_may_leave(stage: Stage) -> None:
    stage.engine.hold = True
    async with stage.playing(entry("a")) as service:
        asked = asyncio.create_task(service.warm("a"))
        await settle()
        asked.cancel()
        await settle()
        stage.engine.running["a"].set_result(WarmResult(Result.WARMED, 2.0))
        await settle()
        last = row(service, "a").last
        assert last is not None
        assert last.result is Result.WARMED


async def test_without_a_schedule_there_is_still_by_hand(stage: Stage) -> None:
    service = WarmupService(None, stage.engine, stage.clock, stage.drawer)
    task = asyncio.create_task(service.run())
    outcome = await service.warm_file("ae.safetensors")
    assert outcome.result is Result.WARMED
    assert service.reload() == ()
    assert service.report().rows == ()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
