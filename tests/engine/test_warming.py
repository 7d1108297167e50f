"""Warm-ups through the whole proxy: models are there before a client asks, and no client sees them or waits long."""

import asyncio
import json
from pathlib import Path

import pytest

from proxy.core.mode import Mode
from proxy.engine import warming
from simulator import CacheMode
from tests.engine.relay import Asked, Fate
from tests.engine.stage import fresh_id
from tests.engine.warm_stage import WarmStage, encode, entry, eventually, node, until, warm_stage

MODES = pytest.mark.parametrize("mode", [Mode.PINS, Mode.FULL])


@pytest.fixture(autouse=True)
def _no_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warming, "SETTLE", 0.0)
    monkeypatch.setattr(warming, "_LOOK", 0.001)


def is_warmup(request: Asked) -> bool:
    return request.is_("POST", "/prompt") and b"comfykeep_warmup" in request.body


async def begun(stage: WarmStage) -> "asyncio.Task[object]":
    """A warm-up by hand that ComfyUI has begun and is held in; to be let go by the gate."""
    stage.gate.shut_all()
    task: asyncio.Task[object] = asyncio.create_task(stage.warm(model="a.safetensors"))
    await until(lambda: stage.gate.started, "the warm-up to start")
    return task


def endless(folder: Path) -> str:
    """A schedule with a workflow that samples until it is interrupted."""
    workflow = {
        "1": node("FakeCheckpointLoader", ckpt_name="m1"),
        "2": node("FakeSampler", model=["1", 0], positive="x", seed=0, steps=100_000),
        "3": node("FakeOutput", value=["2", 0]),
    }
    (folder / "endless.api.json").write_text(json.dumps(workflow))
    return '[[entry]]\nname = "endless"\nprompt = "endless.api.json"\nset = { "2.inputs.steps" = 100000 }\n'


# -- models are there -------------------------------------------------------------------------------------------------


@MODES
async def test_the_first_prompt_after_a_start_reads_nothing_from_disk(mode: Mode, tmp_path: Path) -> None:
    async with warm_stage(tmp_path, entry("morning", "a", on=["upstream-start"]), mode) as stage:
        await stage.ready()
        assert stage.loads == ["a"]
        await stage.run(encode("a", "the first"))
        assert stage.loads == ["a"]


@MODES
async def test_nor_does_the_first_after_a_crash_and_readiness_waits_for_it(mode: Mode, tmp_path: Path) -> None:
    async with warm_stage(tmp_path, entry("morning", "a", on=["upstream-start"]), mode) as stage:
        await stage.ready()
        await stage.comfy.crash()
        await until(lambda: not stage.proxy.engine.feed.up, "the crash to be seen")
        assert not await stage.is_ready()
        stage.gate.shut_all()
        await stage.comfy.restart()
        begun_before = len(stage.gate.started)
        await until(lambda: len(stage.gate.started) > begun_before, "the warm-up to start")
        answer = await stage.client.get("/comfykeep/ready")
        assert (answer.status, answer.json()["ready"]) == (503, False)
        assert "warmed up" in answer.json()["reason"]
        stage.gate.open()
        await stage.ready()
        assert stage.loads == ["a", "a"]
        await stage.run(encode("a", "the first"))
        assert stage.loads == ["a", "a"]


async def test_readiness_waits_for_nobody_where_it_is_not_to(tmp_path: Path) -> None:
    schedule = entry("morning", "a", on=["upstream-start"])
    async with warm_stage(tmp_path, schedule, gate_readiness=False) as stage:
        stage.gate.shut_all()
        assert await stage.is_ready()


@MODES
async def test_what_is_evicted_comes_back(mode: Mode, tmp_path: Path) -> None:
    """Without pins a prompt with another model drops the one before."""
    schedule = entry("always there", "a", to="ram", on=["evicted"])
    async with warm_stage(tmp_path, schedule, mode, max_chains=0, cache=CacheMode.CLASSIC) as stage:
        await stage.run(encode("a", "used by a client"))
        await stage.run(encode("b", "and displaced by another"))
        assert await stage.result("always there") == "warmed"
        assert stage.loads == ["a", "b", "a"]
        await stage.run(encode("a", "used again"))
        assert stage.loads == ["a", "b", "a"]


