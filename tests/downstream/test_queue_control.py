"""The operator's view of the held queue, and the orders that can be given."""

import asyncio
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from proxy.core.mode import Mode
from proxy.engine import operating
from tests.engine.stage import Stage, encode, fresh_id, staged, until


async def get(stage: Stage, path: str) -> tuple[int, Any]:
    answer = await stage.client.request("GET", path)
    return answer.status, answer.json()


async def order(stage: Stage, what: str, body: Any = None) -> tuple[int, Any]:
    answer = await stage.post(f"/comfykeep/queue/{what}", body or {})
    return answer.status, answer.json()


async def queue(stage: Stage) -> Any:
    status, body = await get(stage, "/comfykeep/queue")
    assert status == 200, body
    return body


async def waiting(stage: Stage, count: int) -> list[str]:
    """So many prompts that need other models than the one that runs."""
    ids = [fresh_id() for _ in range(count)]
    for index, prompt_id in enumerate(ids):
        await stage.client.submit(encode("b", f"{index}"), prompt_id=prompt_id)
    return ids


async def test_the_queue_is_listed_in_its_order(tmp_path: Path) -> None:
    async with staged(Mode.FULL, tmp_path) as stage:
        running = await stage.blocker()
        first, second = await waiting(stage, 2)
        await stage.post(
            "/prompt", {"prompt": encode("c", "x"), "prompt_id": (urgent := fresh_id())}, X_Comfykeep_Priority="3"
        )
        await until(lambda: stage.pending() == [urgent], "the urgent one to be staged")
        shown = await queue(stage)
        assert [row["prompt_id"] for row in shown["running"]] == [running]
        assert [(row["prompt_id"], row["priority"]) for row in shown["staged"]] == [(urgent, 3)]
        assert [row["prompt_id"] for row in shown["waiting"]] == [first, second]
        assert shown["waiting_total"] == 2
        assert shown["paused_by"] == []
        rows = [*shown["running"], *shown["staged"], *shown["waiting"]]
        assert all(before["expected_end"] <= after["expected_start"] + 1e-3 for before, after in pairwise(rows))
        assert rows[0]["submitted"] <= rows[0]["expected_start"]
        assert shown["waiting"][0]["models"] == ["b.safetensors"]
        assert [len((await get(stage, f"/comfykeep/queue?limit={n}"))[1]["waiting"]) for n in (0, 1, 9)] == [0, 1, 2]


async def test_a_pause_lets_the_running_prompt_finish_and_takes_submissions(tmp_path: Path) -> None:
    async with staged(Mode.FULL, tmp_path) as stage:
        running = await stage.blocker()
        assert await order(stage, "pause") == (200, {"paused_by": ["operator"]})
        ids = await waiting(stage, 2)
        stage.gate.open()
        await stage.ended(running)
        await stage.comfy.idle()
        assert stage.gate.started == [running]
        assert await order(stage, "resume") == (200, {"paused_by": []})
        await stage.ended(*ids)


async def test_a_pause_survives_a_restart(tmp_path: Path) -> None:
    async with staged(Mode.FULL, tmp_path) as stage:
        await order(stage, "pause")
        ids = await waiting(stage, 2)
        await stage.stop()
        await stage.start()
        await until(
            lambda: stage.proxy.engine.held and stage.proxy.engine.held.operations.listing(1).waiting_total,
            "the journal to be read",
        )
        assert (await queue(stage))["paused_by"] == ["operator"]
        assert stage.at_comfyui == 0
        await order(stage, "resume")
        await stage.ended(*ids)
        await stage.stop()
        await stage.start()
        assert (await queue(stage))["paused_by"] == []


async def test_a_prompt_is_moved_to_the_front(tmp_path: Path) -> None:
    async with staged(Mode.FULL, tmp_path) as stage:
        running = await stage.blocker()
        ids = await waiting(stage, 4)
        assert await order(stage, "front", {"prompt_id": ids[3]}) == (200, {"prompt_id": ids[3]})
        await until(lambda: stage.pending() == [ids[3]], "it to be staged")
        stage.gate.open()
        await stage.ended(running, *ids)
        assert stage.gate.started == [running, ids[3], *ids[:3]]


async def test_prompts_are_cancelled_wherever_they_are(tmp_path: Path) -> None:
    async with staged(Mode.FULL, tmp_path) as stage:
        running = await stage.blocker()
        ids = await waiting(stage, 3)
        assert (await order(stage, "cancel", {"prompt_id": ids[2]}))[0] == 200
        assert (await order(stage, "cancel", {"prompt_id": ids[0]}))[0] == 200
        await until(lambda: stage.pending() == [ids[1]], "the staged one to be replaced")
        assert (await order(stage, "cancel", {"prompt_id": running}))[0] == 200
        stage.gate.open()
        await stage.ended(ids[1])
        assert stage.gate.started == [running, ids[1]]
        assert await queue(stage) | {"upstream_up": 1} == {
            "paused_by": [],
            "upstream_up": 1,
            "reconciled": True,
            "foreign": 0,
            "running": [],
            "staged": [],
            "waiting": [],
            "waiting_total": 0,
        }


