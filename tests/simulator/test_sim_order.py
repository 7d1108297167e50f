"""In which order nodes run, as their clients see it."""

from typing import Any

import pytest

from simulator import NodeStart
from tests.simulator.support import image, messages, node, simulated


async def order(prompt: dict[str, Any]) -> list[str]:
    ran: list[str] = []

    async def note(start: NodeStart) -> None:
        ran.append(start.node_id)

    async with simulated(before_node=note) as driver:
        entry = await driver.run(prompt)
        assert entry["status"]["messages"][-1][0] in {"execution_success", "execution_error"}
    return ran


async def test_a_workflow_runs_from_loader_to_preview() -> None:
    assert await order(image("a")) == ["1", "3", "2", "4", "5", "6"]


async def test_an_output_that_is_ready_comes_first() -> None:
    prompt = {
        "1": node("PrimitiveString", value="x"),
        "2": node("PrimitiveString", value="y"),
        "3": node("PreviewAny", source=["1", 0]),
        "4": node("PreviewAny", source=["2", 0]),
        "5": node("PreviewAny", source="at once"),
    }
    assert await order(prompt) == ["5", "1", "3", "2", "4"]


async def test_what_leads_to_an_output_soonest_comes_next() -> None:
    prompt = {
        "1": node("EmptyImage", width=8, height=8, batch_size=1, color=1),
        "2": node("ImageInvert", image=["1", 0]),
        "3": node("ImageInvert", image=["2", 0]),
        "4": node("PreviewImage", images=["3", 0]),
        "5": node("EmptyImage", width=8, height=8, batch_size=1, color=2),
        "6": node("ImageInvert", image=["5", 0]),
        "7": node("PreviewImage", images=["6", 0]),
    }
    assert await order(prompt) == ["5", "6", "7", "1", "2", "3", "4"]


async def test_what_no_output_needs_does_not_run() -> None:
    assert "9" not in await order({**image("a"), "9": node("CheckpointLoaderSimple", ckpt_name="b")})


async def test_expanded_nodes_run_in_their_place() -> None:
    prompt = {
        "1": node("FakeCheckpointLoader", ckpt_name="m1"),
        "2": node("FakeExpand", model=["1", 0], seed=1, steps=2, inner_ckpt="m2"),
        "3": node("FakeOutput", value=["2", 0]),
    }
    assert await order(prompt) == ["1", "2", "2.0.0.loader", "2.0.0.sampler", "3"]


@pytest.mark.parametrize("seed", [1, 2])
async def test_expanded_nodes_are_cached_below_their_parent(seed: int) -> None:
    prompt = {
        "2": node("FakeExpand", model=["1", 0], seed=1, steps=2, inner_ckpt="m2"),
        "1": node("FakeCheckpointLoader", ckpt_name="m1"),
        "3": node("FakeOutput", value=["2", 0]),
    }
    async with simulated() as driver:
        await driver.run(prompt)
        again = {**prompt, "2": node("FakeExpand", model=["1", 0], seed=seed, steps=2, inner_ckpt="m2")}
        entry = await driver.run(again)
        expected = ["2", "1", "3"] if seed == 1 else ["1"]
        assert messages(entry)["execution_cached"]["nodes"] == expected
        assert driver.files_read() == ["m1", "m2"]


async def test_a_failure_ends_the_prompt() -> None:
    prompt = {
        "1": node("FakeRaise", value="x", mode="error"),
        "2": node("FakeOutput", value=["1", 0]),
        "3": node("FakeOutput", value="y"),
    }
    assert await order(prompt) == ["3", "1"]
