"""Driving a simulator of one's own: submit prompts, wait, look at what ran and what was read."""

import asyncio
import copy
import math
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from simulator import Simulator, SimulatorConfig
from simulator.config import GB

Prompt = dict[str, Any]

CHECKPOINTS = dict.fromkeys(("a", "b", "c", "d"), 4 * GB)


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def image(name: str, *, seed: int = 1, prefix: str = "") -> Prompt:
    """Text to image with one checkpoint; `prefix` stands before every node id."""
    prompt = {
        "1": node("CheckpointLoaderSimple", ckpt_name=name),
        "2": node("CLIPTextEncode", text="a cat", clip=["1", 1]),
        "3": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "4": node(
            "KSampler",
            model=["1", 0],
            seed=seed,
            steps=2,
            cfg=7.0,
            sampler_name="euler",
            scheduler="normal",
            positive=["2", 0],
            negative=["2", 0],
            latent_image=["3", 0],
            denoise=1.0,
        ),
        "5": node("VAEDecode", samples=["4", 0], vae=["1", 2]),
        "6": node("PreviewImage", images=["5", 0]),
    }
    return renamed(prompt, prefix)


def renamed(prompt: Prompt, prefix: str) -> Prompt:
    """The same prompt with other node ids."""

    def value(given: Any) -> Any:
        return [prefix + given[0], given[1]] if isinstance(given, list) else given

    return {
        prefix + node_id: {**each, "inputs": {name: value(given) for name, given in each["inputs"].items()}}
        for node_id, each in prompt.items()
    }


def pinned(prompt: Prompt, names: Iterable[str]) -> Prompt:
    """A prompt with the loaders of further checkpoints, wired to nothing."""
    pins = {f"9{index}": node("CheckpointLoaderSimple", ckpt_name=name) for index, name in enumerate(names)}
    return {**copy.deepcopy(prompt), **pins}


def shown(value: Any) -> Prompt:
    """A prompt that shows a value."""
    return {"1": node("PreviewAny", source=value)}


@dataclass
class Driver:
    """A simulator and a client of it."""

    sim: Simulator
    session: aiohttp.ClientSession

    async def post(self, path: str, body: Any) -> tuple[int, Any]:
        async with self.session.post(self.sim.url + path, json=body) as answer:
            text = await answer.text()
            return answer.status, await answer.json() if answer.content_type == "application/json" else text

    async def get(self, path: str) -> Any:
        async with self.session.get(self.sim.url + path) as answer:
            return await answer.json()

    async def submit(self, prompt: Prompt, **fields: Any) -> str:
        """Queue a prompt that must be accepted; returns its id."""
        status, body = await self.post("/prompt", {"prompt": prompt, **fields})
        assert status == 200, body
        prompt_id: str = body["prompt_id"]
        return prompt_id

    async def run(self, prompt: Prompt, **fields: Any) -> Any:
        """Run a prompt to its end; returns its history entry."""
        prompt_id = await self.submit(prompt, **fields)
        await self.sim.idle()
        return (await self.get(f"/history/{prompt_id}"))[prompt_id]

    async def settled(self) -> None:
        """Wait until nothing is left to do or the process died."""
        process = self.sim.process
        waits = [asyncio.ensure_future(event.wait()) for event in (process.queue.idle, process.ended)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        if process.ended.is_set():
            await self.sim.crashed.wait()

    def files_read(self) -> list[str]:
        """Names of the files read so far, without folders."""
        return [read.file.rsplit("/", 1)[-1] for read in self.sim.loads()]

    @property
    def memory(self) -> Any:
        return self.sim.process.machine.memory


def messages(entry: Any) -> dict[str, Any]:
    """The messages of a history entry by name."""
    return dict(entry["status"]["messages"])


@asynccontextmanager
async def simulated(**settings: Any) -> AsyncIterator[Driver]:
    """A simulator in which no time passes, with four checkpoints of 4 GB."""
    settings.setdefault("time_scale", math.inf)
    settings.setdefault("models", {"checkpoints": CHECKPOINTS, "loras": {"x": GB, "y": GB}, "vae": {"v": GB}})
    async with Simulator(SimulatorConfig(**settings)) as sim, aiohttp.ClientSession() as session:
        yield Driver(sim, session)