async def test_what_was_freed_by_hand_counts_as_evicted(tmp_path: Path) -> None:
    schedule = entry("always there", "a", to="ram", on=["evicted"])
    async with warm_stage(tmp_path, schedule) as stage:
        await stage.run(encode("a", "used by a client"))
        await stage.client.post("/free", {"unload_models": True, "free_memory": True})
        assert await stage.result("always there") == "warmed"
        assert stage.loads == ["a", "a"]


async def test_what_is_there_is_not_warmed_again(tmp_path: Path) -> None:
    async with warm_stage(tmp_path, entry("a", "a")) as stage:
        assert (await stage.warm(name="a"))["result"] == "warmed"
        again = await stage.warm(name="a")
        assert (again["result"], again["detail"]) == ("skipped", "a.safetensors already in VRAM")
        assert len([request for request in stage.relay.requests if is_warmup(request)]) == 1


async def test_a_workflow_is_warmed_without_saving_anything(tmp_path: Path) -> None:
    workflow = {
        "1": node("CheckpointLoaderSimple", ckpt_name="a.safetensors"),
        "2": node("CLIPTextEncode", text="x", clip=["1", 1]),
        "3": node("EmptyLatentImage", width=1024, height=1024, batch_size=4),
        "4": node(
            "KSampler", model=["1", 0], positive=["2", 0], negative=["2", 0], latent_image=["3", 0], seed=1, steps=30,
            cfg=7.0, sampler_name="euler", scheduler="normal", denoise=1.0,
        ),
        "5": node("VAEDecode", samples=["4", 0], vae=["1", 2]),
        "6": node("SaveImage", images=["5", 0], filename_prefix="portrait"),
    }  # fmt: skip
    (tmp_path / "portrait.api.json").write_text(json.dumps(workflow))
    async with warm_stage(tmp_path, '[[entry]]\nname = "portrait"\nprompt = "portrait.api.json"\n') as stage:
        assert (await stage.warm(name="portrait"))["result"] == "warmed"
        assert stage.loads == ["a"]
        assert list(stage.comfy.directories.output.iterdir()) == []
        await stage.run(workflow)
        assert stage.loads == ["a"]
        assert len(list(stage.comfy.directories.output.iterdir())) == 4


@MODES
async def test_what_is_to_be_kept_outlives_more_models_than_may_be_kept(mode: Mode, tmp_path: Path) -> None:
    schedule = entry("kept", "a", to="ram", keep="'2h'")
    async with warm_stage(tmp_path, schedule, mode, max_chains=1, cache=CacheMode.CLASSIC) as stage:
        await stage.warm(name="kept")
        for name in "bcd":
            await stage.run(encode(name, name))
        await stage.run(encode("a", "still there"))
        assert stage.loads == ["a", "b", "c", "d"]


# -- clients go first -------------------------------------------------------------------------------------------------


@MODES
async def test_a_client_waits_for_the_running_prompt_of_a_warm_up_and_no_longer(mode: Mode, tmp_path: Path) -> None:
    """A group of three models is warmed by three prompts; the client's comes after the first."""
    workflow = {str(n): node("CheckpointLoaderSimple", ckpt_name=f"{name}.safetensors") for n, name in enumerate("abc")}
    shown = {f"{n}0": node("PreviewAny", source=[n, 0]) for n in workflow}
    (tmp_path / "three.api.json").write_text(json.dumps(workflow | shown))
    schedule = '[[entry]]\nname = "three"\nprompt = "three.api.json"\nto = "ram"\n'
    async with warm_stage(tmp_path, schedule, mode) as stage:
        stage.gate.shut_all()
        warmed = asyncio.create_task(stage.warm(name="three"))
        await until(lambda: stage.gate.started, "the first prompt of the warm-up")
        theirs = fresh_id()
        submitting = asyncio.create_task(stage.client.submit(encode("d", "a client's"), prompt_id=theirs))
        await until(lambda: any(item[1] == theirs for item in stage.comfy.process.queue.pending), "its arrival")
        stage.gate.open()
        await submitting
        assert (await warmed)["result"] == "warmed"
        assert stage.gate.started[1] == theirs
        assert len(stage.gate.started) == 4
        assert stage.loads == ["a", "d", "b", "c"]


