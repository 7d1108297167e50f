"""The schedule is read again when it changes, and kept when what is new is broken."""

import asyncio
import json

import pytest

from tests.warmup.stage import Stage, entry, row, settle
from tests.warmup.test_warmup_smallest import TEXT_TO_IMAGE
from warmup.ports import WarmResult
from warmup.state import Result

HOUR = 3600.0


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


async def test_what_was_read_for_a_person_is_not_read_again(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    async with stage.playing(entry("a")) as service:
        stage.write("[[entry")
        assert service.reload()
        await stage.clock.advance(20)
    assert caplog.text.count("stays in force") == 1


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
