"""How often progress is told: at most every tenth of a simulated second, and always with a preview."""

from typing import Any

import pytest

from tests.simulator.support import Driver, image, node, simulated


async def progress(driver: Driver, prompt: dict[str, Any], **fields: Any) -> list[int]:
    """The values told while a prompt runs."""
    values: list[int] = []
    async with driver.session.ws_connect(f"{driver.sim.url}/ws?clientId=c") as socket:
        await driver.run(prompt, client_id="c", **fields)
        async for message in socket:
            if isinstance(message.data, str):
                event = message.json()
                if event["type"] == "progress":
                    values.append(event["data"]["value"])
                if event["type"] == "executing" and event["data"]["node"] is None:
                    break
    return values


async def test_quick_steps_are_told_now_and_then() -> None:
    """Steps of 20 ms: the first, every fifth after it, the last."""
    prompt = {
        "1": node("FakeCheckpointLoader", ckpt_name="m1"),
        "2": node("FakeSampler", model=["1", 0], positive="", seed=1, steps=14),
        "3": node("FakeOutput", value=["2", 0]),
    }
    async with simulated() as driver:
        assert await progress(driver, prompt) == [1, 6, 11, 14]


@pytest.mark.parametrize(("method", "expected"), [("none", [1, 10]), ("auto", list(range(1, 11)))])
async def test_with_previews_every_step_is_told(method: str, expected: list[int]) -> None:
    prompt = image("a")
    prompt["4"]["inputs"]["steps"] = 10
    async with simulated(preview_method=method) as driver:
        assert await progress(driver, prompt) == expected


async def test_a_prompt_can_choose_its_previews() -> None:
    prompt = image("a")
    prompt["4"]["inputs"]["steps"] = 10
    async with simulated() as driver:
        own = {"preview_method": "latent2rgb"}
        assert await progress(driver, prompt, extra_data=own) == list(range(1, 11))
        prompt["4"]["inputs"]["seed"] = 2
        assert await progress(driver, prompt) == [1, 10]
