"""RAM for three of eight models, through the whole proxy: planned pins never get ComfyUI killed, unlimited ones do."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proxy.core import pinning
from proxy.core.budget import Budget, Limits
from proxy.core.mode import Mode
from tests.engine.stage import Stage, encode, staged, until

GB = 1024**3
NAMES = "abcdefgh"
MACHINE: dict[str, Any] = {
    "models": {"checkpoints": {f"{name}.safetensors": int(6.8 * GB) for name in NAMES}},
    "ram_gb": 30.0,
    "vram_gb": 8.0,
}
PROMPTS = 500
IN_SIGHT = 100
"""Prompts that wait at once, where there is a queue. The benchmark's test runs 500 with a queue in sight."""


def planned(stage: Stage) -> Budget:
    """The operator lets pins take all the RAM that the reserve leaves."""
    planner = stage.proxy.engine.upstream.planner
    planner.limits = replace(planner.limits, ram_share=1.0)
    return planner.budget


async def submit(stage: Stage, rng: random.Random, number: int) -> str:
    return str((await stage.client.submit(encode(rng.choice(NAMES), str(number))))["prompt_id"])


async def test_planned_pins_with_the_queue_in_sight(tmp_path: Path) -> None:
    async with staged(Mode.FULL, tmp_path, **MACHINE) as stage:
        assert planned(stage).ram is not None
        rng = random.Random(8)  # noqa: S311 - a workload, no secret
        stage.gate.shut_all()
        ids = [await submit(stage, rng, number) for number in range(IN_SIGHT)]
        stage.gate.open()
        for entry in await stage.ended(*ids):
            assert entry["status"]["status_str"] == "success"
        assert not stage.comfy.crashed.is_set()
        assert len(stage.loads) < IN_SIGHT // 2


async def test_planned_pins_with_nothing_in_sight(tmp_path: Path) -> None:
    async with staged(Mode.PINS, tmp_path, **MACHINE) as stage:
        planned(stage)
        rng = random.Random(8)  # noqa: S311 - a workload, no secret
        for number in range(PROMPTS):
            await stage.ended(await submit(stage, rng, number))
        assert not stage.comfy.crashed.is_set()
        assert len(stage.loads) < PROMPTS


async def test_unlimited_pins_get_comfyui_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = Budget(chains=1000, pins=1000 * GB, ram=None)
    monkeypatch.setattr(pinning, "make_budget", lambda *_: everything)
    async with staged(Mode.PINS, tmp_path, **MACHINE) as stage:
        planner = stage.proxy.engine.upstream.planner
        monkeypatch.setattr(planner, "must_free", lambda _: False)
        assert planner.limits == Limits()
        for number, name in enumerate(NAMES[:-1]):
            if stage.comfy.crashed.is_set():
                break
            await stage.client.submit(encode(name, str(number)))
            await until(lambda: stage.comfy.crashed.is_set() or stage.at_comfyui == 0, "its end")
        assert stage.comfy.crashed.is_set()
