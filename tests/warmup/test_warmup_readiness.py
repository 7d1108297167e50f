"""Readiness after a restart of ComfyUI, and what holds it back."""

from collections.abc import Callable

import pytest

from tests.warmup.stage import Engine, Stage, entry, settle
from warmup.ports import WarmResult
from warmup.state import Result


def tried(engine: Engine) -> None:
    engine.running["a"].set_result(WarmResult(Result.WARMED, 2.0))


def failed(engine: Engine) -> None:
    engine.running["a"].set_result(WarmResult(Result.FAILED, 2.0, "broken"))


@pytest.mark.parametrize("end", [tried, failed])
async def test_readiness_waits_for_upstream_start_entries(stage: Stage, end: Callable[[Engine], None]) -> None:
    stage.engine.hold = True
    schedule = entry("a", on=["upstream-start"]) + entry("b", on=["start"])
    async with stage.playing(schedule, gate_limit=300, gates_readiness=True) as service:
        tried_first = stage.engine.running["b"]
        tried_first.set_result(WarmResult(Result.FAILED, 1.0, "x"))
        await settle()
        assert service.ready()
        service.upstream_started()
        assert not service.ready()
        await settle()
        assert not service.ready()
        end(stage.engine)
        await settle()
        assert service.ready()


async def test_readiness_does_not_wait_for_ever(stage: Stage) -> None:
    stage.engine.hold = True
    async with stage.playing(entry("a", on=["upstream-start"]), gate_limit=300, gates_readiness=True) as service:
        service.upstream_started()
        await stage.clock.advance(299)
        assert not service.ready()
        await stage.clock.advance(1)
        assert service.ready()


async def test_readiness_is_not_gated_unless_asked_for(stage: Stage) -> None:
    stage.engine.hold = True
    async with stage.playing(entry("a", on=["upstream-start"])) as service:
        service.upstream_started()
        assert service.ready()
        assert not service.tried()


async def test_a_warm_up_that_kills_comfyui_does_not_hold_it_in_a_circle(stage: Stage) -> None:
    stage.engine.endings["a"] = WarmResult(Result.FAILED, 3.0, "ComfyUI ended")
    async with stage.playing(entry("a", on=["upstream-start"]), gate_limit=300, gates_readiness=True) as service:
        for _ in range(5):
            service.upstream_started()
            await stage.clock.advance(10)
        assert stage.engine.names == ["a"]
        assert service.ready()
