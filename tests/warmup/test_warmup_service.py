"""The service on a stage: when it runs what, and what it remembers."""

import asyncio
import json

from normalizer import ModelRef
from tests.warmup.stage import T0, Stage, entry, row, settle
from tests.warmup.test_warmup_smallest import TEXT_TO_IMAGE
from warmup.plan import Tier
from warmup.ports import WarmResult
from warmup.state import Result

HOUR = 3600.0
AE = ModelRef("VAELoader", ("ae.safetensors",))


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
