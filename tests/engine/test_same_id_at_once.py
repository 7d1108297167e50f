"""Two submissions of one id, or under one idempotency key, that come while the first is still being looked at."""

import asyncio
from pathlib import Path

import pytest

from proxy.core.mode import Mode
from tests.engine.relay import Asked, Fate
from tests.engine.stage import Stage, encode, fresh_id, staged, until

CLASSES = 3
"""In the workflow, each to be asked for by itself."""


class SlowSchema:
    """Lets questions for single classes wait, so that submissions overtake each other."""

    def __init__(self) -> None:
        self.asked = 0
        self.answered = asyncio.Event()

    async def __call__(self, asked: Asked) -> Fate:
        if asked.target.startswith("/object_info/"):
            self.asked += 1
            await self.answered.wait()
        return Fate.PASSED


async def submit_together(stage: Stage, bodies: list[object], **headers: str) -> list[tuple[int, str]]:
    """Answers of submissions that all wait for the schema of the same class."""
    slow = SlowSchema()
    stage.relay.script = slow
    tasks = [asyncio.create_task(stage.post("/prompt", body, **headers)) for body in bodies]
    await until(lambda: slow.asked == CLASSES * len(bodies), "all submissions to wait")
    slow.answered.set()
    answers = await asyncio.gather(*tasks)
    return [(answer.status, answer.json()["prompt_id"]) for answer in answers]


@pytest.mark.parametrize("mode", [Mode.PINS, Mode.FULL])
async def test_one_id_runs_once_and_both_are_answered(mode: Mode, tmp_path: Path) -> None:
    async with staged(mode, tmp_path) as stage:
        stage.proxy.engine.upstream.schema.schema = stage.proxy.engine.upstream.schema._read({})
        prompt_id = fresh_id()
        body = {"prompt": encode("a", "twice"), "prompt_id": prompt_id}
        assert await submit_together(stage, [body, body]) == [(200, prompt_id)] * 2
        await stage.ended(prompt_id)
        await stage.comfy.idle()
        assert stage.gate.started == [prompt_id]
        assert len(stage.relay.asked("POST", "/prompt")) == 1


async def test_one_key_runs_once_whatever_ids_were_drawn(tmp_path: Path) -> None:
    async with staged(Mode.FULL, tmp_path) as stage:
        stage.proxy.engine.upstream.schema.schema = stage.proxy.engine.upstream.schema._read({})
        body = {"prompt": encode("a", "key")}
        answers = await submit_together(stage, [body, body], Idempotency_Key="k1")
        assert answers[0] == answers[1]
        await stage.ended(answers[0][1])
        assert len(stage.gate.started) == 1


async def test_an_id_whose_first_run_ends_while_the_second_is_looked_at(tmp_path: Path) -> None:
    async with staged(Mode.FULL, tmp_path) as stage:
        slow = SlowSchema()
        stage.relay.script = slow
        prompt_id = fresh_id()
        unknown = {**encode("a", "twice"), "1": {"class_type": "NoSuchClass", "inputs": {}}}
        second = asyncio.create_task(stage.post("/prompt", {"prompt": unknown, "prompt_id": prompt_id}))
        await until(lambda: slow.asked, "the second to wait")
        first = await stage.post("/prompt", {"prompt": encode("a", "twice"), "prompt_id": prompt_id})
        await stage.ended(prompt_id)
        await stage.comfy.idle()
        slow.answered.set()
        assert (await second).json() == first.json()
        await stage.comfy.idle()
        assert stage.gate.started == [prompt_id]
        assert len(stage.relay.asked("POST", "/prompt")) == 1
