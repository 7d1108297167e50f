"""A journal that takes nothing: prompts are refused before ComfyUI hears of them, until there is room again."""

from pathlib import Path

import pytest

from proxy import journal_commit
from proxy.core.mode import Mode
from tests.engine.relay import Asked, Fate
from tests.engine.stage import Stage, encode, fresh_id, staged, until


def trouble(stage: Stage) -> bool:
    held = stage.proxy.engine.held
    assert held is not None
    return held._journal.trouble is not None


async def test_what_cannot_be_written_is_neither_validated_nor_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.journal_worker.RETRY_SECONDS", 0.01)
    async with staged(Mode.FULL, tmp_path) as stage:
        running = await stage.blocker()
        accepted = fresh_id()
        await stage.client.submit(encode("b", "accepted"), prompt_id=accepted)
        with monkeypatch.context() as full:
            full.setattr(journal_commit, "RESERVE_BYTES", 2**62)
            found_out = await stage.post("/prompt", {"prompt": encode("c", "finds out")})
            before = len(stage.relay.asked("POST", "/prompt"))
            refused = [await stage.post("/prompt", {"prompt": encode("c", "refused")}) for _ in range(3)]
            again = await stage.post("/prompt", {"prompt": encode("b", "accepted"), "prompt_id": accepted})
            assert len(stage.relay.asked("POST", "/prompt")) == before
        for answer in (found_out, *refused):
            assert (answer.status, answer.headers["Retry-After"]) == (507, "10")
            assert answer.json()["error"]["type"] == "journal_full"
            assert answer.json()["error"]["details"] == "Free some space on its disk."
        assert again.json()["prompt_id"] == accepted
        await until(lambda: not trouble(stage), "room")
        late = (await stage.client.submit(encode("c", "late")))["prompt_id"]
        stage.gate.open()
        entries = await stage.ended(running, accepted, late)
        assert [entry["status"]["status_str"] for entry in entries] == ["success"] * 3
        assert len(await stage.client.get_json("/history")) == 3


async def test_one_that_ends_well_though_it_could_not_be_written_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins at once, and has ended just before the interruption comes; with room, its id is free again."""
    monkeypatch.setattr("proxy.journal_worker.RETRY_SECONDS", 0.01)
    async with staged(Mode.FULL, tmp_path) as stage:
        held, prompt_id = stage.proxy.engine.held, fresh_id()
        assert held is not None

        async def too_late(asked: Asked) -> Fate:
            if asked.is_("POST", "/interrupt"):
                stage.gate.open(prompt_id)
                await stage.direct.history(prompt_id)
            return Fate.PASSED

        stage.relay.script = too_late
        stage.gate.shut(prompt_id)
        body = {"prompt": encode("c", "x"), "prompt_id": prompt_id}
        with monkeypatch.context() as full:
            full.setattr(journal_commit, "RESERVE_BYTES", 2**62)
            assert (await stage.post("/prompt", body)).status == 507
        await until(lambda: held.holding.prompts.get(prompt_id) is None, "it to be forgotten")
        await until(lambda: not trouble(stage), "room")
        assert (await stage.post("/prompt", body)).status == 200
