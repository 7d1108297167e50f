"""One queue for clients, whichever of the proxy and ComfyUI has a prompt, and however late ComfyUI's answer comes."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from proxy.core.mode import Mode
from proxy.engine.held import Held
from tests.engine.relay import Asked, Fate, answer
from tests.engine.stage import Stage, encode, fresh_id, sampling, staged, until


async def shown(stage: Stage) -> tuple[list[str], list[str]]:
    """Ids in `queue_running` and in `queue_pending`."""
    running, pending = await stage.client.queue()
    return [item[1] for item in running], [item[1] for item in pending]


async def test_a_prompt_is_never_nowhere(tmp_path: Path) -> None:
    """What is not in the queue has ended: whoever polls relies on that."""
    async with staged(Mode.FULL, tmp_path) as stage:
        accepted: list[str] = []

        async def submit(turn: int) -> None:
            for number in range(6):
                prompt_id = fresh_id()
                priority = str(number % 3)
                body = {"prompt": encode("abcd"[turn], f"{turn} {number}"), "prompt_id": prompt_id}
                assert (await stage.post("/prompt", body, X_Comfykeep_Priority=priority)).status == 200
                accepted.append(prompt_id)

        submitting = asyncio.gather(*(submit(turn) for turn in range(4)))
        looks = 0
        while not submitting.done():
            believed = list(accepted)
            running, pending = await shown(stage)
            assert len({*running, *pending}) == len([*running, *pending])
            history = await stage.client.get_json("/history")
            assert set(believed) <= {*running, *pending, *history}
            looks += 1
        await submitting
        assert looks > 3


async def test_an_answer_of_comfyui_from_before_the_dispatch(tmp_path: Path) -> None:
    async with staged(Mode.FULL, tmp_path) as stage:
        prompt_id, dispatched = fresh_id(), asyncio.Event()
        stage.gate.shut(prompt_id)

        async def old(asked: Asked) -> Fate | bytes:
            if not asked.is_("GET", "/queue") or dispatched.is_set():
                return Fate.PASSED
            body = (await stage.direct.get("/queue")).body
            await dispatched.wait()
            return answer(200, body)

        stage.relay.script = old
        looking = asyncio.create_task(shown(stage))
        await until(lambda: stage.relay.asked("GET", "/queue"), "the question to ComfyUI")
        await stage.client.submit(encode("a", "1"), prompt_id=prompt_id)
        await stage.gate.reached(prompt_id)
        dispatched.set()
        running, pending = await looking
        assert [*running, *pending] == [prompt_id]


async def test_jobs_as_comfyui_told_them_before_the_dispatch(tmp_path: Path) -> None:
    async with staged(Mode.FULL, tmp_path) as stage:
        prompt_id, dispatched = fresh_id(), asyncio.Event()
        stage.gate.shut(prompt_id)

        async def old(asked: Asked) -> Fate | bytes:
            if not asked.is_("GET", "/api/jobs"):
                return Fate.PASSED
            body = (await stage.direct.get("/api/jobs")).body
            await dispatched.wait()
            return answer(200, body)

        stage.relay.script = old
        looking = asyncio.create_task(stage.client.get_json("/api/jobs"))
        await until(lambda: stage.relay.asked("GET", "/api/jobs"), "the question to ComfyUI")
        await stage.client.submit(encode("a", "1"), prompt_id=prompt_id)
        await stage.gate.reached(prompt_id)
        dispatched.set()
        (job,) = (await looking)["jobs"]
        assert (job["id"], job["status"]) == (prompt_id, "in_progress")


async def test_jobs_do_not_read_the_prompts_that_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand of them would hold up everybody's events."""
    async with staged(Mode.FULL, tmp_path) as stage:
        await stage.blocker()
        ids = [fresh_id() for _ in range(5)]
        for prompt_id in ids:
            workflow = {"extra_pnginfo": {"workflow": {"id": f"from {prompt_id}"}}}
            await stage.client.submit(encode("b", "x"), prompt_id=prompt_id, extra_data=workflow)
        item = (await stage.client.queue())[1][-1]
        monkeypatch.delattr(Held, "queue_item")
        page = await stage.client.get_json("/api/jobs?status=pending&sort_order=asc&limit=3&offset=2")
        assert [job["id"] for job in page["jobs"]] == ids[2:]
        assert page["pagination"] == {"offset": 2, "limit": 3, "total": 5, "has_more": False}
        waits = {
            "id": ids[-1],
            "status": "pending",
            "priority": item[0],
            "create_time": item[3]["create_time"],
            "outputs_count": 0,
            "previewable_outputs_count": 0,
            "workflow_id": f"from {ids[-1]}",
        }
        assert page["jobs"][-1] == waits == await stage.client.get_json(f"/api/jobs/{ids[-1]}")
        (only,) = (await stage.client.get_json(f"/api/jobs?workflow_id=from%20{ids[3]}"))["jobs"]
        assert only["id"] == ids[3]
        monkeypatch.undo()  # the ends of the prompts are written with it


