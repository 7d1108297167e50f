"""A ComfyUI that takes connections before it answers questions: what it has is asked until it has told."""

from pathlib import Path

import pytest

from proxy.core.mode import Mode
from tests.engine.relay import Asked, Fate, answer
from tests.engine.stage import encode, fresh_id, staged, until


class Stammering:
    """Refuses the first questions for each of some paths."""

    def __init__(self, *paths: str, times: int = 3) -> None:
        self.left = dict.fromkeys(paths, times)

    async def __call__(self, asked: Asked) -> Fate | bytes:
        path = asked.target.partition("?")[0]
        if asked.method == "GET" and self.left.get(path, 0):
            self.left[path] -= 1
            return answer(503, b"{}") if self.left[path] % 2 else answer(200, b"[]")
        return Fate.PASSED


@pytest.mark.parametrize("mode", [Mode.PINS, Mode.FULL])
async def test_every_question_is_asked_until_it_is_answered(mode: Mode, tmp_path: Path) -> None:
    stammering = Stammering("/queue", "/system_stats", "/object_info")
    async with staged(mode, tmp_path, script=stammering) as stage, stage.client.socket() as socket:
        await stage.client.run(encode("a", "1"), socket)
        await stage.client.run(encode("b", "1"), socket)
        assert (await stage.client.run(encode("a", "2"), socket)).cached == ["4"]
        assert stage.proxy.engine.upstream.stats is not None
    assert not any(stammering.left.values())


async def test_the_journal_is_taken_up_once_however_often_the_start_fails(tmp_path: Path) -> None:
    prompt_ids = [fresh_id() for _ in range(3)]
    async with staged(Mode.FULL, tmp_path) as stage:
        stage.gate.shut_all()
        for prompt_id in prompt_ids:
            await stage.client.submit(encode("a", prompt_id), prompt_id=prompt_id)
        await stage.stop()
    stammering = Stammering(f"/history/{prompt_ids[0]}", "/queue")
    async with staged(Mode.FULL, tmp_path, script=stammering) as stage:
        await until(lambda: not any(stammering.left.values()), "all refusals")
        await stage.ended(*prompt_ids)
        assert stage.gate.started == prompt_ids
