"""A ComfyUI that has served long is restarted, warmed up, and only then given clients' prompts again."""

from pathlib import Path

import pytest

from proxy.core.mode import Mode
from tests.engine.stage import fresh_id
from tests.engine.warm_stage import WarmStage, encode, entry, until, warm_stage

pytestmark = pytest.mark.usefixtures("no_settling")


def pauses(stage: WarmStage) -> set[str]:
    assert stage.proxy.engine.held is not None
    return set(stage.proxy.engine.held.holding.scheduler.context.pauses)


async def test_models_are_there_before_clients_are(tmp_path: Path) -> None:
    asked_for = tmp_path / "asked for"
    upstream = {"restart_command": f"touch '{asked_for}'", "recycle_after": 1}
    schedule = entry("always there", "a", on=["upstream-start"])
    async with warm_stage(tmp_path, schedule, Mode.FULL, upstream=upstream) as stage:
        await stage.ready()
        await stage.run(encode("a", "the last one that it runs"))
        waiting = [fresh_id(), fresh_id()]
        await stage.client.submit(encode("b", "waits"), prompt_id=waiting[0])
        await until(asked_for.exists, "the restart")
        stage.gate.shut_all()
        await stage.comfy.crash()
        begun_before = len(stage.gate.started)
        await stage.comfy.restart()
        await until(lambda: len(stage.gate.started) > begun_before, "the warm-up to start")
        assert pauses(stage) == {"warm-up"}
        await stage.client.submit(encode("b", "comes during it"), prompt_id=waiting[1])
        assert stage.loads == ["a"], "of the first process"
        stage.gate.open()
        for prompt_id in waiting:
            await stage.client.history(prompt_id)
        assert stage.loads == ["a", "a", "b"]
        assert pauses(stage) >= {"recycling"}, "it has run another prompt"
