"""A stop: nothing new comes in, what is under way is answered, what waits stays here or is handed to ComfyUI."""

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from websockets.asyncio.client import connect

from normalizer import EXTRA_DATA_KEY
from proxy.config import ServiceSection
from proxy.core.mode import Mode
from proxy.engine import departure, engine, pulse
from tests.engine.relay import Asked, Fate
from tests.engine.stage import Stage, encode, fresh_id, staged, until


class Slow:
    """The answers to submissions take until `released`."""

    def __init__(self) -> None:
        self.held = asyncio.Event()
        self.released = asyncio.Event()

    async def __call__(self, asked: Asked) -> Fate:
        if asked.is_("POST", "/prompt"):
            self.held.set()
            await self.released.wait()
        return Fate.PASSED


async def waiting(stage: Stage, names: str) -> list[str]:
    ids = [fresh_id() for _ in names]
    for name, prompt_id in zip(names, ids, strict=True):
        await stage.client.submit(encode(name, prompt_id), prompt_id=prompt_id)
    return ids


def flushing(stage: Stage) -> None:
    stage.proxy.config = stage.proxy.config.model_copy(update={"service": ServiceSection(on_stop="flush")})


@pytest.mark.parametrize("mode", [Mode.PINS, Mode.FULL])
async def test_who_has_submitted_is_answered_and_who_comes_later_is_told_to_come_back(
    mode: Mode, tmp_path: Path
) -> None:
    async with staged(mode, tmp_path) as stage:
        stage.relay.script = slow = Slow()
        early = asyncio.create_task(stage.client.post("/prompt", {"prompt": encode("a", "1")}))
        await slow.held.wait()
        leaving = asyncio.create_task(stage.proxy.engine.leave(flush=False))
        await until(lambda: stage.proxy.engine.departure.begun, "the stop")
        late = await stage.client.post("/prompt", {"prompt": encode("a", "2")})
        assert (late.status, late.json()["error"]["type"]) == (503, "shutting_down")
        assert int(late.headers["Retry-After"]) > 0
        assert not leaving.done()
        slow.released.set()
        assert (await early).status == 200
        await leaving
        assert len(stage.relay.asked("POST", "/prompt")) == 1


async def test_what_waits_is_kept_and_nothing_more_is_sent(tmp_path: Path) -> None:
    async with staged(Mode.FULL, tmp_path) as stage:
        running = await stage.blocker()
        ids = await waiting(stage, "bcb")
        leaving = asyncio.create_task(stage.proxy.engine.leave(flush=False))
        await leaving
        stage.gate.open(running)
        await stage.comfy.idle()
        assert stage.gate.started == [running, ids[0]]
        await stage.stop()
        await stage.start()
        await stage.ended(running, *ids)
        await stage.comfy.idle()
        assert sorted(stage.gate.started) == sorted([running, *ids])


async def test_what_waits_is_handed_over_in_order_with_its_pins(tmp_path: Path) -> None:
    async with staged(Mode.FULL, tmp_path) as stage:
        await stage.ended((await stage.client.submit(encode("d", "before")))["prompt_id"])
        running = await stage.blocker()
        ids = await waiting(stage, "bcbcb")
        assert stage.pending() == [ids[0]]
        order = [held.prompt_id for held in holding(stage).lookahead.waiting()]
        flushing(stage)
        await stage.stop()
        assert stage.pending() == [ids[0], *order]
        assert sorted(order) == sorted(ids[1:])
        for item in stage.comfy.process.queue.pending:
            assert pins(item), "carries nothing along"
        await stage.start()
        stage.gate.open()
        await stage.ended(running, *ids)
        await stage.comfy.idle()
        assert len(stage.gate.started) == len(ids) + 2, "one ran twice"


def pins(item: Any) -> list[str]:
    carried: list[str] = item[3][EXTRA_DATA_KEY]["pins"]
    return carried


def holding(stage: Stage) -> Any:
    assert stage.proxy.engine.held is not None
    return stage.proxy.engine.held.holding


async def test_a_paused_queue_is_not_handed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with staged(Mode.FULL, tmp_path) as stage:
        assert stage.proxy.engine.held is not None
        stage.proxy.engine.held.operations.pause()
        await waiting(stage, "ab")
        flushing(stage)
        await stage.stop()
        assert stage.at_comfyui == 0
        assert "the queue is paused, so nothing is handed to ComfyUI" in caplog.text


