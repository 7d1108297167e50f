"""What ComfyUI forgot when it crashed is still told, together with what the new one remembers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.core.mode import Mode
from tests.engine.stage import Stage, encode, staged, until


@asynccontextmanager
async def remembered(folder: Path, *, away: bool = False) -> AsyncIterator[tuple[Stage, list[str]]]:
    """Three prompts that only the journal remembers, of two workflows, and two that ComfyUI has too, oldest first."""
    async with staged(Mode.FULL, folder) as stage:
        ids = []
        for number in range(5):
            if number == 3:
                await stage.comfy.crash()
                await until(lambda: not stage.proxy.engine.feed.up, "the crash to be seen")
                await stage.comfy.restart()
            workflow = {"workflow": {"id": f"w{number % 2}"}}
            answer = await stage.client.submit(encode("a", str(number)), extra_data={"extra_pnginfo": workflow})
            ids.append(answer["prompt_id"])
            await stage.ended(ids[-1])
        await stage.comfy.idle()
        if away:
            await stage.comfy.crash()
            await until(lambda: not stage.proxy.engine.feed.up, "the crash to be seen")
        yield stage, ids


async def listed(stage: Stage, query: str = "") -> list[str]:
    return [job["id"] for job in (await stage.client.get_json(f"/api/jobs?{query}"))["jobs"]]


async def test_only_the_journal_remembers_the_old_ones(tmp_path: Path) -> None:
    async with remembered(tmp_path) as (stage, ids):
        assert list(await stage.direct.get_json("/history")) == ids[3:]
        assert await stage.direct.get_json(f"/history/{ids[0]}") == {}


@pytest.mark.parametrize("away", [False, True])
async def test_history_has_all_oldest_first(tmp_path: Path, away: bool) -> None:
    async with remembered(tmp_path, away=away) as (stage, ids):
        assert list(await stage.client.get_json("/history")) == ids
        assert list(await stage.client.get_json("/history?max_items=2")) == ids[3:]
        assert list(await stage.client.get_json("/history?max_items=2&offset=1")) == ids[1:3]
        for number, prompt_id in enumerate(ids):
            entry = (await stage.client.get_json(f"/history/{prompt_id}"))[prompt_id]
            assert entry["status"]["status_str"] == "success"
            assert entry["prompt"][2] == encode("a", str(number))
            assert entry["outputs"]["9"]["text"]


@pytest.mark.parametrize("away", [False, True])
async def test_so_have_the_jobs(tmp_path: Path, away: bool) -> None:
    async with remembered(tmp_path, away=away) as (stage, ids):
        newest = ids[::-1]
        assert await listed(stage) == newest
        assert await listed(stage, "sort_order=asc") == ids
        assert await listed(stage, "status=completed&limit=2&offset=1") == newest[1:3]
        assert await listed(stage, "status=failed,pending") == []
        assert await listed(stage, "workflow_id=w1") == [ids[3], ids[1]]
        page = await stage.client.get_json("/api/jobs?limit=2&offset=2")
        assert page["pagination"] == {"offset": 2, "limit": 2, "total": 5, "has_more": True}


async def test_a_single_job_looks_the_same_whoever_remembers_it(tmp_path: Path) -> None:
    async with remembered(tmp_path) as (stage, ids):
        jobs: list[Any] = [await stage.client.get_json(f"/api/jobs/{prompt_id}") for prompt_id in ids]
        assert all(job.keys() == jobs[-1].keys() for job in jobs)
        assert [job["status"] for job in jobs] == ["completed"] * 5
        assert [job["workflow"]["prompt"] for job in jobs] == [encode("a", str(number)) for number in range(5)]
        assert jobs[0]["outputs"].keys() == jobs[-1]["outputs"].keys()


async def test_what_is_deleted_is_deleted_in_both(tmp_path: Path) -> None:
    async with remembered(tmp_path) as (stage, ids):
        assert (await stage.post("/history", {"delete": [ids[1], ids[4]]})).status == 200
        left = [ids[0], ids[2], ids[3]]
        assert list(await stage.client.get_json("/history")) == left
        assert await listed(stage, "sort_order=asc") == left
        assert list(await stage.direct.get_json("/history")) == [ids[3]]
        assert await stage.client.get_json(f"/history/{ids[1]}") == {}
        assert (await stage.client.get(f"/api/jobs/{ids[1]}")).status == 404
        assert (await stage.post("/history", {"clear": True})).status == 200
        assert await stage.client.get_json("/history") == {}
        assert await listed(stage) == []
        assert await stage.direct.get_json("/history") == {}