async def test_what_has_not_been_sent_differs_in_nothing_yet(tmp_path: Path) -> None:
    async with staged(Mode.FULL, tmp_path) as stage:
        await stage.blocker()
        _, last = await waiting(stage, 2)
        status, answered = await get(stage, f"/comfykeep/prompts/{last}")
        assert (status, answered["error"]["type"]) == (404, "not_sent")
        stage.gate.open()
        await stage.ended(last)
        assert (await get(stage, f"/comfykeep/prompts/{last}"))[0] == 200


async def test_the_story_of_a_prompt(tmp_path: Path) -> None:
    async with staged(Mode.FULL, tmp_path) as stage:
        await stage.blocker()
        first, second = await waiting(stage, 2)
        story = (await get(stage, f"/comfykeep/prompts/{second}/story"))[1]["story"]
        assert story[0]["code"] == "submitted"
        assert story[-1]["text"].startswith("waits: ")
        await order(stage, "pause")
        assert (await get(stage, f"/comfykeep/prompts/{second}/story"))[1]["story"][-1]["code"] == "paused"
        await order(stage, "resume")
        stage.gate.open()
        await stage.ended(first, second)
        await stage.comfy.idle()
        assert (await get(stage, f"/comfykeep/prompts/{second}/story"))[1]["story"][-1]["code"] == "done"
        await stage.stop()
        await stage.start()
        await until(lambda: stage.proxy.engine.feed.up, "ComfyUI")
        told = (await get(stage, f"/comfykeep/prompts/{second}/story"))[1]["story"]
        assert [passage["code"] for passage in told] == ["submitted", "started", "done"]
        assert told == sorted(told, key=lambda passage: passage["at"])


async def test_what_was_learned_survives_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operating, "SAVE_EVERY", 0.0)
    async with staged(Mode.FULL, tmp_path, time_scale=1e3) as stage:
        await stage.ended((await stage.client.submit(encode("a", "1")))["prompt_id"])
        await stage.comfy.idle()

        def learned() -> tuple[Any, Any]:
            held = stage.proxy.engine.held
            assert held is not None
            return held.holding.scheduler.context.ledger.durations, stage.proxy.engine.upstream.costs.to_json()[
                "seconds"
            ]

        await until(lambda: learned()[1], "something to be learned")
        durations, loads = learned()
        await stage.kill()
        await stage.start()
        await until(lambda: learned()[1], "what was learned to be read")
        assert learned()[1] == loads
        assert learned()[0].typical == durations.typical


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "kind"),
    [
        ("POST", "/comfykeep/queue/front", {"prompt_id": "nobody"}, 404, "unknown_prompt"),
        ("POST", "/comfykeep/queue/cancel", {"prompt_id": "nobody"}, 404, "unknown_prompt"),
        ("GET", "/comfykeep/prompts/nobody/story", None, 404, "unknown_prompt"),
        ("GET", "/comfykeep/prompts/nobody", None, 404, "unknown_prompt"),
        ("POST", "/comfykeep/queue/front", {}, 400, "bad_body"),
        ("POST", "/comfykeep/queue/cancel", {"prompt_id": 5}, 400, "bad_body"),
        ("POST", "/comfykeep/queue/cancel", [], 400, "bad_body"),
        ("GET", "/comfykeep/queue?limit=-1", None, 400, "bad_limit"),
    ],
)
async def test_what_makes_no_sense_is_refused(
    tmp_path: Path, method: str, path: str, body: Any, status: int, kind: str
) -> None:
    async with staged(Mode.FULL, tmp_path) as stage:
        answer = await stage.client.request(method, path, body)
        assert (answer.status, answer.json()["error"]["type"]) == (status, kind)


async def test_neither_what_runs_nor_what_has_ended_can_be_moved(tmp_path: Path) -> None:
    async with staged(Mode.FULL, tmp_path) as stage:
        running = await stage.blocker()
        status, body = await order(stage, "front", {"prompt_id": running})
        assert (status, body["error"]["type"]) == (409, "runs_already")
        stage.gate.open()
        await stage.ended(running)
        await stage.comfy.idle()
        for what in ("front", "cancel"):
            assert (await order(stage, what, {"prompt_id": running}))[0] == 404


async def test_a_queue_that_is_not_held_has_no_operator(tmp_path: Path) -> None:
    async with staged(Mode.PINS, tmp_path) as stage:
        answers = await asyncio.gather(
            get(stage, "/comfykeep/queue"),
            get(stage, "/comfykeep/prompts/x/story"),
            *(order(stage, what, {"prompt_id": "x"}) for what in ("pause", "resume", "front", "cancel")),
        )
        assert {(status, body["error"]["type"]) for status, body in answers} == {(409, "queue_not_held")}
        assert all("mode pins" in body["error"]["message"] for _, body in answers)
