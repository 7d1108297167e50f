"""Hazard: a background task is lost, fails in silence, or outlives its owner."""

import asyncio

import pytest

from proxy.tasks import Tasks


async def test_a_task_runs_and_is_forgotten() -> None:
    tasks = Tasks()
    done = asyncio.Event()

    async def work() -> None:
        done.set()

    task = tasks.spawn(work(), "work")
    assert len(tasks) == 1
    await task
    assert done.is_set()
    assert len(tasks) == 0


async def test_a_failure_is_logged_and_touches_no_other(caplog: pytest.LogCaptureFixture) -> None:
    tasks = Tasks()
    other = tasks.spawn(asyncio.Event().wait(), "other")  # type: ignore[arg-type]

    async def fail() -> None:
        raise ValueError("lost?")

    await asyncio.wait([tasks.spawn(fail(), "the failing one")])
    await asyncio.sleep(0)
    assert "the failing one" in caplog.text
    assert "lost?" in caplog.text
    assert not other.done()
    await tasks.close()


async def test_closing_waits_for_what_tasks_do_at_their_end() -> None:
    tasks = Tasks()
    started, tidied = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        try:
            started.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            tidied.set()

    tasks.spawn(work(), "work")
    await started.wait()
    await tasks.close()
    assert tidied.is_set()
    await tasks.close()


async def test_nothing_starts_after_the_close() -> None:
    tasks = Tasks()
    await tasks.close()
    with pytest.raises(RuntimeError, match="closed"):
        tasks.spawn(asyncio.sleep(0), "late")
