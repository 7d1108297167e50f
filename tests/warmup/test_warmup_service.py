"""The service on a stage: when it runs what, what it remembers, and what it tells."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from normalizer import ModelRef
from tests.warmup.stage import T0, Drawer, Engine, FakeClock, settle
from tests.warmup.test_warmup_smallest import TEXT_TO_IMAGE
from warmup.entries import Depth
from warmup.plan import Tier
from warmup.ports import WarmResult
from warmup.report import Row
from warmup.service import WarmupService
from warmup.state import Result

HOUR = 3600.0
AE = ModelRef("VAELoader", ("ae.safetensors",))


def entry(name: str, file: str = "ae.safetensors", **keys: Any) -> str:
    lines = [f'name = "{name}"', 'loader = "VAELoader"', f'inputs.vae_name = "{file}"']
    return "\n".join(["[[entry]]", *lines, *(f"{key} = {json.dumps(value)}" for key, value in keys.items())]) + "\n"


class Stage:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "warmup.toml"
        self.clock = FakeClock()
        self.engine = Engine()
        self.drawer = Drawer()
        self.writes = 0

    def write(self, text: str) -> None:
        self.path.write_text(text)
        self.writes += 1
        os.utime(self.path, (T0 + self.writes, T0 + self.writes))

    @asynccontextmanager
    async def playing(self, text: str | None = None, **options: Any) -> AsyncIterator[WarmupService]:
        if text is not None:
            self.write(text)
        service = WarmupService(self.path, self.engine, self.clock, self.drawer, **options)
        task = asyncio.create_task(service.run())
        await settle()
        try:
            yield service
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def row(service: WarmupService, name: str) -> Row:
    [found] = [row for row in service.report().rows if row.name == name]
    return found


async def test_start_entries_run_at_start_in_order_of_priority(stage: Stage) -> None:
    text = (
        entry("a", on=["start"])
        + entry("b", "wan_vae.safetensors", on=["start"], priority=5, timeout="30s")
        + entry("c", cron="0 8 * * *")
    )
    async with stage.playing(text) as service:
        assert stage.engine.names == ["b", "a"]
        assert (stage.engine.ran[0].priority, stage.engine.ran[0].time_limit) == (5, 30.0)
        last = row(service, "a").last
        assert last is not None
        assert (last.result, last.seconds, last.at, last.detail) == (Result.WARMED, 1.5, T0, "ae.safetensors")
        assert row(service, "c").last is None


async def test_what_is_hot_is_skipped_but_kept(stage: Stage) -> None:
    stage.engine.tiers[AE] = Tier.HOT
    async with stage.playing(entry("a", on=["start"], keep="2h")) as service:
        assert stage.engine.ran == []
        assert stage.engine.kept == [(frozenset({AE}), 7200.0)]
        last = row(service, "a").last
        assert last is not None
        assert (last.result, last.detail) == (Result.SKIPPED, "ae.safetensors already in VRAM")


async def test_nothing_runs_before_comfyui_answers(stage: Stage) -> None:
    around, stage.engine.around = stage.engine.around, None
    async with stage.playing(entry("a", on=["start"])) as service:
        await stage.clock.advance(60)
        assert stage.engine.ran == []
        assert (row(service, "a").status, row(service, "a").reason) == ("waiting", "ComfyUI does not answer yet")
        stage.engine.around = around
        service.poke()
        await settle()
        assert stage.engine.names == ["a"]


async def test_cron_times_run_when_they_come_and_once_after_a_sleep(stage: Stage) -> None:
    async with stage.playing(entry("a", cron="0 * * * *")) as service:
        await stage.clock.advance(HOUR - 1)
        assert stage.engine.ran == []
        assert row(service, "a").next_at == T0 + HOUR
        await stage.clock.advance(2)
        assert stage.engine.names == ["a"]
        stage.engine.empty()
        await stage.clock.jump(10 * HOUR)
        assert stage.engine.names == ["a", "a"]


async def test_a_time_missed_while_the_proxy_was_down_is_made_up_for(stage: Stage) -> None:
    async with stage.playing(entry("a", cron="0 * * * *")):
        await stage.clock.advance(60)
    stage.clock.time += 5 * HOUR
    async with stage.playing():
        assert stage.engine.names == ["a"]
    async with stage.playing():
        await stage.clock.advance(60)
        assert stage.engine.names == ["a"]


async def test_a_damaged_state_costs_no_more_than_missed_times(stage: Stage) -> None:
    stage.drawer.text = "{"
    async with stage.playing(entry("a", cron="0 * * * *")):
        await stage.clock.advance(HOUR)
        assert stage.engine.names == ["a"]


async def test_triggers_at_once_run_it_once(stage: Stage) -> None:
    async with stage.playing(entry("a", on=["upstream-start", "evicted"], cron="0 * * * *")) as service:
        await stage.clock.advance(HOUR - 1)
        service.upstream_started()
        service.evicted(frozenset({AE}))
        stage.clock.time += 1
        await settle()
        assert stage.engine.names == ["a"]
        last = row(service, "a").last
        assert last is not None
        assert set(last.triggers) == {"upstream-start", "evicted", "cron"}


async def test_an_eviction_runs_only_what_it_concerns(stage: Stage) -> None:
    text = entry("a", on=["evicted"]) + entry("b", "wan_vae.safetensors", on=["evicted"]) + entry("c")
    async with stage.playing(text) as service:
        service.evicted(frozenset({AE}))
        await settle()
        assert stage.engine.names == ["a"]
        service.evicted(frozenset({AE}))
        await settle()
        assert stage.engine.names == ["a"], "it is hot again, so the news was old"


async def test_an_eviction_into_ram_leaves_ram_entries_alone(stage: Stage) -> None:
    async with stage.playing(entry("a", on=["evicted"], to="ram")) as service:
        stage.engine.tiers[AE] = Tier.WARM
        service.evicted(frozenset({AE}))
        await settle()
        assert row(service, "a").last is None


async def test_idle_entries_run_once_in_each_idle_time(stage: Stage) -> None:
    async with stage.playing(entry("a", on=["idle"]), idle_after=60) as service:
        for idle, runs in ((None, 0), (10.0, 0), (60.0, 1), (600.0, 1), (5.0, 1), (70.0, 2), (None, 2), (61.0, 3)):
            stage.engine.idle = idle
            stage.engine.empty()
            service.poke()
            await settle()
            assert len(stage.engine.ran) == runs, idle


async def test_only_when_idle_waits_for_clients(stage: Stage) -> None:
    stage.engine.idle = None
    text = entry("a", on=["start"], only_when_idle=True) + entry("b", "wan_vae.safetensors", on=["start"])
    async with stage.playing(text) as service:
        assert stage.engine.names == ["b"]
        assert row(service, "a").status == "waiting"
        assert "only_when_idle" in row(service, "a").reason
        await stage.clock.advance(60)
        stage.engine.idle = 0.0
        await stage.clock.advance(5)
        assert stage.engine.names == ["b", "a"]


async def test_a_failing_entry_backs_off_says_why_and_stops_nobody(stage: Stage) -> None:
    stage.engine.endings["bad"] = WarmResult(Result.FAILED, 0.5, "node 3: out of memory")
    text = entry("bad", on=["start"], keep="1h") + entry("good", "wan_vae.safetensors", on=["start"])
    async with stage.playing(text) as service:
        assert stage.engine.names == ["bad", "good"]
        assert stage.engine.kept == []
        found = row(service, "bad")
        assert found.status == "backing off"
        assert "tried again in 60 s" in found.reason
        assert "out of memory" in found.reason
        assert found.next_at == T0 + 60
        await stage.clock.advance(61)
        assert stage.engine.names == ["bad", "good", "bad"]
        del stage.engine.endings["bad"]
        await stage.clock.advance(121)
        assert row(service, "bad").status == "idle"


async def test_an_entry_that_cannot_be_prepared_fails_with_the_reason(stage: Stage) -> None:
    async with stage.playing(
        '[[entry]]\nname = "a"\nloader = "Nope"\non = ["start"]\n' + entry("b", on=["start"])
    ) as service:
        last = row(service, "a").last
        assert last is not None
        assert last.result is Result.FAILED
        assert "no class 'Nope'" in last.detail
        assert stage.engine.names == ["b"]


async def test_steps_share_one_time_limit_and_end_at_the_first_failure(stage: Stage) -> None:
    (stage.path.parent / "two.json").write_text(
        json.dumps(
            {**TEXT_TO_IMAGE, "20": {"class_type": "VAELoader", "inputs": {"vae_name": "ae.safetensors"}}}
            | {"21": {"class_type": "PreviewAny", "inputs": {"source": ["20", 0]}}}
        )
    )
    text = '[[entry]]\nname = "two"\nprompt = "two.json"\nto = "ram"\ntimeout = 10\n'
    stage.engine.endings["two"] = WarmResult(Result.WARMED, 4.0)
    async with stage.playing(text) as service:
        outcome = await service.warm("two")
        assert [ran.time_limit for ran in stage.engine.ran] == [10.0, 6.0]
        assert (outcome.result, outcome.seconds) == (Result.WARMED, 8.0)
        for ending, result in (
            (WarmResult(Result.WARMED, 10.0), Result.TIMED_OUT),
            (WarmResult(Result.FAILED, 1.0, "broken"), Result.FAILED),
        ):
            stage.engine.empty()
            stage.engine.ran.clear()
            stage.engine.endings["two"] = ending
            outcome = await service.warm("two")
            assert (outcome.result, len(stage.engine.ran)) == (result, 1)


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


async def test_stopping_takes_the_prompt_back_and_leaves_nobody_waiting(stage: Stage) -> None:
    stage.engine.hold = True
    async with stage.playing(entry("a")) as service:
        asked = [asyncio.create_task(service.warm("a")), asyncio.create_task(service.warm_file("wan_vae.safetensors"))]
        await settle()
    assert stage.engine.taken_back == 1
    await asyncio.wait(asked)
    assert all(task.cancelled() for task in asked)


async def test_a_cron_run_that_was_cut_off_is_run_after_the_restart(stage: Stage) -> None:
    stage.engine.hold = True
    async with stage.playing(entry("a", cron="0 * * * *")):
        await stage.clock.advance(HOUR)
        assert stage.engine.names == ["a"]
    stage.engine.hold = False
    async with stage.playing():
        assert stage.engine.names == ["a", "a"]


async def test_a_changed_file_is_read_again(stage: Stage) -> None:
    async with stage.playing(entry("a")) as service:
        stage.write(entry("a") + entry("b"))
        await stage.clock.advance(5)
        assert [row.name for row in service.report().rows] == ["a", "b"]


@pytest.mark.parametrize("broken", ["[[entry", entry("b", cron="never"), entry("a") + entry("a"), None])
async def test_a_broken_new_file_leaves_the_old_one_in_force(stage: Stage, broken: str | None) -> None:
    async with stage.playing(entry("a", cron="0 * * * *")) as service:
        if broken is None:
            stage.path.unlink()
        else:
            stage.write(broken)
        await stage.clock.advance(10)
        report = service.report()
        assert [row.name for row in report.rows] == ["a"]
        assert report.rejected
        assert report.faults == ()
        await stage.clock.advance(HOUR)
        assert stage.engine.names == ["a"]
        stage.write(entry("c"))
        await stage.clock.advance(5)
        report = service.report()
        assert ([row.name for row in report.rows], report.rejected) == (["c"], ())


async def test_an_entry_that_was_broken_from_the_start_does_not_block_changes(stage: Stage) -> None:
    async with stage.playing(entry("bad", cron="never") + entry("a")) as service:
        assert (row(service, "bad").status, row(service, "a").status) == ("out", "idle")
        assert "bad" in row(service, "bad").reason
        stage.write(entry("bad", cron="never") + entry("a") + entry("b"))
        assert service.reload() == ()
        assert [row.name for row in service.report().rows] == ["a", "b", "bad"]


async def test_a_changed_workflow_is_read_again(stage: Stage) -> None:
    file = stage.path.parent / "w.json"
    file.write_text(json.dumps(TEXT_TO_IMAGE))
    async with stage.playing('[[entry]]\nname = "a"\nprompt = "w.json"\n') as service:
        await service.warm("a")
        stage.engine.empty()
        file.write_text(json.dumps(TEXT_TO_IMAGE).replace("flux.safetensors", "sd15.safetensors"))
        await stage.clock.advance(5)
        await service.warm("a")
        assert [ran.files[0] for ran in stage.engine.ran] == ["flux.safetensors", "sd15.safetensors"]


async def test_an_entry_that_is_taken_off_the_schedule_while_somebody_waits_for_it(stage: Stage) -> None:
    stage.engine.around = None
    async with stage.playing(entry("a")) as service:
        asked = asyncio.create_task(service.warm("a"))
        await settle()
        stage.write(entry("b"))
        service.reload()
        assert (await asked).result is Result.CANCELLED


async def test_an_entry_that_is_taken_off_the_schedule_while_it_runs(stage: Stage) -> None:
    stage.engine.hold = True
    async with stage.playing(entry("a", on=["start"])) as service:
        stage.write(entry("b", on=["start"]))
        service.reload()
        stage.engine.running["a"].set_result(WarmResult(Result.WARMED, 2.0))
        await settle()
        assert [row.name for row in service.report().rows] == ["b"]


def tried(engine: Engine) -> None:
    engine.running["a"].set_result(WarmResult(Result.WARMED, 2.0))


def failed(engine: Engine) -> None:
    engine.running["a"].set_result(WarmResult(Result.FAILED, 2.0, "broken"))


@pytest.mark.parametrize("end", [tried, failed])
async def test_readiness_waits_for_upstream_start_entries(stage: Stage, end: Callable[[Engine], None]) -> None:
    stage.engine.hold = True
    async with stage.playing(entry("a", on=["upstream-start"]) + entry("b", on=["start"]), gate_limit=300) as service:
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
    async with stage.playing(entry("a", on=["upstream-start"]), gate_limit=300) as service:
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


async def test_a_warm_up_that_kills_comfyui_does_not_hold_it_in_a_circle(stage: Stage) -> None:
    stage.engine.endings["a"] = WarmResult(Result.FAILED, 3.0, "ComfyUI ended")
    async with stage.playing(entry("a", on=["upstream-start"]), gate_limit=300) as service:
        for _ in range(5):
            service.upstream_started()
            await stage.clock.advance(10)
        assert stage.engine.names == ["a"]
        assert service.ready()


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