@pytest.mark.parametrize("strange", [None, [], "text", {"workflow": None}, {"workflow": [1]}, {"workflow": {}}])
async def test_jobs_of_a_strange_workflow_are_listed(tmp_path: Path, strange: Any) -> None:
    """ComfyUI fails on some of these, and so lists nobody's jobs until they have run."""
    async with staged(Mode.FULL, tmp_path) as stage:
        await stage.blocker()
        await stage.client.submit(encode("b", "staged"))
        prompt_id = fresh_id()
        await stage.client.submit(encode("b", "x"), prompt_id=prompt_id, extra_data={"extra_pnginfo": strange})
        job = await stage.client.get_json(f"/api/jobs/{prompt_id}")
        assert (job["status"], "workflow_id" in job) == ("pending", False)


async def test_a_history_that_comfyui_cannot_list_does_not_hide_the_queue(tmp_path: Path) -> None:
    """ComfyUI fails on its history only when ended jobs are asked for; pages ask for the queue all the time."""
    async with staged(Mode.FULL, tmp_path) as stage:
        ended = fresh_id()
        await stage.client.submit(encode("a", "1"), prompt_id=ended, extra_data={"extra_pnginfo": None})
        await stage.ended(ended)
        running = await stage.blocker()
        for client in (stage.direct, stage.client):
            assert (await client.get("/api/jobs")).status == 500
            (job,) = (await client.get_json("/api/jobs?status=pending,in_progress"))["jobs"]
            assert (job["id"], job["status"]) == (running, "in_progress")


async def test_the_order_is_that_of_running(tmp_path: Path) -> None:
    async with staged(Mode.FULL, tmp_path) as stage:
        running = await stage.blocker()
        ids = []
        for number, checkpoint in enumerate("bcbdcb"):
            ids.append(fresh_id())
            body = {"prompt": encode(checkpoint, f"{number}"), "prompt_id": ids[-1]}
            await stage.post("/prompt", body, X_Comfykeep_Priority=f"{number % 3}")
        await until(lambda: stage.pending() in ([ids[2]], [ids[5]]), "an urgent one to be staged")
        now, order = await shown(stage)
        assert (now, set(order[:2]), set(order[-2:])) == ([running], {ids[2], ids[5]}, {ids[0], ids[3]})
        stage.gate.open()
        await stage.ended(*ids)
        assert stage.gate.started == [running, *order]


async def test_items_are_what_the_client_sent(tmp_path: Path) -> None:
    async with staged(Mode.FULL, tmp_path) as stage:
        await stage.blocker()
        fields: dict[str, Any] = {
            "client_id": "me",
            "extra_data": {"mine": 1, "auth_token_comfy_org": "secret"},
            "front": True,
        }
        for _ in range(3):
            await stage.client.submit(encode("b", "x"), prompt_id=fresh_id(), **fields)
        _, pending = await stage.client.queue()
        assert len(pending) == 3
        for number, _, prompt, extra_data, outputs in pending:
            assert prompt == encode("b", "x")
            created = extra_data.pop("create_time")
            assert extra_data == {"mine": 1, "client_id": "me"}
            assert isinstance(created, int)
            assert outputs == ["9"]
            assert number <= 0
        assert "secret" not in (await stage.client.get("/queue")).body.decode()


async def test_comfyui_is_away_and_the_queue_is_still_shown(tmp_path: Path) -> None:
    async with staged(Mode.FULL, tmp_path) as stage:
        ids = [await stage.blocker(), *(fresh_id() for _ in range(3))]
        for prompt_id in ids[1:]:
            await stage.client.submit(encode("b", prompt_id), prompt_id=prompt_id)
        await stage.comfy.crash()
        running, pending = await shown(stage)
        assert sorted([*running, *pending]) == sorted(ids)
        assert (await stage.client.get_json("/prompt"))["exec_info"]["queue_remaining"] == 4
        jobs = (await stage.client.get_json("/api/jobs"))["jobs"]
        assert sorted(job["id"] for job in jobs) == sorted(ids)
        assert (await stage.post("/queue", {"delete": ids[2:]})).status == 200
        running, pending = await shown(stage)
        assert sorted([*running, *pending]) == sorted(ids[:2])
        await stage.comfy.restart()
        stage.gate.open()
        await stage.ended(*ids[:2])
        assert set(stage.gate.started) == set(ids[:2])