@MODES
async def test_one_that_has_not_begun_is_taken_back_for_a_client(mode: Mode, tmp_path: Path) -> None:
    """Somebody submits to ComfyUI directly just before the warm-up gets there, so that it has to wait."""
    async with warm_stage(tmp_path, entry("a", "a"), mode) as stage:
        blocker, theirs = fresh_id(), fresh_id()
        stage.gate.shut(blocker)

        async def come_first(request: Asked) -> Fate:
            if is_warmup(request) and blocker not in stage.gate.started:
                await stage.direct.submit(encode("b", "somebody else's"), prompt_id=blocker)
                await stage.gate.reached(blocker)
            return Fate.PASSED

        stage.relay.script = come_first
        queue = stage.comfy.process.queue
        warmed = asyncio.create_task(stage.warm(name="a"))
        await until(lambda: any("comfykeep_warmup" in item[3] for item in queue.pending), "the warm-up to wait")
        submitting = asyncio.create_task(stage.client.submit(encode("c", "a client's"), prompt_id=theirs))
        await until(lambda: not any("comfykeep_warmup" in item[3] for item in queue.pending), "it to be taken back")
        assert not warmed.done()
        stage.gate.open(blocker)
        await submitting
        assert (await warmed)["result"] == "warmed"
        assert stage.gate.started[:2] == [blocker, theirs]


@MODES
async def test_nothing_is_sent_while_a_clients_prompt_runs(mode: Mode, tmp_path: Path) -> None:
    async with warm_stage(tmp_path, entry("a", "a"), mode) as stage:
        theirs = fresh_id()
        stage.gate.shut(theirs)
        await stage.client.submit(encode("b", "a client's"), prompt_id=theirs)
        await stage.gate.reached(theirs)
        warmed = asyncio.create_task(stage.warm(name="a"))

        async def runs() -> bool:
            rows = (await stage.client.get_json("/comfykeep/warmup"))["entries"]
            return [row["status"] for row in rows] == ["running"]

        await eventually(runs, "the warm-up to want its turn")
        for _ in range(10):
            await stage.client.get_json("/queue")
        assert not any(map(is_warmup, stage.relay.requests))
        stage.gate.open(theirs)
        assert (await warmed)["result"] == "warmed"
        assert stage.gate.started[0] == theirs


async def test_only_when_idle_waits_for_the_last_client(tmp_path: Path) -> None:
    async with warm_stage(tmp_path, entry("a", "a", on=["upstream-start"], only_when_idle="true")) as stage:
        assert await stage.result("a") == "warmed"
        theirs = fresh_id()
        stage.gate.shut(theirs)
        await stage.client.submit(encode("b", "a client's"), prompt_id=theirs)
        await stage.gate.reached(theirs)
        assert stage.proxy.engine.warming.idle_for() is None
        stage.gate.open(theirs)
        await until(lambda: stage.proxy.engine.warming.idle_for() is not None, "idleness")


# -- nobody sees it ---------------------------------------------------------------------------------------------------


