"""/api/jobs: queue and history as one list. ComfyUI 0.3.64 does not have it."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.contract import prompts
from tests.contract.client import Client, eventually
from tests.contract.normalise import normalise
from tests.contract.sockets import Socket
from tests.contract.targets import Target


@pytest.fixture(autouse=True)
def _only_where_it_is(target: Target) -> None:
    if not target.can.current:
        pytest.skip("no /api/jobs in this release")


@pytest_asyncio.fixture(loop_scope="module")
async def jobs(client: Client, socket: Socket, target: Target) -> AsyncIterator[dict[str, str]]:
    """One job of each kind and nothing else, by name, in order of their making."""
    await client.post("/history", {"clear": True})
    made = {
        "done": (await client.run(prompts.text("done"), socket, extra_data=workflow("first"))).prompt_id,
        "failed": (await client.run(prompts.failing(prompts.fresh()), socket)).prompt_id,
    }
    async with target.busy(client, socket) as made["cancelled"]:
        await client.post("/interrupt", {"prompt_id": made["cancelled"]})
    async with target.busy(client, socket) as made["running"]:
        made["waiting"] = (await client.submit(prompts.text("waiting"), extra_data=workflow("second")))["prompt_id"]
        yield made
        await client.post("/queue", {"clear": True})


def workflow(name: str) -> dict[str, Any]:
    return {"extra_pnginfo": {"workflow": {"id": name}}}


async def next_millisecond() -> None:
    """Jobs are sorted by milliseconds: what is made after this is later than what was made before."""
    now = time.time_ns() // 1_000_000

    async def is_later() -> bool:
        return time.time_ns() // 1_000_000 > now

    await eventually(is_later, "a later millisecond")


async def listed(client: Client, query: str = "") -> list[str]:
    return [job["id"] for job in (await client.get_json(f"/api/jobs?{query}"))["jobs"]]


async def test_all_of_them_newest_first(client: Client, jobs: dict[str, str]) -> None:
    answer = await client.get_json("/api/jobs")
    assert answer.keys() == {"jobs", "pagination"}
    assert answer["pagination"] == {"offset": 0, "limit": None, "total": 5, "has_more": False}
    assert [job["id"] for job in answer["jobs"]] == list(reversed(jobs.values()))
    assert [job["status"] for job in answer["jobs"]] == ["pending", "in_progress", "cancelled", "failed", "completed"]


async def test_they_exist_under_api_only(client: Client) -> None:
    assert (await client.get("/jobs")).status == 404
    assert (await client.get("/api/api/jobs")).status == 200


async def test_what_a_waiting_job_shows(client: Client, jobs: dict[str, str]) -> None:
    job = await client.get_json(f"/api/jobs/{jobs['waiting']}")
    assert isinstance(job.pop("priority"), int)
    assert normalise(job) == {
        "id": "<uuid>",
        "status": "pending",
        "create_time": "<time>",
        "outputs_count": 0,
        "previewable_outputs_count": 0,
        "workflow_id": "second",
    }


async def test_what_a_running_job_shows(client: Client, jobs: dict[str, str]) -> None:
    job = await client.get_json(f"/api/jobs/{jobs['running']}")
    assert job["status"] == "in_progress"
    counts = {"outputs_count", "previewable_outputs_count"}
    assert job.keys() == {"id", "status", "priority", "create_time"} | counts


async def test_what_a_finished_job_shows(client: Client, jobs: dict[str, str], socket: Socket) -> None:
    job = await client.get_json(f"/api/jobs/{jobs['done']}")
    entry = await client.history(jobs["done"])
    number, _, prompt, extra_data, _ = entry["prompt"]
    times = job.pop("execution_start_time"), job.pop("execution_end_time")
    assert times == tuple(entry["status"]["messages"][index][1]["timestamp"] for index in (0, -1))
    assert prompt == prompts.text("done")
    assert extra_data["client_id"] == socket.client_id
    assert job == {
        "id": jobs["done"],
        "status": "completed",
        "priority": number,
        "create_time": extra_data["create_time"],
        "outputs_count": 0,
        "previewable_outputs_count": 0,
        "preview_output": {"content": "done", "nodeId": "2", "mediaType": "text"},
        "workflow_id": "first",
        "outputs": {"2": {"text": ["done"]}},
        "execution_status": entry["status"],
        "workflow": {"prompt": prompt, "extra_data": extra_data},
    }


async def test_what_a_failed_job_shows(client: Client, jobs: dict[str, str]) -> None:
    (job,) = (await client.get_json("/api/jobs?status=failed"))["jobs"]
    assert job["id"] == jobs["failed"]
    assert job["execution_error"]["node_id"] == "2"
    assert job["execution_error"]["current_inputs"]["filename_prefix"] == ["../outside/of/it"]
    assert set(job["execution_error"]["current_outputs"]) == {"1", "2"}
    assert "outputs" not in job


async def test_images_are_counted_and_shown(client: Client, socket: Socket) -> None:
    run = await client.run(prompts.image(prompts.fresh(), batch_size=2), socket)
    job = await client.get_json(f"/api/jobs/{run.prompt_id}")
    assert (job["outputs_count"], job["previewable_outputs_count"]) == (2, 2)
    first = run.outputs["2"]["images"][0]
    assert job["preview_output"] == first | {"nodeId": "2", "mediaType": "images"}


LISTS = {
    "status=pending": ["waiting"],
    "status=in_progress": ["running"],
    "status=completed": ["done"],
    "status=cancelled": ["cancelled"],
    "status=Pending,%20completed": ["waiting", "done"],
    "status=": ["waiting", "running", "cancelled", "failed", "done"],
    "workflow_id=second": ["waiting"],
    "workflow_id=nobody": [],
    "sort_order=asc": ["done", "failed", "cancelled", "running", "waiting"],
    "sort_order=ASC&limit=2": ["done", "failed"],
    "limit=2&offset=1": ["running", "cancelled"],
    "offset=4": ["done"],
    "offset=-5&limit=1": ["waiting"],
    "offset=9": [],
}
"""Which jobs a query lists, in order."""


async def test_filters(client: Client, jobs: dict[str, str]) -> None:
    names = {prompt_id: name for name, prompt_id in jobs.items()}
    answers = {query: [names[prompt_id] for prompt_id in await listed(client, query)] for query in LISTS}
    assert answers == LISTS


async def test_sorting_by_duration(client: Client, jobs: dict[str, str]) -> None:
    answer = await client.get_json("/api/jobs?sort_by=execution_duration&sort_order=asc")
    durations = [job.get("execution_end_time", 0) - job.get("execution_start_time", 0) for job in answer["jobs"]]
    assert durations == sorted(durations)
    assert {job["id"] for job in answer["jobs"]} == set(jobs.values())


async def test_pages(client: Client, jobs: dict[str, str]) -> None:
    answer = await client.get_json("/api/jobs?limit=2&offset=2")
    assert len(jobs) == 5
    assert answer["pagination"] == {"offset": 2, "limit": 2, "total": 5, "has_more": True}
    last = await client.get_json("/api/jobs?limit=2&offset=4")
    assert last["pagination"] == {"offset": 4, "limit": 2, "total": 5, "has_more": False}


@pytest.mark.parametrize(
    ("query", "error"),
    [
        (
            "status=pending,lost",
            "Invalid status value(s): lost. Valid values: pending, in_progress, completed, failed, cancelled",
        ),
        ("sort_by=size", "sort_by must be 'created_at' or 'execution_duration'"),
        ("sort_order=up", "sort_order must be 'asc' or 'desc'"),
        ("limit=0", "limit must be a positive integer"),
        ("limit=x", "limit must be an integer"),
        ("offset=x", "offset must be an integer"),
    ],
)
async def test_questions_it_does_not_understand(client: Client, query: str, error: str) -> None:
    answer = await client.get(f"/api/jobs?{query}")
    assert (answer.status, answer.json()) == (400, {"error": error})


async def test_an_unknown_job(client: Client) -> None:
    answer = await client.get("/api/jobs/never-heard-of-it")
    assert (answer.status, answer.json()) == (404, {"error": "Job not found"})


@pytest.mark.parametrize(
    ("name", "cancelled"), [("waiting", True), ("done", False), ("failed", False), ("cancelled", False)]
)
async def test_cancelling_one(client: Client, jobs: dict[str, str], name: str, cancelled: bool) -> None:
    answer = await client.post(f"/api/jobs/{jobs[name]}/cancel")
    assert (answer.status, answer.json()) == (200, {"cancelled": cancelled})
    left = [item[1] for items in await client.queue() for item in items]
    assert left == [jobs["running"]] + ([] if cancelled else [jobs["waiting"]])


async def test_cancelling_the_running_one(client: Client, jobs: dict[str, str], socket: Socket) -> None:
    answer = await client.post(f"/api/jobs/{jobs['running']}/cancel")
    assert answer.json() == {"cancelled": True}
    await socket.until_event("execution_interrupted", prompt_id=jobs["running"])
    assert (await client.history(jobs["waiting"]))["status"]["status_str"] == "success"


async def test_cancelling_an_unknown_one(client: Client) -> None:
    answer = await client.post("/api/jobs/never-heard-of-it/cancel")
    assert (answer.status, answer.json()) == (200, {"cancelled": False})


async def test_cancelling_several(client: Client, jobs: dict[str, str], socket: Socket) -> None:
    wanted = [jobs["waiting"], jobs["done"], jobs["running"], "00000000-0000-4000-8000-000000000000"]
    answer = await client.post("/api/jobs/cancel", {"job_ids": wanted})
    assert (answer.status, answer.json()) == (200, {"cancelled": True})
    await socket.until_event("execution_interrupted", prompt_id=jobs["running"])
    await client.idle()
    assert (await client.get(f"/api/jobs/{jobs['waiting']}")).status == 404


@pytest.mark.parametrize("name", ["done", "cancelled"])
async def test_cancelling_nothing(client: Client, jobs: dict[str, str], name: str) -> None:
    for ids in ([], [jobs[name]]):
        answer = await client.post("/api/jobs/cancel", {"job_ids": ids})
        assert (answer.status, answer.json()) == (200, {"cancelled": False})


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (b"{", {"error": "Request body must be valid JSON"}),
        (b"[]", {"error": "job_ids must be a list"}),
        (b'{"job_ids": "x"}', {"error": "job_ids must be a list"}),
        (b'{"job_ids": ["x", 5]}', {"error": "job_ids contains invalid id(s)", "invalid_ids": ["x", "5"]}),
    ],
)
async def test_cancelling_what_is_no_list(client: Client, body: bytes, answer: Any) -> None:
    told = await client.request("POST", "/api/jobs/cancel", body)
    assert (told.status, told.json()) == (400, answer)


async def test_waiting_jobs_in_the_order_of_their_making(client: Client, socket: Socket, target: Target) -> None:
    """Whatever their numbers are, which are shown as priorities."""
    async with target.busy(client, socket) as running:
        made: list[tuple[str, float]] = []
        for fields in ({}, {"number": 1e9}, {"front": True}, {"number": -2.5}):
            answer = await client.submit(prompts.text("waiting"), **fields)
            made.append((answer["prompt_id"], answer["number"]))
            await next_millisecond()
        shown = (await client.get_json("/api/jobs?status=pending,in_progress&sort_order=asc"))["jobs"]
        assert [(job["id"], job["priority"]) for job in shown[1:]] == made
        assert [(job["id"], job["status"]) for job in shown[:1]] == [(running, "in_progress")]
        pages = [await listed(client, f"status=pending&limit=3&offset={offset}") for offset in (0, 3)]
        assert [job for page in pages for job in page] == [prompt_id for prompt_id, _ in reversed(made)]
        await client.post("/queue", {"clear": True})


async def test_cancelling_some_of_many(client: Client, socket: Socket, target: Target) -> None:
    """One of them twice; a cancelled prompt that has not run leaves no trace, and its id may be used again."""
    async with target.busy(client, socket) as running:
        ids = [(await client.submit(prompts.text("waiting")))["prompt_id"] for _ in range(4)]
        answer = await client.post("/api/jobs/cancel", {"job_ids": [ids[2], ids[0], ids[2]]})
        assert (answer.status, answer.json()) == (200, {"cancelled": True})
        left = [item[1] for items in await client.queue() for item in items]
        assert left == [running, ids[1], ids[3]]
        for prompt_id in (ids[0], ids[2]):
            assert await client.get_json(f"/history/{prompt_id}") == {}
        await client.submit(prompts.text("again"), prompt_id=ids[0])
        assert await client.get_json("/prompt") == {"exec_info": {"queue_remaining": 4}}
    assert (await client.history(ids[0]))["outputs"] == {"2": {"text": ["again"]}}


async def test_what_is_cancelled_while_it_starts(client: Client, socket: Socket, target: Target) -> None:
    """It is taken out, interrupted or has run; nothing of it stays behind."""
    async with target.busy(client, socket) as running:
        raced = (await client.submit((await target.long_prompt(client))[0]))["prompt_id"]
        await asyncio.gather(
            client.post("/interrupt", {"prompt_id": running}), client.post(f"/api/jobs/{raced}/cancel")
        )
        await client.history(running)
        await client.post(f"/api/jobs/{raced}/cancel")
        await client.idle()
    assert (await client.get_json(f"/api/jobs/{running}"))["status"] == "cancelled"
    assert (await client.post(f"/api/jobs/{raced}/cancel")).json() == {"cancelled": False}