async def test_deleting_and_clearing(tmp_path: Path) -> None:
    async with staged(Mode.FULL, tmp_path) as stage:
        running = await stage.blocker()
        ids = [fresh_id() for _ in range(6)]
        for prompt_id in ids:
            await stage.client.submit(encode("b", prompt_id), prompt_id=prompt_id)
        # the running one is left alone, as ComfyUI leaves it; what is unknown harms nobody
        assert (await stage.post("/queue", {"delete": [running, ids[0], ids[3], "no such id", 5]})).status == 200
        assert await shown(stage) == ([running], [ids[1], ids[2], ids[4], ids[5]])
        assert (await stage.post("/queue", {"clear": True})).status == 200
        assert await shown(stage) == ([running], [])
        assert stage.pending() == []
        stage.gate.open()
        await stage.ended(running)
        assert stage.gate.started == [running]
        # ids that were deleted may be used again
        await stage.client.submit(encode("b", "again"), prompt_id=ids[3])
        await stage.ended(ids[3])


async def test_what_queue_does_not_take(tmp_path: Path) -> None:
    async with staged(Mode.FULL, tmp_path) as stage:
        for body in (b"{", b"5", b'{"delete": 5}', b"\xff"):
            refused = await stage.post("/queue", body)
            assert refused.status == 400
            assert refused.json()["error"]["type"] in {"invalid_json", "invalid_body"}


async def test_interrupting(tmp_path: Path) -> None:
    async with staged(Mode.FULL, tmp_path, time_scale=1000) as stage, stage.client.socket() as socket:
        first, second, third = (fresh_id() for _ in range(3))
        for prompt_id in (first, second, third):
            await stage.client.submit(sampling(prompt_id), socket.client_id, prompt_id=prompt_id)
        await socket.until_event("progress", prompt_id=first)
        assert (await stage.post("/interrupt", {"prompt_id": third})).status == 200  # it waits: nothing happens
        assert (await stage.post("/interrupt", b"no JSON")).status == 200  # as none at all: what runs
        await socket.until_event("execution_interrupted", prompt_id=first)
        await socket.until_event("progress", prompt_id=second)
        await stage.post("/interrupt", {"prompt_id": second})
        await socket.until_event("execution_interrupted", prompt_id=second)
        await socket.until_event("progress", prompt_id=third)
        await stage.post("/interrupt", {})
        await socket.until_event("execution_interrupted", prompt_id=third)
        entries = await stage.ended(first, second, third)
        assert [entry["status"]["messages"][-1][0] for entry in entries] == ["execution_interrupted"] * 3


async def test_a_foreign_prompt_is_stopped_where_it_runs(tmp_path: Path) -> None:
    async with staged(Mode.FULL, tmp_path, time_scale=1000) as stage, stage.direct.socket() as socket:
        for path, body in (("/interrupt", {"prompt_id": None}), ("/interrupt", {}), ("/queue", {"clear": True})):
            running, waiting = fresh_id(), fresh_id()
            for prompt_id in (running, waiting):
                await stage.direct.submit(sampling(prompt_id), socket.client_id, prompt_id=prompt_id)
            await socket.until_event("progress", prompt_id=running)
            await until(lambda: stage.proxy.engine._remaining() == 2, "the foreign prompts to be seen")
            assert await shown(stage) == ([running], [waiting])
            if path == "/queue":
                await stage.post(path, body)
                assert await shown(stage) == ([running], [])
            else:
                await stage.post("/queue", {"delete": [waiting]})
                assert await shown(stage) == ([running], [])
                await stage.post(path, body | {"prompt_id": running} if "prompt_id" in body else body)
                await socket.until_event("execution_interrupted", prompt_id=running)
        await stage.post("/interrupt", {})
        await stage.comfy.idle()


async def test_a_long_queue_lets_others_have_their_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turn, turns_of_items = 0, []

    async def take_turns() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    def queue_item(held: Held, number: float) -> bytes:
        turns_of_items.append(turn)
        return original(held, number)

    original = Held.queue_item
    async with staged(Mode.FULL, tmp_path) as stage:
        await stage.blocker()
        padding: dict[str, Any] = {"extra_data": {"padding": "x" * (1 << 14)}}
        for _ in range(40):
            await stage.client.submit(encode("b", "x"), **padding)
        monkeypatch.setattr(Held, "queue_item", queue_item)
        other = asyncio.create_task(take_turns())
        _, pending = await stage.client.queue()
        other.cancel()
        assert len(pending) == 40
        assert len(set(turns_of_items)) > 5