@MODES
async def test_no_client_sees_a_warm_up(mode: Mode, tmp_path: Path) -> None:
    async with warm_stage(tmp_path, mode=mode) as stage, stage.client.socket() as socket:
        first = len(socket.frames)
        warmed = await begun(stage)
        assert await stage.direct.queue() != ([], [])
        assert await stage.client.queue() == ([], [])
        assert await stage.client.get_json("/prompt") == {"exec_info": {"queue_remaining": 0}}
        assert (await stage.client.get_json("/api/jobs"))["jobs"] == []
        assert (await stage.client.get_json("/api/jobs"))["pagination"]["total"] == 0
        async with stage.client.socket() as late:
            assert late.named("status")[0].data["status"]["exec_info"]["queue_remaining"] == 0
        theirs = fresh_id()
        submitting = asyncio.create_task(stage.client.submit(encode("b", "theirs"), socket.client_id, prompt_id=theirs))
        await until(lambda: stage.comfy.process.queue.pending, "a client's prompt behind it")
        stage.gate.open()
        await submitting
        await socket.until_done(theirs)
        await warmed
        assert list(await stage.client.get_json("/history")) == [theirs]
        seen = socket.frames[first:]
        assert {event.data.get("prompt_id", theirs) for event in seen} == {theirs}  # type: ignore[union-attr]
        counts = [event.data["status"]["exec_info"]["queue_remaining"] for event in socket.named("status")]
        assert set(counts) == {0, 1}
        assert counts[-1] == 0


@MODES
async def test_whoever_asks_sees_it(mode: Mode, tmp_path: Path) -> None:
    async with warm_stage(tmp_path, mode=mode) as stage:
        warmed = await begun(stage)
        running = (await stage.client.get_json("/queue?comfykeep_warmups=1"))["queue_running"]
        assert [item[3]["comfykeep_warmup"] for item in running] == ["a.safetensors"]
        jobs = (await stage.client.get_json("/api/jobs?comfykeep_warmups=1"))["jobs"]
        assert [job["id"] for job in jobs] == [running[0][1]]
        stage.gate.open()
        await warmed


@MODES
async def test_its_history_is_gone_from_comfyui_too_and_nobody_elses(mode: Mode, tmp_path: Path) -> None:
    async with warm_stage(tmp_path, mode=mode) as stage:
        theirs = fresh_id()
        await stage.run(encode("b", "theirs"), theirs)
        await stage.warm(model="a.safetensors")
        await until(lambda: stage.history == [theirs], "the warm-up to be forgotten")


async def test_the_totals_are_of_clients_prompts(tmp_path: Path) -> None:
    async with warm_stage(tmp_path) as stage:
        await stage.warm(model="a.safetensors")
        await stage.run(encode("a", "theirs"))
        totals = (await stage.client.get_json("/comfykeep/status"))["totals"]
        assert (totals["prompts"], totals["loaded"], totals["kept"]) == (1, 0, 1)


async def test_a_warm_up_of_a_proxy_that_has_gone_is_hidden_by_the_next(tmp_path: Path) -> None:
    async with warm_stage(tmp_path) as stage:
        prompt = {
            "1": node("CheckpointLoaderSimple", ckpt_name="a.safetensors"),
            "2": node("PreviewAny", source=["1", 0]),
        }
        await stage.warm(model="a.safetensors")
        left = json.loads(next(request for request in stage.relay.requests if is_warmup(request)).body)
        left_id = fresh_id()
        stage.gate.shut(left_id)
        body = {**left, "prompt": prompt, "prompt_id": left_id, "client_id": "comfykeep-of-another"}
        await stage.direct.post("/prompt", body)
        await stage.gate.reached(left_id)
        stage.relay.break_sockets()
        warm = stage.proxy.engine.warming
        await until(lambda: left_id in warm.hidden, "it to be recognised")
        assert await stage.client.queue() == ([], [])
        assert await stage.client.get_json("/prompt") == {"exec_info": {"queue_remaining": 0}}
        await until(lambda: warm.idle_for() is not None, "idleness")
        stage.gate.open(left_id)
        await until(lambda: stage.history == [], "it to be forgotten")


# -- what goes wrong --------------------------------------------------------------------------------------------------


async def test_a_refusal_is_told_with_comfyuis_reason(tmp_path: Path) -> None:
    async with warm_stage(tmp_path, entry("a", "a")) as stage:
        stage.relay.script = _refused
        outcome = await stage.warm(name="a")
        assert outcome["result"] == "failed"
        assert "Value not in list" in outcome["detail"]
        assert stage.proxy.engine.warming.hidden == frozenset()


