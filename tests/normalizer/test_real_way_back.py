"""The way back on a real ComfyUI: whatever a client sees through the proxy is what it sees without.

``COMFYUI_URL=http://127.0.0.1:8188 pytest -n0 tests/normalizer/test_real_way_back.py``; the nodes of `comfyui_pack`
must be installed there. Each prompt runs twice, direct and through a proxy that carries another prompt's pins, with the
same caches before; every frame and every answer is compared, keys in order.
"""

import json
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from normalizer.chains import PIN_META
from proxy import app
from proxy.config import Config, JournalSection, ProxySection, UpstreamSection
from proxy.core.evidence import SizesRead
from proxy.core.mode import Mode
from tests.contract import prompts
from tests.contract.client import Client
from tests.contract.normalise import normalise
from tests.contract.prompts import Prompt, link, node
from tests.contract.sockets import PREVIEW_WITH_METADATA, TEXT, Binary, Event, Socket
from tests.engine.stage import until

FILES = ("one", "two", "three", "broken", "interrupted")
URL = os.environ.get("COMFYUI_URL", "").rstrip("/")
pytestmark = pytest.mark.skipif(not URL, reason="COMFYUI_URL is not set")


@dataclass
class Side:
    """ComfyUI as a client sees it: `client` and `socket` go there."""

    client: Client
    socket: Socket
    direct: Client
    sent: list[dict[str, Any]] = field(default_factory=list)

    async def fresh(self) -> None:
        """Empty ComfyUI's caches, behind the proxy's back: the flag is honoured with the next prompt."""
        await self.direct.post("/free", {"unload_models": True, "free_memory": True})
        for _ in range(2):
            answer = await self.direct.submit({"1": node("KeepShow", value="cold", salt=f"{prompts.fresh()}")})
            await self.direct.history(answer["prompt_id"])

    async def run(self, prompt: Prompt, **fields: Any) -> dict[str, Any]:
        """All that a client is told of one prompt."""
        before = len(self.socket.frames)
        answer = await self.client.submit(prompt, self.socket.client_id, **fields)
        prompt_id = answer["prompt_id"]
        await self.socket.until_done(prompt_id)
        told: dict[str, Any] = {
            "answer": answer,
            "frames": [seen(frame) for frame in self.socket.frames[before:] if not is_status(frame)],
            "history": await self.client.history(prompt_id),
        }
        if (await self.client.get("/api/jobs")).status == 200:
            told["job"] = await self.client.get_json(f"/api/jobs/{prompt_id}")
            jobs = (await self.client.get_json("/api/jobs?limit=5"))["jobs"]
            told["jobs"] = next(job for job in jobs if job["id"] == prompt_id)
        return told


def is_status(frame: Event | Binary) -> bool:
    """Frames that tell of the queue's length, which other prompts change too."""
    return isinstance(frame, Event) and frame.kind == "status"


def seen(frame: Event | Binary) -> Any:
    if isinstance(frame, Event):
        return [frame.kind, frame.data]
    if frame.kind == PREVIEW_WITH_METADATA:
        head, image = frame.split()
        return ["preview", json.loads(head), len(image)]
    if frame.kind == TEXT:
        head, text = frame.split()
        return ["text", head.decode(), text.decode()]
    return ["binary", frame.kind, len(frame.payload)]


def comparable(told: Any) -> str:
    """JSON with keys in order; numbers of the queue and ids of prompts and clients differ between any two runs.

    So does the order of the ids in an error: ComfyUI lists them as they come out of a set.
    """

    def settled(key: str, item: Any) -> Any:
        if key in {"number", "priority", "execution_duration"}:
            return "<n>"
        if key in {"executed", "current_outputs"} and isinstance(item, list):
            return sorted(item)
        return without_chance(item)

    def without_chance(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: settled(key, item) for key, item in value.items()}
        return [without_chance(item) for item in value] if isinstance(value, list) else value

    told = json.loads(json.dumps(told))
    if isinstance(told, dict) and "history" in told:
        number = told["history"]["prompt"][0]
        told["history"]["prompt"][0] = type(number).__name__
        for name in ("outputs", "meta"):  # 0.3.64 lists them as they come out of a set of ids
            told["history"][name] = dict(sorted(told["history"][name].items()))
    return json.dumps(without_chance(normalise(told)), indent=1)


