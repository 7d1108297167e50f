"""What is run again when memory ran out, whoever says so, and what is not: not once a paid remote node had started."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.core.mode import Mode
from tests.contract.prompts import Prompt, link, node
from tests.engine.stage import Stage, encode, staged
from tests.engine.test_rerun import MODES, Trouble, pins_of, posts, run
from tests.simulator.test_sim_generic import entry

REMOTE = {
    "RemoteText": entry({"text": ["STRING", {}]}, ["STRING"], api_node=True),
    "RemoteLook": entry({"value": ["*", {}]}, [], api_node=True, output_node=True),
}


@asynccontextmanager
async def remote(mode: Mode, folder: Path) -> AsyncIterator[tuple[Stage, Trouble]]:
    """A stage whose ComfyUI has paid remote nodes, and on which another model is there to be pinned."""
    trouble = Trouble()
    (folder / "object_info.json").write_text(json.dumps(REMOTE))
    async with staged(mode, folder, gate=trouble, object_info_file=folder / "object_info.json") as stage:
        await run(stage, "a")
        yield stage, trouble


def paid_first(text: str) -> Prompt:
    """The paid node makes the text that is encoded."""
    prompt = encode("b", text)
    prompt["6"]["inputs"]["text"] = link("11")
    return {**prompt, "11": node("RemoteText", text=text)}


def paid_last(text: str) -> Prompt:
    """The paid node gets what was encoded."""
    return {**encode("b", text), "11": node("RemoteLook", value=link("6"))}


@MODES
async def test_not_once_a_paid_node_had_started(mode: Mode, tmp_path: Path) -> None:
    async with remote(mode, tmp_path) as (stage, trouble):
        prompt_id = trouble.strike()
        await stage.client.submit(paid_first("x"), prompt_id=prompt_id)
        assert (await stage.client.history(prompt_id))["status"]["status_str"] == "error"
        assert trouble.runs == 1
        assert [bool(pins_of(request)) for request in posts(stage, prompt_id)] == [True]


@MODES
async def test_but_before_it_had(mode: Mode, tmp_path: Path) -> None:
    async with remote(mode, tmp_path) as (stage, trouble):
        prompt_id = trouble.strike()
        await stage.client.submit(paid_last("x"), prompt_id=prompt_id)
        assert (await stage.client.history(prompt_id))["status"]["status_str"] == "success"
        assert trouble.runs == 2


class Words(Exception):  # noqa: N818 - an error of ComfyUI's by its name and text
    """Raised with another error's type and text."""


def error(module: str, name: str, text: str) -> Exception:
    raised: Exception = type(name, (Words,), {"__module__": module, "__qualname__": name})(text)
    return raised


CPU = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"


@MODES
@pytest.mark.parametrize(
    "raised",
    [
        MemoryError(),
        RuntimeError(CPU),
        RuntimeError("MPS backend out of memory (MPS allocated: 17.99 GB)"),
        error("torch", "AcceleratorError", "CUDA error: out of memory"),
        error("torch.cuda", "OutOfMemoryError", "HIP out of memory. Tried to allocate 3.31 GiB"),
    ],
    ids=["python", "torch's RAM", "Apple", "old CUDA", "AMD"],
)
async def test_whatever_ran_out_and_whoever_says_so(mode: Mode, raised: Exception, tmp_path: Path) -> None:
    trouble = Trouble()
    trouble.error = raised
    async with staged(mode, tmp_path, gate=trouble) as stage:
        await run(stage, "a")
        assert (await run(stage, "b", prompt_id=trouble.strike()))["status"]["status_str"] == "success"
        assert trouble.runs == 2


@MODES
async def test_lists_of_jobs_and_the_history_have_one_success(mode: Mode, tmp_path: Path) -> None:
    trouble = Trouble()
    async with staged(mode, tmp_path, gate=trouble) as stage:
        await run(stage, "a")
        prompt_id = trouble.strike()
        ended = await run(stage, "b", prompt_id=prompt_id)
        assert [kind for kind, _ in ended["status"]["messages"]] == [
            "execution_start",
            "execution_cached",
            "execution_success",
        ]
        jobs: list[Any] = (await stage.client.get_json("/api/jobs"))["jobs"]
        assert [job["status"] for job in jobs if job["id"] == prompt_id] == ["completed"]
        job = await stage.client.get_json(f"/api/jobs/{prompt_id}")
        assert (job["status"], job.get("execution_error")) == ("completed", None)
        assert list(await stage.client.get_json("/history")).count(prompt_id) == 1


async def test_the_success_is_remembered_when_comfyui_has_died(tmp_path: Path) -> None:
    trouble = Trouble()
    async with staged(Mode.FULL, tmp_path, gate=trouble) as stage, stage.client.socket() as socket:
        await run(stage, "a")
        prompt_id = trouble.strike()
        await stage.client.submit(encode("b", "x"), socket.client_id, prompt_id=prompt_id)
        await socket.until_done(prompt_id)
        theirs = await stage.direct.history(prompt_id)
        await stage.comfy.crash()
        await stage.comfy.restart()
        ours = await stage.client.history(prompt_id)
        assert ours["status"]["status_str"] == "success"
        for own, real in zip(ours["status"]["messages"], theirs["status"]["messages"], strict=True):
            assert (own[0], own[1]["timestamp"]) == (real[0], real[1]["timestamp"])
        assert list(ours["outputs"].values()) == list(theirs["outputs"].values())
