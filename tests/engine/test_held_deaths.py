"""Deaths at the worst moments: between an end and its history, between a dispatch and its answer, before the start."""

import asyncio
import socket
import sqlite3
from pathlib import Path

import pytest

from proxy import app
from proxy.config import Config, JournalSection, ProxySection, UpstreamSection
from proxy.core.mode import Mode
from proxy.journal import Journal
from proxy.journal_records import Sync
from tests.engine.relay import Asked, Fate
from tests.engine.stage import encode, fresh_id, staged, until


async def test_comfyui_dies_before_its_history_was_read(tmp_path: Path) -> None:
    async def no_history(asked: Asked) -> Fate:
        return Fate.BROKEN if asked.method == "GET" and asked.target.startswith("/history/") else Fate.PASSED

    async with staged(Mode.FULL, tmp_path) as stage, stage.client.socket() as socket:
        stage.relay.script = no_history
        prompt_id = fresh_id()
        await stage.client.submit(encode("a", "lost"), socket.client_id, prompt_id=prompt_id)
        await socket.until_event("executing", node=None, prompt_id=prompt_id)
        theirs = await stage.direct.history(prompt_id)
        await stage.comfy.crash()
        await stage.comfy.restart()
        ours = await stage.client.history(prompt_id)
        assert ours["status"] == theirs["status"] | {"messages": ours["status"]["messages"]}
        assert [kind for kind, _ in ours["status"]["messages"]] == [kind for kind, _ in theirs["status"]["messages"]]
        assert list(ours["outputs"].values()) == list(theirs["outputs"].values())
        assert ours["prompt"][2] == encode("a", "lost")


async def test_a_proxy_dies_before_it_could_answer(tmp_path: Path) -> None:
    """The client submits again under its id: it is told that the prompt was taken, and it is not run twice."""

    class Silent:
        sent = False

        async def __call__(self, asked: Asked) -> Fate:
            if asked.is_("POST", "/prompt"):
                self.sent = True
                return Fate.UNANSWERED
            return Fate.BROKEN if self.sent and asked.method == "GET" else Fate.PASSED

    for ended in (False, True):
        async with staged(Mode.FULL, tmp_path / str(ended)) as stage:
            stage.relay.script = Silent()
            prompt_id = fresh_id()
            stage.gate.shut(prompt_id)
            asking = asyncio.create_task(stage.client.submit(encode("a", "1"), prompt_id=prompt_id))
            await stage.gate.reached(prompt_id)
            await stage.kill()
            await asyncio.gather(asking, return_exceptions=True)
            if ended:
                stage.gate.open()
                await stage.comfy.idle()
            await stage.start()
            again = await stage.client.submit(encode("a", "1"), prompt_id=prompt_id)
            assert again["prompt_id"] == prompt_id
            stage.gate.open()
            entry = (await stage.ended(prompt_id))[0]
            assert entry["status"]["status_str"] == "success"
            await stage.comfy.idle()
            assert len(stage.comfy.process.queue.history) == 1
            await stage.kill()  # what was taken up is a promise like any other
            await stage.comfy.crash()
            await stage.comfy.restart()
            await stage.start()
            assert (await stage.client.history(prompt_id))["prompt"][2] == encode("a", "1")


async def test_a_dispatch_is_written_down_before_it_happens(tmp_path: Path) -> None:
    states: dict[str, str] = {}

    async def look(asked: Asked) -> Fate:
        if asked.is_("POST", "/prompt"):
            with sqlite3.connect(f"file:{tmp_path}/journal.sqlite3?mode=ro", uri=True) as journal:
                states.update(journal.execute("SELECT prompt_id, state FROM prompts WHERE finished IS NULL").fetchall())
        return Fate.PASSED

    async with staged(Mode.FULL, tmp_path) as stage:
        running, staged_one, waits = await stage.blocker(), fresh_id(), fresh_id()
        for prompt_id in (staged_one, waits):
            await stage.client.submit(encode("a", prompt_id), prompt_id=prompt_id)
        stage.relay.script = look
        stage.gate.open()
        await stage.ended(running, staged_one, waits)
    assert states[waits] == "dispatching"


async def test_the_client_hears_of_an_end_that_went_by_while_the_connection_was_broken(tmp_path: Path) -> None:
    async def no_sockets(asked: Asked) -> Fate:
        return Fate.BROKEN if asked.is_("GET", "/ws") else Fate.PASSED

    async with staged(Mode.FULL, tmp_path) as stage, stage.client.socket() as socket:
        prompt_id = await stage.blocker(client_id=socket.client_id)
        stage.relay.script = no_sockets
        stage.relay.break_sockets()
        await until(lambda: not stage.proxy.engine.feed.up, "the break to be seen")
        stage.gate.open()
        await stage.comfy.idle()
        assert not socket.named("execution_success")
        stage.relay.script = lambda _: asyncio.sleep(0, Fate.PASSED)
        await socket.until_event("execution_success", prompt_id=prompt_id)
        await socket.until_event("executing", node=None, prompt_id=prompt_id)


async def test_the_port_opens_when_the_queue_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    refused: list[bool] = []

    class Watched(Journal):
        @classmethod
        async def open(cls, path: Path, sync: Sync = Sync.NORMAL) -> Journal:  # type: ignore[override]
            with socket.socket() as client:
                refused.append(client.connect_ex(("127.0.0.1", port)) != 0)
            return await Journal.open(path, sync)

    monkeypatch.setattr(app, "Journal", Watched)
    config = Config(
        proxy=ProxySection(listen=f"127.0.0.1:{port}", mode=Mode.FULL),
        upstream=UpstreamSection(url="http://127.0.0.1:1"),
        journal=JournalSection(path=str(tmp_path / "journal.sqlite3")),
    )
    async with app.running(config):
        assert refused == [True]