@asynccontextmanager
async def side(url: str) -> AsyncIterator[Side]:
    async with Client(URL) as direct, Client(url) as client, client.socket(str(uuid.uuid4())) as socket:
        await socket.send({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
        await socket.until_event("feature_flags")
        made = Side(client, socket, direct)
        await made.fresh()
        yield made


@asynccontextmanager
async def through(mode: Mode, folder: Path) -> AsyncIterator[Side]:
    config = Config(
        proxy=ProxySection(listen="127.0.0.1:0", mode=mode),
        upstream=UpstreamSection(url=URL),
        journal=JournalSection(path=str(folder / "journal.sqlite3")),
    )
    async with app.running(config) as proxy:
        await until(lambda: proxy.engine.upstream.schema.complete, "the schema")
        if proxy.engine.upstream.schema.schema.get("KeepTelling") is None:
            pytest.skip("comfyui_pack is not installed there")
        # The imitations have no files; models of unknown size count as large, and few of those would be carried.
        proxy.engine.upstream.planner.handle(SizesRead(dict.fromkeys(FILES, 1)), 0.0)
        async with side(proxy.url) as made:
            yield made


def foreign(salt: str) -> Prompt:
    """Another prompt, whose chain is carried afterwards; its loader is called like a node of the others."""
    return {
        "4": node("KeepLoader", ckpt_name="three"),
        "a:b": node("KeepLora", model=link("4"), lora_name="one", strength=0.5),
        "9": node("KeepShow", value=link("a:b"), salt=salt),
    }


def telling(salt: str, file: str = "one") -> Prompt:
    """Ids as the page's subgraphs have them, with spaces and letters of others; one loader shown twice."""
    return {
        "a:b": node("KeepTelling", ckpt_name=file) | {"_meta": {"title": "loader a:b"}},
        "größe 7": node("KeepLora", model=link("a:b"), strength="0.5", lora_name="two"),
        "9": node("KeepShow", value=link("größe 7"), salt=salt),
        "10": node("KeepShow", salt=salt, value=link("a:b")),
        "0": node("KeepTelling", ckpt_name="two"),
    }


def expanding(salt: str, file: str = "one") -> Prompt:
    return {"x": node("KeepExpanding", ckpt_name=file), "9": node("KeepShow", value=link("x"), salt=salt)}


def broken(salt: str) -> Prompt:
    return {
        "a:b": node("KeepLoader", ckpt_name="broken", junk="x"),
        "9": node("KeepShow", value=link("a:b", 1), salt=salt),
    }


EXTRA = {"extra_pnginfo": {"workflow": {"nodes": [{"id": 4}]}}, "mine": {"a": 1}, "comfykeep_note": "x"}


@pytest.mark.parametrize("mode", [Mode.PINS, Mode.FULL])
@pytest.mark.parametrize(
    ("made", "fields"),
    [
        (telling, {}),
        (telling, {"extra_data": EXTRA}),
        (lambda salt: telling(salt, "interrupted"), {"extra_data": {"extra_pnginfo": {}}}),
        (expanding, {"extra_data": EXTRA}),
        (lambda salt: expanding(salt, "interrupted"), {}),
        (broken, {"partial_execution_targets": ["9", "a:b"]}),
    ],
    ids=["telling", "telling with a workflow", "interrupted", "expanding", "interrupted inside", "broken"],
)
async def test_everything_is_as_without_the_proxy(
    mode: Mode, tmp_path: Path, made: Any, fields: dict[str, Any]
) -> None:
    salt = f"{prompts.fresh()}"
    told = []
    async with side(URL) as direct, through(mode, tmp_path) as proxied:
        for each in (direct, proxied):
            await each.fresh()
            await each.run(foreign(salt))
            told.append(await each.run(made(salt), **fields))
            told.append(await each.run(made(f"{salt} again"), **fields))
        executed = (await proxied.direct.history(told[-1]["answer"]["prompt_id"]))["prompt"][2]
    assert comparable(told[2]) == comparable(told[0])
    assert comparable(told[3]) == comparable(told[1])
    assert any(item.get("_meta") == PIN_META and item["class_type"] == "KeepLora" for item in executed.values())
    assert not {"a:b", "x"} & executed.keys()


@pytest.mark.parametrize("mode", [Mode.PINS, Mode.FULL])
async def test_a_prompt_in_the_queue(mode: Mode, tmp_path: Path) -> None:
    """With a number of the client's own, an id of its own, and a workflow."""
    fields = {"number": -7, "extra_data": EXTRA}
    found = []
    async with side(URL) as direct, through(mode, tmp_path) as proxied:
        for each in (direct, proxied):
            await each.client.run(foreign(f"{prompts.fresh()}"), each.socket)
            running = (await each.client.submit(prompts.long_blur(), each.socket.client_id))["prompt_id"]
            await each.socket.until_event("executing", node="2", prompt_id=running)
            prompt_id = (await each.client.submit(telling("a"), each.socket.client_id, **fields))["prompt_id"]
            _, pending = await each.client.queue()
            found.append(next(item for item in pending if item[1] == prompt_id))
            await each.client.post("/queue", {"delete": [prompt_id]})
            await each.client.post("/interrupt", {"prompt_id": running})
            await each.client.idle()
    assert json.dumps(normalise(found[1])) == json.dumps(normalise(found[0]))


REFUSED: dict[str, Prompt] = {
    "a missing file": {"a:b": node("KeepTelling", ckpt_name="no such"), "9": node("KeepShow", value=link("a:b"))},
    "a slot that is not there": {
        "a:b": node("KeepLoader", ckpt_name="one"),
        "9": node("KeepShow", value=link("a:b", 5)),
    },
    "a wrong type": {
        "a:b": node("KeepLoader", ckpt_name="one"),
        "x": node("KeepLora", model=link("a:b", 1), lora_name="one", strength=1),
        "9": node("KeepShow", value=link("x")),
    },
    "a missing input": {
        "a:b": node("KeepLoader", ckpt_name="one"),
        "x": node("KeepLora", model=link("a:b"), lora_name="one"),
        "9": node("KeepShow", value=link("x")),
    },
    "a value out of place": {
        "a:b": node("KeepLoader", ckpt_name="one"),
        "x": node("KeepLora", model=link("a:b"), lora_name="one", strength="much"),
        "8": node("KeepShow", value=link("x")),
        "9": node("KeepShow", value=link("a:b")),
    },
    "a circle": {
        "a:b": node("KeepLora", model=link("x"), lora_name="one", strength=1),
        "x": node("KeepLora", model=link("a:b"), lora_name="two", strength=1),
        "9": node("KeepShow", value=link("x")),
    },
    "a class that is not there": {"a:b": node("KeepNothing"), "9": node("KeepShow", value=link("a:b"))},
    "nothing to show": {"a:b": node("KeepLoader", ckpt_name="one")},
}


@pytest.mark.parametrize("mode", [Mode.PINS, Mode.FULL])
async def test_refusals_are_those_of_comfyui(mode: Mode, tmp_path: Path) -> None:
    async with side(URL) as direct, through(mode, tmp_path) as proxied:
        await proxied.run(foreign(f"{prompts.fresh()}"))
        for name, prompt in REFUSED.items():
            answers = [await each.client.post("/prompt", {"prompt": prompt}) for each in (direct, proxied)]
            expected, found = ((answer.status, comparable(answer.json())) for answer in answers)
            assert found == expected, name
            for each in (direct, proxied):
                await each.client.idle()


@pytest.mark.parametrize("mode", [Mode.PINS, Mode.FULL])
@pytest.mark.parametrize("name", ["KeepGone", "KeepReplaced"])
async def test_a_pin_whose_class_is_gone_costs_nothing(mode: Mode, tmp_path: Path, name: str) -> None:
    """ComfyUI refuses a prompt with the one, and answers 500 (0.33) to one with the other."""

    def switch(*, there: bool) -> Prompt:
        change = node("KeepClass", name=name, there=there, salt=f"{prompts.fresh()}")
        return {"1": change, "9": node("KeepShow", value=link("1"))}

    gone = {"1": node(name, ckpt_name="one"), "9": node("KeepShow", value=link("1"))}
    async with through(mode, tmp_path) as proxied:
        try:
            await proxied.run(gone)
            await proxied.run(foreign("1"))
            carried = (await proxied.direct.history((await proxied.run(foreign("2")))["answer"]["prompt_id"]))[
                "prompt"
            ][2]
            assert [item["class_type"] for item in carried.values()].count(name) == 1
            answer = await proxied.direct.submit(switch(there=False))
            await proxied.direct.history(answer["prompt_id"])
            told = await proxied.run(telling(f"{prompts.fresh()}"))
            assert told["answer"]["node_errors"] == {}
            assert told["history"]["status"]["status_str"] == "success"
        finally:
            await proxied.direct.submit(switch(there=True))
            await proxied.direct.idle()


async def test_a_prompt_taken_from_the_history_is_the_same_prompt(tmp_path: Path) -> None:
    async with through(Mode.PINS, tmp_path) as proxied:
        first = await proxied.run(telling(f"{prompts.fresh()}"))
        prompt = first["history"]["prompt"][2]
        again = await proxied.run(prompt)
        assert json.dumps(again["history"]["prompt"][2]) == json.dumps(prompt)
        executed = (await proxied.direct.history(first["answer"]["prompt_id"]))["prompt"][2]
        under_our_ids = await proxied.run(executed)
        sent = (await proxied.direct.history(under_our_ids["answer"]["prompt_id"]))["prompt"][2]
        assert json.dumps(sent) == json.dumps(executed)
