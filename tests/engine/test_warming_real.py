"""Warm-ups through the proxy before a real ComfyUI, named by `COMFYUI_URL`, which belongs to nobody else meanwhile.

A `VAELoader` is warmed, as any ComfyUI can have one: by a model-only entry and by a workflow that saves a picture. The
next client's prompt must find the loader in ComfyUI's cache, by `execution_cached`, and no other trace of it.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy import app
from proxy.config import Config, JournalSection, ProxySection, UpstreamSection, WarmupSection
from proxy.core.mode import Mode
from tests.contract import prompts
from tests.contract.client import Client, eventually
from tests.contract.prompts import Prompt, link, node
from tests.contract.targets import REAL_URL

pytestmark = pytest.mark.skipif(not REAL_URL, reason="COMFYUI_URL is not set")

ENTRIES = {
    "model-ram": 'loader = "VAELoader"\ninputs = { vae_name = "VAE" }\nto = "ram"',
    "model-vram": 'loader = "VAELoader"\ninputs = { vae_name = "VAE" }\nto = "vram"',
    "workflow-ram": 'prompt = "saves.api.json"\nto = "ram"',
    "workflow-vram": 'prompt = "saves.api.json"\nto = "vram"',
}


def saving(vae: str) -> Prompt:
    """A workflow that saves a picture."""
    return {
        "70": node("VAELoader", vae_name=vae),
        "71": node("EmptyImage", width=256, height=256, batch_size=2, color=7),
        "72": node("VAEEncode", pixels=link("71"), vae=link("70")),
        "73": node("VAEDecode", samples=link("72"), vae=link("70")),
        "74": node("SaveImage", images=link("73"), filename_prefix="comfykeep-warm-up"),
    }


def decoding(vae: str) -> Prompt:
    """A client's prompt with the same loader under another id; it saves nothing."""
    return {
        "5": node("VAELoader", vae_name=vae),
        "6": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "7": node("VAEDecode", samples=link("6"), vae=link("5")),
        "8": node("PreviewImage", images=link("7")),
    }


async def some_vae(comfyui: Client) -> str:
    names = (await comfyui.get_json("/object_info/VAELoader"))["VAELoader"]["input"]["required"]["vae_name"][0]
    files = [name for name in names if name.endswith(".safetensors") and "audio" not in name.lower()]
    if not files:
        pytest.skip("this ComfyUI has no VAE file")
    return str(files[0])


async def empty(comfyui: Client) -> None:
    """Nothing is loaded; ComfyUI frees when its worker turns to the next prompt."""
    await comfyui.post("/free", {"unload_models": True, "free_memory": True})
    async with comfyui.socket() as socket:
        await comfyui.run(prompts.text(str(prompts.fresh())), socket)


@asynccontextmanager
async def proxied(mode: Mode, folder: Path, schedule: str) -> AsyncIterator[app.Running]:
    (folder / "warmup.toml").write_text(schedule)
    config = Config(
        proxy=ProxySection(listen="127.0.0.1:0", mode=mode),
        upstream=UpstreamSection(url=REAL_URL),
        journal=JournalSection(path=str(folder / "journal.sqlite3")),
        warmup=WarmupSection(schedule=str(folder / "warmup.toml"), gate_readiness=True),
    )
    async with app.running(config) as proxy:
        yield proxy


@pytest.mark.parametrize("name", ENTRIES)
@pytest.mark.parametrize("mode", [Mode.PINS, Mode.FULL])
async def test_the_next_clients_prompt_finds_the_loader_cached(mode: Mode, name: str, tmp_path: Path) -> None:
    async with Client(REAL_URL) as comfyui:
        vae = await some_vae(comfyui)
        await empty(comfyui)
        (tmp_path / "saves.api.json").write_text(json.dumps(saving(vae)))
        schedule = f'[[entry]]\nname = "{name}"\non = ["upstream-start"]\n{ENTRIES[name]}\n'.replace('VAE"', f'{vae}"')
        known, saved = await history(comfyui), await comfyui.get_json("/internal/files/output")
        async with proxied(mode, tmp_path, schedule) as proxy, Client(proxy.url) as client:

            async def ready() -> bool:
                return (await client.get("/comfykeep/ready")).status == 200

            await eventually(ready, "the warm-up")
            [row] = (await client.get_json("/comfykeep/warmup"))["entries"]
            assert row["last"]["result"] == "warmed", row
            async with client.socket() as socket:
                run = await client.run(decoding(vae), socket)
            assert "5" in run.cached
            assert set(await history(client)) - set(known) == {run.prompt_id}
            assert set(await history(comfyui)) - set(known) == {run.prompt_id}
        assert await comfyui.get_json("/internal/files/output") == saved
        await empty(comfyui)


async def history(client: Client) -> dict[str, Any]:
    found: dict[str, Any] = await client.get_json("/history")
    return found


async def test_without_a_warm_up_it_is_not_cached(tmp_path: Path) -> None:
    async with Client(REAL_URL) as comfyui:
        vae = await some_vae(comfyui)
        await empty(comfyui)
        async with proxied(Mode.PINS, tmp_path, "") as proxy, Client(proxy.url) as client, client.socket() as socket:
            assert "5" not in (await client.run(decoding(vae), socket)).cached


async def test_one_that_takes_too_long_is_interrupted_and_leaves_others_alone(tmp_path: Path) -> None:
    """`/interrupt` with the id of the warm-up, while it runs."""
    (tmp_path / "long.api.json").write_text(json.dumps(prompts.long_blur()))
    large = '{ "1.inputs.width" = 1024, "1.inputs.height" = 1024 }'
    schedule = f'[[entry]]\nname = "long"\nprompt = "long.api.json"\nset = {large}\ntimeout = 1\n'
    async with Client(REAL_URL) as comfyui, proxied(Mode.PINS, tmp_path, schedule) as proxy:
        async with Client(proxy.url) as client:
            outcome = (await client.post("/comfykeep/warmup", {"name": "long"})).json()
            assert outcome["result"] == "timed out", outcome
        await comfyui.idle()