async def test_without_comfyui_nothing_is_handed_over(tmp_path: Path) -> None:
    async with staged(Mode.FULL, tmp_path) as stage:
        running = await stage.blocker()
        ids = await waiting(stage, "bc")
        stage.relay.cut()
        stage.relay.break_sockets()
        await until(lambda: not stage.proxy.engine.feed.up, "the loss")
        flushing(stage)
        await stage.stop()
        await stage.start()
        stage.gate.open()
        await stage.ended(running, *ids)


async def test_a_hurry_waits_for_nothing(tmp_path: Path) -> None:
    async with staged(Mode.FULL, tmp_path) as stage:
        running = await stage.blocker()
        ids = await waiting(stage, "b")
        stage.relay.script = slow = Slow()
        early = asyncio.create_task(stage.client.post("/prompt", {"prompt": encode("c", "1")}))
        await slow.held.wait()
        stopping = asyncio.create_task(stage.stop())
        await until(lambda: stage.proxy.engine.departure.begun, "the stop")
        stage.proxy.engine.departure.hurry()
        await stopping
        with pytest.raises(aiohttp.ClientConnectionError):
            await early
        await stage.start()
        stage.gate.open()
        await stage.ended(running, *ids)


async def test_a_submission_that_is_never_answered_does_not_hold_up_the_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engine, "ANSWERS", 0.01)
    monkeypatch.setattr(engine, "SETTLING", 0.01)
    async with staged(Mode.FULL, tmp_path) as stage:
        stage.relay.script = slow = Slow()
        early = asyncio.create_task(stage.client.post("/prompt", {"prompt": encode("c", "1")}))
        await slow.held.wait()
        await stage.proxy.engine.leave(flush=False)
        assert "do not get their answers" in caplog.text
        early.cancel()


async def test_clients_get_their_events_and_are_told_that_it_goes_away(tmp_path: Path) -> None:
    async with staged(Mode.FULL, tmp_path) as stage, connect(f"{stage.proxy.url}/ws".replace("http", "ws")) as socket:
        assert kind(await socket.recv()) == "status"
        await stage.client.submit(encode("a", "1"))
        await stage.comfy.idle()
        await stage.proxy.engine.close()
        kinds = [kind(message) async for message in socket]
        assert "status" in kinds
        assert socket.close_code == 1001


def kind(message: str | bytes) -> str:
    told: str = json.loads(message)["type"]
    return told


async def test_the_engine_shows_that_it_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "BEAT", 0.001)
    async with staged(Mode.FULL, tmp_path) as stage:
        beats = 0

        def beaten() -> None:
            nonlocal beats
            beats += 1

        stage.proxy.engine.pulse.beaten = beaten
        await until(lambda: beats > 2, "signs of life")

        failed = 0

        def broken(*_: object) -> None:
            nonlocal failed
            failed += 1
            raise RuntimeError("no decision")

        with monkeypatch.context() as patch:
            patch.setattr(holding(stage).scheduler, "handle", broken)
            await until(lambda: failed > 0, "a decision that fails")
            shown, failed = beats, 0
            await until(lambda: failed > 2, "more of them")
            assert beats == shown
        await until(lambda: beats > shown, "signs of life, since decisions are made again")


async def test_a_beat_is_nothing_to_tell_clients_of(tmp_path: Path) -> None:
    async with staged(Mode.FULL, tmp_path) as stage, connect(f"{stage.proxy.url}/ws".replace("http", "ws")) as socket:
        for _ in range(5):
            assert holding(stage).beat()
        await asyncio.sleep(0)
        await stage.proxy.engine.close()
        assert [kind(message) async for message in socket] == ["status"]


async def test_departure_counts_what_clients_have_left() -> None:
    leaving = departure.Departure()
    done = asyncio.Event()

    async def work() -> None:
        await done.wait()

    task = asyncio.create_task(leaving.accompany(work()))
    await asyncio.sleep(0)
    leaving.begin()
    assert not await leaving.patiently(leaving.finished(), 0.001)
    done.set()
    assert await leaving.patiently(leaving.finished(), 10)
    await task


async def test_what_fails_while_it_is_waited_for_is_not_hidden() -> None:
    async def fails() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        await departure.Departure().patiently(fails())
