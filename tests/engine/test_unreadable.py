"""A prompt that cannot be read any more in the journal ends with a reason: nobody waits for it for ever."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

from proxy.core.mode import Mode
from tests.engine.stage import Stage, encode, fresh_id, staged, until


def spoil(stage: Stage, prompt_id: str) -> None:
    """Overwrite its body on disk; the proxy must be dead."""
    with closing(sqlite3.connect(stage.folder / "journal.sqlite3")) as database, database:
        database.execute(
            "UPDATE bodies SET body = X'7b', packed = 0 "
            "WHERE sequence = (SELECT sequence FROM prompts WHERE prompt_id = ?)",
            (prompt_id,),
        )


def stored(stage: Stage, prompt_id: str) -> tuple[str, bytes]:
    with closing(sqlite3.connect(stage.folder / "journal.sqlite3")) as database:
        query = "SELECT outcome, body FROM prompts JOIN bodies USING (sequence) WHERE prompt_id = ?"
        outcome, body = database.execute(query, (prompt_id,)).fetchone()
        return outcome, body


async def test_it_fails_and_its_client_hears_of_it(tmp_path: Path) -> None:
    async with staged(Mode.FULL, tmp_path) as stage:
        async with stage.client.socket() as socket:
            client_id = socket.client_id
        ids = [await stage.blocker(), *(fresh_id() for _ in range(3))]
        for prompt_id in ids[1:]:
            await stage.client.submit(encode("b", prompt_id), client_id, prompt_id=prompt_id)
        await until(lambda: stage.pending() == ids[1:2], "the staged one")
        await stage.kill()
        await stage.comfy.crash()
        stage.gate.open()
        spoil(stage, ids[2])
        await stage.start(wait=False)
        opening = asyncio.create_task(stage.client.open_socket(client_id))
        await until(lambda: client_id in stage.proxy.engine.feed.connected(), "the client")
        await stage.comfy.restart()
        socket = await opening
        error = await socket.until_event("execution_error", prompt_id=ids[2])
        assert error.data["exception_type"] == "comfykeep.unreadable"
        await socket.until_event("executing", node=None, prompt_id=ids[2])
        await socket.close()
        statuses = [entry["status"]["status_str"] for entry in await stage.ended(*ids)]
        assert statuses == ["success", "success", "error", "success"]
        again = await stage.client.submit(encode("b", "again"), prompt_id=ids[2])
        assert again["prompt_id"] == ids[2], "answered as it was"
        await stage.stop()
        assert stored(stage, ids[2]) == ("unreadable", b"{")


async def test_one_that_comfyui_has_is_left_to_it(tmp_path: Path) -> None:
    async with staged(Mode.FULL, tmp_path) as stage:
        running, staged_one = await stage.blocker(), fresh_id()
        await stage.client.submit(encode("b", "sent"), prompt_id=staged_one)
        await until(lambda: stage.pending() == [staged_one], "the staged one")
        await stage.kill()
        spoil(stage, staged_one)
        await stage.start()
        stage.gate.open()
        entries = await stage.ended(running, staged_one)
        assert [entry["status"]["status_str"] for entry in entries] == ["success", "success"]
