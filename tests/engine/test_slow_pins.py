"""A pinned loader whose IS_CHANGED takes its time delays every prompt, so it is not carried any more."""

import logging
from types import SimpleNamespace

import pytest

from simulator import executor
from tests.contract.prompts import Prompt, link, node
from tests.engine.stage import Stage, encode, staged


def slow() -> Prompt:
    return {"1": node("FakeSlowIsChanged", name="m1"), "2": node("FakeOutput", value=link("1"))}


def simulated_stamps(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """ComfyUI's time stamps show simulated time: what its IS_CHANGED takes, and nothing that this machine takes."""
    monkeypatch.setattr(executor, "time", SimpleNamespace(time=lambda: 1e9 + stage.comfy.clock.now()))


async def test_it_is_dropped_and_reported(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "comfykeep")
    async with staged() as stage, stage.client.socket() as socket:
        simulated_stamps(stage, monkeypatch)
        for turn in range(5):
            for prompt in (encode("a", f"{turn}"), encode("b", f"{turn}"), slow()):
                await stage.client.run(prompt, socket)
        before = stage.comfy.clock.now()
        assert (await stage.client.run(encode("a", "last"), socket)).cached == ["4"]
        assert stage.comfy.clock.now() - before < 0.3, "nothing asks the slow one any more"
        status = await stage.client.get_json("/comfykeep/status")
        assert status["slow_pins"] == [{"models": ["m1"], "seconds": pytest.approx(0.3, abs=0.002)}]
    (record,) = caplog.records
    assert record.getMessage() == (
        "carrying m1 makes every prompt start 0.30 s later, because of its IS_CHANGED; from now on it is left out"
    )


async def test_a_new_comfyui_is_judged_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    async with staged() as stage, stage.client.socket() as socket:
        simulated_stamps(stage, monkeypatch)
        for turn in range(5):
            for prompt in (encode("a", f"{turn}"), slow()):
                await stage.client.run(prompt, socket)
        upstream = stage.proxy.engine.upstream
        assert upstream.start_delays.slow
        upstream.lost(0.0)
        assert not upstream.start_delays.slow