async def _refused(request: Asked) -> Fate | bytes:
    if not is_warmup(request):
        return Fate.PASSED
    errors = [{"type": "value_not_in_list", "message": "Value not in list", "details": "ckpt_name: 'a'"}]
    body = {
        "error": {"type": "prompt_outputs_failed_validation", "message": "Prompt outputs failed validation"},
        "node_errors": {"1": {"errors": errors, "dependent_outputs": [], "class_type": "CheckpointLoaderSimple"}},
    }
    raw = json.dumps(body).encode()
    return b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        len(raw),
        raw,
    )


@MODES
async def test_the_death_of_comfyui_is_a_failure_of_the_entry(mode: Mode, tmp_path: Path) -> None:
    async with warm_stage(tmp_path, entry("a", "a"), mode) as stage:
        stage.gate.shut_all()
        warmed = asyncio.create_task(stage.warm(name="a"))
        await until(lambda: stage.gate.started, "the warm-up to start")
        await stage.comfy.crash()
        outcome = await warmed
        assert outcome["result"] == "failed"
        assert "died" in outcome["detail"]
        await stage.comfy.restart()
        await until(lambda: stage.proxy.engine.warming.surroundings() is not None, "the new ComfyUI")
        stage.gate.open()
        await stage.run(encode("b", "life goes on"))
        await until(lambda: stage.proxy.engine.warming.idle_for() is not None, "idleness")


async def test_one_that_takes_too_long_is_interrupted(tmp_path: Path) -> None:
    async with warm_stage(tmp_path, endless(tmp_path) + "timeout = 0.1\n", time_scale=1.0) as stage:
        outcome = await stage.warm(name="endless")
        assert outcome["result"] == "timed out"
        await stage.direct.idle()


async def test_somebody_may_interrupt_it(tmp_path: Path) -> None:
    async with warm_stage(tmp_path, endless(tmp_path), time_scale=1.0) as stage:
        warmed = asyncio.create_task(stage.warm(name="endless"))
        await until(lambda: stage.gate.started, "the warm-up to start")
        await stage.client.post("/interrupt", {})
        assert (await warmed)["result"] == "cancelled"


async def test_a_stop_takes_back_what_runs_and_says_so(tmp_path: Path) -> None:
    async with warm_stage(tmp_path, endless(tmp_path), time_scale=1.0) as stage:
        asked = asyncio.create_task(stage.client.post("/comfykeep/warmup", {"name": "endless"}))
        await until(lambda: stage.gate.started, "the warm-up to start")
        await stage.stop()
        answer = await asked
        assert (answer.status, answer.json()["error"]["type"]) == (503, "shutting_down")
        await stage.direct.idle()


async def test_in_observe_nothing_is_warmed_and_whoever_asks_is_told(tmp_path: Path) -> None:
    schedule = entry("a", "a", on=["start", "upstream-start"])
    async with warm_stage(tmp_path, schedule, Mode.OBSERVE, gate_readiness=False) as stage:
        answer = await stage.client.post("/comfykeep/warmup", {"name": "a"})
        assert (answer.status, answer.json()["error"]["type"]) == (409, "observing")
        await stage.run(encode("b", "theirs"))
        assert stage.loads == ["b"]
        await stage.client.request("PUT", "/comfykeep/mode", {"mode": "pins"})
        assert await stage.result("a") == "warmed"
        assert stage.loads == ["b", "a"]


async def test_a_paused_queue_sends_no_warm_up(tmp_path: Path) -> None:
    async with warm_stage(tmp_path, mode=Mode.FULL) as stage:
        held = stage.proxy.engine.held
        assert held is not None
        held.holding.scheduler.context.pauses.add("operator")
        warmed = asyncio.create_task(stage.warm(model="a.safetensors"))

        async def waits() -> bool:
            rows = (await stage.client.get_json("/comfykeep/warmup"))["entries"]
            return [row["status"] for row in rows] == ["running"]

        await eventually(waits, "the warm-up to wait")
        assert stage.loads == []
        held.holding.scheduler.context.pauses.clear()
        assert (await warmed)["result"] == "warmed"
