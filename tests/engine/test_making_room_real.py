"""`POST /free` right after a prompt, before a real ComfyUI, named by `COMFYUI_URL`, which belongs to nobody else.

Its worker may be collecting garbage then, and be deaf to requests. The next prompt must find its model gone every time.
"""

import time
from pathlib import Path

import pytest

from proxy.core.evidence import ModelsFreed
from proxy.core.mode import Mode
from proxy.core.release import Release
from tests.contract import prompts
from tests.contract.client import Client
from tests.contract.prompts import Prompt
from tests.contract.targets import REAL_URL
from tests.engine.stage import until
from tests.engine.test_warming_real import decoding, proxied, some_vae

pytestmark = pytest.mark.skipif(not REAL_URL, reason="COMFYUI_URL is not set")

ROUNDS = 12


def anew(vae: str) -> Prompt:
    """A prompt that has something to run although its loader's result is there."""
    return {**decoding(vae), **prompts.text(str(prompts.fresh()))}


@pytest.mark.parametrize("mode", [Mode.PINS, Mode.FULL])
async def test_what_is_freed_is_gone_before_the_next_prompt(mode: Mode, tmp_path: Path) -> None:
    whole = Release(ModelsFreed(unload_models=True, free_memory=True), "of a test")
    async with Client(REAL_URL) as comfyui, proxied(mode, tmp_path, "") as proxy, Client(proxy.url) as client:
        upstream = proxy.engine.upstream
        vae = await some_vae(comfyui)
        await until(lambda: upstream.schema.complete, "the schema")
        async with client.socket() as socket:
            await client.run(anew(vae), socket)
            kept = [(await client.run(anew(vae), socket)).cached for _ in range(2)]
            cached = []
            for _ in range(ROUNDS):
                await upstream.release(whole, time.monotonic())
                cached.append((await client.run(anew(vae), socket)).cached)
    assert all("5" in each for each in kept)
    assert not [each for each in cached if "5" in each]
