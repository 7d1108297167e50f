"""Several prompts cancelled at once: none of them starts because another has made room for it."""

import asyncio
from pathlib import Path

from proxy.core.mode import Mode
from tests.engine.relay import Asked, Fate
from tests.engine.stage import encode, fresh_id, staged, until


async def test_what_is_cancelled_first_is_out_before_what_runs_is_interrupted(tmp_path: Path) -> None:
    release = asyncio.Event()
    withheld: list[Asked] = []

    async def withhold_deletions(request: Asked) -> Fate:
        if request.is_("POST", "/queue") and running and not release.is_set():
            withheld.append(request)
            await release.wait()
        return Fate.PASSED

    running = ""
    async with staged(Mode.FULL, tmp_path, script=withhold_deletions) as stage:
        blocker = await stage.blocker()
        waiting = fresh_id()
        await stage.client.submit(encode("b", "waits"), prompt_id=waiting)
        await until(lambda: stage.pending() == [waiting], "it to be staged")
        running = blocker
        answer = await stage.post("/api/jobs/cancel", {"job_ids": [waiting, blocker]})
        assert answer.json() == {"cancelled": True}
        await until(lambda: withheld, "the deletion to be on its way")
        for _ in range(3):  # whatever else was to be asked of ComfyUI has been asked by then
            await stage.client.get_json("/system_stats")
        assert not stage.relay.asked("POST", "/interrupt")
        release.set()
        await until(lambda: stage.comfy.process.executor.interrupt.wanted, "the interruption")
        stage.gate.open()
        (entry,) = await stage.ended(blocker)
        await stage.comfy.idle()
        assert entry["status"]["messages"][-1][0] == "execution_interrupted"
        assert stage.gate.started == [blocker]
        assert await stage.client.get_json(f"/history/{waiting}") == {}
