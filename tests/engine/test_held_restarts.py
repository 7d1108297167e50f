"""Whoever dies, the proxy or ComfyUI or both: what was accepted runs, in its order, and once if possible."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.config import QueueSection
from proxy.core.jobs import State
from proxy.core.mode import Mode
from tests.engine.relay import Asked, Fate, pass_all
from tests.engine.stage import Stage, encode, fresh_id, staged, until


async def accepted(stage: Stage, count: int, **fields: Any) -> list[str]:
    """Ids of prompts that were taken; none of them has ended."""
    ids = [fresh_id() for _ in range(count)]
    for prompt_id in ids:
        await stage.client.submit(encode("b", prompt_id), prompt_id=prompt_id, **fields)
    return ids


async def shown(stage: Stage) -> list[str]:
    return [item[1] for items in await stage.client.queue() for item in items]


async def test_a_killed_proxy_comes_back_with_everything(tmp_path: Path) -> None:
    async with staged(Mode.FULL, tmp_path) as stage:
        ids = [await stage.blocker(), *await accepted(stage, 5)]
        before = await stage.client.queue()
        await stage.kill()
        await stage.start()
        await until(lambda: stage.pending() == ids[1:2], "the staged one")
        assert await stage.client.queue() == before
        again = await stage.client.submit(encode("b", "other"), prompt_id=ids[3])
        assert again == {"prompt_id": ids[3], "number": 3, "node_errors": {}}
        stage.gate.open()
        await stage.ended(*ids)
        assert stage.gate.started == ids


async def test_what_ran_while_the_proxy_was_dead_is_not_run_again(tmp_path: Path) -> None:
    async with staged(Mode.FULL, tmp_path) as stage:
        ids = [await stage.blocker(), *await accepted(stage, 3)]
        await until(lambda: stage.pending() == ids[1:2], "the staged one")
        await stage.kill()
        stage.gate.open()
        await stage.comfy.idle()
        await stage.start()
        entries = await stage.ended(*ids)
        assert stage.gate.started == ids
        assert [entry["prompt"][2] for entry in entries[1:]] == [encode("b", prompt_id) for prompt_id in ids[1:]]
        await stage.stop()  # the history of what ended meanwhile is kept as well
        await stage.comfy.restart()
        await stage.start()
        assert set(await stage.client.get_json("/history")) == set(ids)


async def test_comfyui_crashes_while_prompts_run_and_wait(tmp_path: Path) -> None:
    async with staged(Mode.FULL, tmp_path) as stage, stage.client.socket() as socket:
        ids = [await stage.blocker(), *await accepted(stage, 3, client_id=socket.client_id)]
        await until(lambda: stage.pending() == ids[1:2], "the staged one")
        await stage.comfy.crash()
        await until(lambda: not stage.proxy.engine.feed.up, "the crash to be seen")
        late = await accepted(stage, 1)  # is taken all the same
        assert set(await shown(stage)) == {*ids, *late}
        stage.gate.open()
        await stage.comfy.restart()
        await stage.ended(*ids, *late)
        assert stage.gate.started[0] == ids[0]
        assert sorted(stage.gate.started) == sorted([*ids, *late])  # `started` notes an id once
        ran = [event.data["prompt_id"] for event in socket.named("execution_start")]
        assert ran == ids[1:]


async def test_both_die(tmp_path: Path) -> None:
    async with staged(Mode.FULL, tmp_path) as stage:
        done = (await accepted(stage, 1))[0]
        await stage.ended(done)
        ids = [await stage.blocker(), *await accepted(stage, 3)]
        await stage.kill()
        await stage.comfy.crash()
        await stage.comfy.restart()
        stage.gate.open()
        stage.gate.started.clear()
        await stage.start()
        await stage.ended(done, *ids)
        assert stage.gate.started == ids


async def test_a_prompt_that_kills_comfyui_is_given_up(tmp_path: Path) -> None:
    queue = QueueSection(max_attempts=2)
    async with staged(Mode.FULL, tmp_path, queue=queue) as stage, stage.client.socket() as socket:
        assert stage.proxy.engine.held is not None
        held = stage.proxy.engine.held.holding
        killer, other = fresh_id(), fresh_id()
        stage.gate.shut(killer)
        for prompt_id in (killer, other):
            await stage.client.submit(encode("b", prompt_id), socket.client_id, prompt_id=prompt_id)
        for _ in range(2):
            await until(
                lambda: (job := held.job(killer)) is not None and job.state is State.RUNNING, "its start to be known"
            )
            await stage.comfy.crash()
            await until(lambda: not stage.proxy.engine.feed.up, "the crash to be seen")
            stage.gate.started.clear()
            await stage.comfy.restart()
        failed = await socket.until_event("execution_error", prompt_id=killer)
        assert "attempt 2 of 2" in failed.data["exception_message"]
        await socket.until_event("executing", node=None, prompt_id=killer)
        gone, ran = await stage.ended(killer, other)
        assert gone["status"]["status_str"] == "error"
        assert gone["status"]["messages"][-1][0] == "execution_error"
        assert gone["prompt"][2] == encode("b", killer)
        assert ran["status"]["status_str"] == "success"
        assert killer not in stage.gate.started
        job = await stage.client.get_json(f"/api/jobs/{killer}")
        assert (job["status"], job["execution_error"]["prompt_id"]) == ("failed", killer)


@pytest.mark.parametrize("then", ["it waits", "it ends", "the connection breaks", "the proxy dies"])
async def test_a_dispatch_that_comes_to_a_new_process_proves_nothing(tmp_path: Path, then: str) -> None:
    """Nor does its end, if that is heard of before ComfyUI has been looked into."""
    first, late = fresh_id(), fresh_id()
    withheld, restarted, may_look = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def withhold(request: Asked) -> Fate:
        if request.is_("POST", "/prompt") and late.encode() in request.body and not restarted.is_set():
            withheld.set()
            await restarted.wait()
        elif request.is_("GET", "/queue") and withheld.is_set():
            await may_look.wait()
        return Fate.PASSED

    async with staged(Mode.FULL, tmp_path, queue=QueueSection(depth=3), script=withhold) as stage:
        assert stage.proxy.engine.held is not None
        queue = stage.proxy.engine.held.holding
        running = await stage.blocker(stage.client if then == "the proxy dies" else stage.direct)
        await stage.client.submit(encode("b", first), prompt_id=first)
        await until(lambda: stage.pending() == [first], "the first to be staged")
        await until(lambda: (job := queue.job(first)) is not None and job.confirmed, "its answer")
        submitting = asyncio.create_task(stage.client.submit(encode("b", late), prompt_id=late))
        await withheld.wait()
        await stage.comfy.crash()
        await until(lambda: not stage.proxy.engine.feed.up, "the crash to be seen")
        await stage.comfy.restart()
        await until(lambda: stage.proxy.engine.feed.up, "its return to be seen")
        restarted.set()
        if then != "it waits":
            history = stage.proxy.engine.held.history
            await until(lambda: history.last_ended == late, "its end to be heard of")
        if then == "the connection breaks":
            stage.relay.break_sockets()
            await until(lambda: not stage.proxy.engine.feed.up, "the break to be seen")
        if then == "the proxy dies":
            await submitting
            await stage.kill()
            stage.gate.open()
            await stage.start()
            assert (await stage.ended(running))[0]["status"]["status_str"] == "success"
        may_look.set()
        await submitting
        entries = await stage.ended(first, late)
        assert [entry["status"]["status_str"] for entry in entries] == ["success", "success"]
        assert sorted(stage.gate.started) == sorted([running, first, late])


async def test_the_connection_breaks_but_comfyui_lives_on(tmp_path: Path) -> None:
    async with staged(Mode.FULL, tmp_path) as stage:
        ids = [await stage.blocker(), *await accepted(stage, 4)]
        for _ in range(3):
            stage.relay.break_sockets()
            await until(lambda: not stage.proxy.engine.feed.up, "the break to be seen")
            await until(lambda: stage.proxy.engine.feed.up, "the connection to stand again")
            assert await shown(stage) == ids
        stage.gate.open()
        await stage.ended(*ids)
        assert stage.gate.started == ids
        posts = stage.relay.asked("POST", "/prompt")
        assert sum(ids[0].encode() in post.body for post in posts) == 1


@pytest.mark.parametrize("killed", [False, True])
async def test_a_prompt_that_ran_is_not_run_again_because_its_history_was_deleted(
    tmp_path: Path, *, killed: bool
) -> None:
    """It ended while the proxy was dead or cut off. ComfyUI still has an older one, so it is the same process."""
    async with staged(Mode.FULL, tmp_path) as stage:
        assert stage.proxy.engine.held is not None
        queue, older = stage.proxy.engine.held.holding, fresh_id()
        await stage.client.submit(encode("b", older), prompt_id=older)
        await stage.ended(older)
        deleted = await stage.blocker()
        await until(lambda: (job := queue.job(deleted)) is not None and job.started is not None, "its start")

        async def no_sockets(asked: Asked) -> Fate:
            return Fate.BROKEN if "/ws" in asked.target else Fate.PASSED

        if killed:
            await stage.kill()
        else:
            stage.relay.script = no_sockets
            stage.relay.break_sockets()
            await until(lambda: not stage.proxy.engine.feed.up, "the break to be seen")
        stage.gate.open()
        assert (await stage.direct.history(deleted))["status"]["status_str"] == "success"
        await stage.direct.post("/history", {"delete": [deleted]})
        stage.gate.started.clear()
        if killed:
            await stage.start()
        else:
            stage.relay.script = pass_all
        (entry,) = await stage.ended(deleted)
        assert "somebody else removed it" in entry["status"]["messages"][-1][1]["exception_message"]
        await stage.comfy.idle()
        assert stage.gate.started == []


@pytest.mark.parametrize("ended", [False, True])
async def test_keys_and_ids_are_remembered_over_restarts(tmp_path: Path, ended: bool) -> None:
    async with staged(Mode.FULL, tmp_path) as stage:
        blocker = await stage.blocker()
        body = {"prompt": encode("b", "x")}
        first = await stage.post("/prompt", body, Idempotency_Key="order 17")
        prompt_id = first.json()["prompt_id"]
        if ended:
            stage.gate.open()
            await stage.ended(blocker, prompt_id)
        await stage.kill()
        await stage.start()
        again = await stage.post("/prompt", body, Idempotency_Key="order 17")
        same = await stage.post("/prompt", body | {"prompt_id": prompt_id})
        assert first.json() == again.json() == same.json()
        stage.gate.open()
        await stage.ended(prompt_id)
        await stage.comfy.idle()
        assert stage.gate.started == [blocker, prompt_id]


@pytest.mark.parametrize("same", [True, False])
async def test_what_is_missing_was_removed_only_if_comfyui_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same: bool
) -> None:
    """A new process has nothing either, and may answer before the end of the old one is noticed."""
    async with staged(Mode.FULL, tmp_path) as stage:
        running, removed = await stage.blocker(), (await accepted(stage, 1))[0]
        await until(lambda: stage.pending() == [removed], "the staged one")
        witness, asked = stage.proxy.engine.feed.witness, []

        def observed() -> Callable[[], Awaitable[bool]]:
            ask = witness()

            async def answer() -> bool:
                asked.append(await ask())
                return same

            return answer

        monkeypatch.setattr(stage.proxy.engine._watch, "_witness", observed)
        await stage.direct.post("/queue", {"delete": [removed]})
        await until(lambda: asked, "the look at ComfyUI's queue")
        assert asked == [True]
        if same:
            (entry,) = await stage.ended(removed)
            assert "somebody else removed it" in entry["status"]["messages"][-1][1]["exception_message"]
        else:
            assert removed in await shown(stage)
        stage.gate.open()
        await stage.ended(running)


async def test_comfyui_dies_before_the_history_of_a_run_was_copied(tmp_path: Path) -> None:
    """It has run, and whoever polls for it must find what came of it."""
    async with staged(Mode.FULL, tmp_path) as stage, stage.client.socket() as socket:
        prompt_id = fresh_id()

        async def no_history(asked: Asked) -> Fate:
            return Fate.BROKEN if asked.target.startswith("/history") else Fate.PASSED

        stage.relay.script = no_history
        await stage.client.submit(encode("b", "shown"), socket.client_id, prompt_id=prompt_id)
        await socket.until_event("executing", node=None, prompt_id=prompt_id)
        real = await stage.direct.history(prompt_id)
        await stage.comfy.crash()
        stage.relay.script = pass_all
        await stage.comfy.restart()
        (entry,) = await stage.ended(prompt_id)
        assert entry["prompt"][2] == encode("b", "shown")
        assert entry["status"]["completed"]
        assert [kind for kind, _ in entry["status"]["messages"]] == [kind for kind, _ in real["status"]["messages"]]
        assert entry["outputs"] == real["outputs"]
        assert entry["meta"] == real["meta"]


async def test_killed_between_a_recall_and_the_news_of_it(tmp_path: Path) -> None:
    """ComfyUI does not have it any more, by our own doing: it is no prompt that somebody removed."""
    async with staged(Mode.FULL, tmp_path) as stage:
        running, recalled = await stage.blocker(), (await accepted(stage, 1))[0]
        await until(lambda: stage.pending() == [recalled], "the staged one")
        deleted = asyncio.Event()

        async def swallow(asked: Asked) -> Fate:
            if asked.is_("POST", "/queue"):
                await stage.direct.post("/queue", {"delete": [recalled]})
                deleted.set()
                await asyncio.Event().wait()
            return Fate.PASSED

        stage.relay.script = swallow
        urgent = {"prompt": encode("c", "urgent"), "prompt_id": fresh_id()}
        submitting = asyncio.create_task(stage.post("/prompt", urgent, X_Comfykeep_Priority="5"))
        await deleted.wait()
        await stage.kill()
        await asyncio.gather(submitting, return_exceptions=True)
        await stage.start()
        stage.gate.open()
        entries = await stage.ended(running, recalled)
        assert [entry["status"]["status_str"] for entry in entries] == ["success"] * 2
