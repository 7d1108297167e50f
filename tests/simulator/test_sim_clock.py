"""Simulated time: what is slept, and how little of it is real."""

import asyncio
import math

import pytest

from simulator.clock import Clock


class FakeTime:
    """Monotonic time that only sleeping moves, each sleep by a little too much."""

    def __init__(self, overshoot: float) -> None:
        self.now = 100.0
        self.overshoot = overshoot

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds + self.overshoot


def fake(monkeypatch: pytest.MonkeyPatch, overshoot: float = 0.0) -> FakeTime:
    time = FakeTime(overshoot)
    monkeypatch.setattr("simulator.clock.time.monotonic", time.monotonic)
    monkeypatch.setattr("simulator.clock.asyncio.sleep", time.sleep)
    return time


async def test_a_minute_in_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    time = fake(monkeypatch)
    ours = Clock(60)
    await ours.sleep(60)
    assert time.now == pytest.approx(101)
    assert ours.slept == 60
    assert ours.now() == pytest.approx(60)


async def test_sleeps_in_a_row_make_up_for_overshooting(monkeypatch: pytest.MonkeyPatch) -> None:
    time = fake(monkeypatch, overshoot=0.001)
    ours = Clock(600)
    for _ in range(1000):
        await ours.sleep(1.2)
    assert time.now - 100 == pytest.approx(1000 * 1.2 / 600, abs=0.002)


async def test_an_idle_gap_is_not_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    time = fake(monkeypatch)
    ours = Clock(1)
    await ours.sleep(1)
    time.now += 10
    before = time.now
    await ours.sleep(1)
    assert time.now - before == pytest.approx(1)


async def test_without_end_of_scale_no_time_passes_but_others_get_their_turn() -> None:
    ours = Clock(math.inf)
    seen = []

    async def other() -> None:
        seen.append(ours.slept)

    task = asyncio.create_task(other())
    await ours.sleep(3600)
    await task
    assert seen == [3600]
    assert ours.now() == 3600
