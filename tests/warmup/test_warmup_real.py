"""Warm-up prompts before a real ComfyUI, named by `COMFYUI_URL`: accepted, run, and of use to the next client's prompt.

A `VAELoader` is warmed, as any ComfyUI can have one: by a model-only entry and by a workflow that saves a picture. Both
must be done with nothing new in the output folder, and leave the loader cached for prompts that call it by other ids.
"""

import json
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from normalizer import Schema
from tests.warmup.schemas import Prompt, node
from warmup.misfits import check
from warmup.prompts import Surroundings, prepare
from warmup.schedule import load

URL = os.environ.get("COMFYUI_URL", "").rstrip("/")
DEADLINE = 120.0

pytestmark = pytest.mark.skipif(not URL, reason="COMFYUI_URL is not set")


def ask(path: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = Request(URL + path, data, {"Content-Type": "application/json"})  # noqa: S310 - the tester's own address
    try:
        with urlopen(request, timeout=60) as answer:  # noqa: S310 - as above
            text = answer.read()
    except HTTPError as error:
        pytest.fail(f"{path}: {error.code} {error.read().decode()}")
    return json.loads(text) if text else None


def run(prompt: Any) -> tuple[dict[str, Any], set[str]]:
    """Run a prompt to its end; its history entry and the nodes that were cached."""
    prompt_id = str(uuid.uuid4())
    ask("/prompt", {"prompt": prompt, "prompt_id": prompt_id, "client_id": "warmup-test"})
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        if entry := ask(f"/history/{prompt_id}").get(prompt_id):
            messages = dict(entry["status"]["messages"])
            assert entry["status"]["status_str"] == "success", messages
            return entry, set(messages["execution_cached"]["nodes"])
        time.sleep(0.05)  # the history has no event to wait for
    pytest.fail("the prompt did not end in time")


@pytest.fixture(scope="module")
def schema() -> Schema:
    return Schema.from_object_info(ask("/object_info"))


@pytest.fixture
def vae(schema: Schema) -> Iterator[str]:
    names = schema.entry("VAELoader")["input"]["required"]["vae_name"][0]
    files = [name for name in names if "audio" not in name.lower() and name != "pixel_space"]
    if not files:
        pytest.skip("this ComfyUI has no VAE file")
    ask("/free", {"unload_models": True, "free_memory": True})
    run({"1": node("EmptyImage", width=8, height=8, batch_size=1, color=1), "2": node("PreviewAny", source=["1", 0])})
    yield files[0]
    ask("/free", {"unload_models": True, "free_memory": True})


def workflow(vae: str) -> Prompt:
    """What a client sends; it saves a picture."""
    return {
        "70": node("VAELoader", vae_name=vae),
        "71": node("EmptyImage", width=256, height=256, batch_size=2, color=7),
        "72": node("VAEEncode", pixels=["71", 0], vae=["70", 0]),
        "73": node("VAEDecode", samples=["72", 0], vae=["70", 0]),
        "74": node("SaveImage", images=["73", 0], filename_prefix="comfykeep-warmup-test"),
    }


def client_prompt(vae: str) -> Prompt:
    """Another client's prompt with the same loader under an id of its own; it saves nothing."""
    return {"5": node("VAELoader", vae_name=vae), "6": node("PreviewAny", source=["5", 0])}


def saved() -> set[str]:
    return {str(item) for item in ask("/internal/files/output")}


ENTRIES = {
    "model-ram": 'loader = "VAELoader"\ninputs = { vae_name = "VAE" }\nto = "ram"',
    "model-vram": 'loader = "VAELoader"\ninputs = { vae_name = "VAE" }\nto = "vram"',
    "workflow-ram": 'prompt = "w.json"\nto = "ram"',
    "workflow-vram": 'prompt = "w.json"\nset = { "71.inputs.width" = 128 }\nto = "vram"',
}


@pytest.mark.parametrize("name", ENTRIES)
def test_a_warm_up_leaves_the_loader_cached_and_nothing_in_the_output_folder(
    name: str, vae: str, schema: Schema, tmp_path: Path
) -> None:
    (tmp_path / "w.json").write_text(json.dumps(workflow(vae)))
    (tmp_path / "warmup.toml").write_text(f'[[entry]]\nname = "{name}"\n{ENTRIES[name]}\n'.replace('VAE"', f'{vae}"'))
    schedule = load(tmp_path / "warmup.toml")
    around = Surroundings(schema)
    assert check(schedule, around) == ()
    before = saved()
    for step in prepare(schedule.entries[0], around).steps:
        entry, cached = run(step.fresh(1))
        loaders = {node_id for node_id, one in step.prompt.items() if one["class_type"] == "VAELoader"}
        assert not loaders & cached, "it was cold before"
        assert "images" not in json.dumps(entry["outputs"])
    _, cached = run(client_prompt(vae))
    assert "5" in cached, "the next client's loader is there already"
    assert saved() == before


def test_the_same_warm_up_again_uses_the_model_again(vae: str, schema: Schema, tmp_path: Path) -> None:
    """Else a model that has left VRAM would not come back: ComfyUI would remember the picture and use nothing."""
    (tmp_path / "w.json").write_text(json.dumps(workflow(vae)))
    entries = [f'[[entry]]\nname = "{name}"\n{ENTRIES[name]}\n' for name in ("model-vram", "workflow-vram")]
    (tmp_path / "warmup.toml").write_text("".join(entries).replace('VAE"', f'{vae}"'))
    for planned in load(tmp_path / "warmup.toml").entries:
        [step] = prepare(planned, Surroundings(schema)).steps
        run(step.fresh(1))
        _, cached = run(step.fresh(2))
        by_class = {one["class_type"]: node_id in cached for node_id, one in step.prompt.items()}
        assert by_class["VAELoader"], "the loader itself is not run again"
        assert not by_class["VAEEncode"]
        assert not by_class["VAEDecode"]


def test_without_a_warm_up_the_loader_is_not_cached(vae: str) -> None:
    _, cached = run(client_prompt(vae))
    assert "5" not in cached
