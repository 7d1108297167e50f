"""Prompts that others submit to ComfyUI directly: what they leave in memory is not known."""

from pathlib import Path

import pytest

from proxy.core.mode import Mode
from proxy.core.tiers import Tier
from tests.engine.stage import Stage, encode, staged, until


def known(stage: Stage) -> list[bool]:
    """Of each component that was used, whether it can be told where it is."""
    states = stage.proxy.engine.upstream.planner.residency.components()
    return [state.tier is not Tier.UNKNOWN for state in states]


@pytest.mark.parametrize("mode", [Mode.PINS, Mode.FULL])
async def test_after_a_foreign_prompt_nothing_is_certain_until_it_is_seen_again(mode: Mode, tmp_path: Path) -> None:
    async with staged(mode, tmp_path) as stage:
        submitted = await stage.client.submit(encode("a", "x"))
        await stage.client.history(submitted["prompt_id"])
        await until(lambda: known(stage) == [True], "the model to be known")
        foreign = await stage.blocker(stage.direct)
        await until(lambda: known(stage) == [False], "doubt")
        stage.gate.open()
        await stage.direct.history(foreign)
        again = await stage.client.submit(encode("a", "y"))
        await stage.client.history(again["prompt_id"])
        await until(lambda: known(stage) == [True], "certainty")
