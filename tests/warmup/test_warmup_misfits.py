"""What the ComfyUI that answers cannot do is out, alone, with the words of `comfykeep check`, until it can be done."""

import json
from dataclasses import replace

import pytest

from tests.warmup.schemas import schema
from tests.warmup.stage import Engine, Stage, entry, row, settle
from warmup.misfits import check
from warmup.prompts import Surroundings
from warmup.report import Report
from warmup.schedule import load
from warmup.state import Result

UNKNOWN = {"1": {"class_type": "Nope", "inputs": {}}, "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}}}
MISFITS = [
    pytest.param('loader = "Nope"', "loader: this ComfyUI has no class 'Nope'", id="class"),
    pytest.param('prompt = "nope.json"', "prompt: node 1 is of class 'Nope'", id="class in a workflow"),
    pytest.param('loader = "VAELoader"\ninputs.vae_name = "new.safetensors"', "inputs.vae_name: 'new", id="model"),
    pytest.param('group = "nobody"', "group: there is no group 'nobody'", id="group"),
]


def misfit(stage: Stage, what: str) -> str:
    (stage.path.parent / "nope.json").write_text(json.dumps(UNKNOWN))
    return f'[[entry]]\nname = "a"\n{what}\non = ["start", "upstream-start"]\ncron = "0 * * * *"\n'


def faults(report: Report) -> list[str]:
    return [str(fault) for fault in report.faults]


@pytest.mark.parametrize(("what", "fault"), MISFITS)
async def test_it_is_out_with_file_entry_and_key_and_the_others_stand(
    stage: Stage, what: str, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with stage.playing(misfit(stage, what) + entry("b", on=["start"])) as service:
        await stage.clock.advance(2 * 3600)
        assert stage.engine.names == ["b"]
        out, report = row(service, "a"), service.report()
    assert (out.status, out.next_at, out.last) == ("out", None, None)
    assert faults(report) == [out.reason]
    assert out.reason.startswith(f"{stage.path}: entry 'a': {fault}")
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [out.reason]
    assert check(load(stage.path), Surroundings(schema())) == report.faults


@pytest.mark.parametrize(("what", "fault"), MISFITS)
async def test_readiness_does_not_wait_for_it(stage: Stage, what: str, fault: str) -> None:
    async with stage.playing(misfit(stage, what), gate_limit=300, gates_readiness=True) as service:
        service.upstream_started()
        assert not service.ready()
        await settle()
        assert service.ready(), fault


async def test_it_runs_when_comfyui_has_what_it_lacked(stage: Stage) -> None:
    text = misfit(stage, 'loader = "VAELoader"\ninputs.vae_name = "new.safetensors"')
    async with stage.playing(text) as service:
        assert row(service, "a").status == "out"
        entries = json.loads(json.dumps(schema().entry("VAELoader")).replace("ae.safetensors", "new.safetensors"))
        stage.engine.around = Surroundings(schema().extended({"VAELoader": entries}))
        service.poke()
        await settle()
        assert stage.engine.names == ["a"]
        assert (row(service, "a").status, service.report().faults) == ("idle", ())


async def test_it_runs_when_its_group_has_been_added(stage: Stage) -> None:
    async with stage.playing(misfit(stage, 'group = "nobody"')) as service:
        assert stage.engine.around is not None
        stage.engine.around = replace(stage.engine.around, groups={"nobody": Everything()})
        service.poke()
        await settle()
        assert stage.engine.ran
        assert row(service, "a").status == "idle"


async def test_it_is_in_again_when_the_schedule_has_been_mended(stage: Stage) -> None:
    async with stage.playing(misfit(stage, 'loader = "Nope"')) as service:
        assert row(service, "a").status == "out"
        stage.write(entry("a"))
        await stage.clock.advance(5)
        assert (row(service, "a").status, service.report().faults) == ("idle", ())


async def test_a_person_may_try_a_file_that_comfyui_may_have_by_now(stage: Stage) -> None:
    text = misfit(stage, 'loader = "VAELoader"\ninputs.vae_name = "new.safetensors"')
    async with stage.playing(text) as service:
        assert (await service.warm("a")).result is Result.WARMED
        assert stage.engine.names == ["a"]


async def test_a_person_is_told_why_there_is_nothing_to_try(stage: Stage) -> None:
    async with stage.playing(misfit(stage, 'loader = "Nope"')) as service:
        outcome = await service.warm("a")
        assert outcome.result is Result.FAILED
        assert "no class 'Nope'" in outcome.detail
        assert stage.engine == Engine(stage.engine.around)


class Everything:
    def matches_name(self, name: str) -> bool:
        return name.endswith("ae.safetensors")
