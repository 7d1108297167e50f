"""A proxy with a warm-up schedule before a simulated ComfyUI, and what a test needs to watch them."""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from proxy import app
from proxy.config import Config, GroupSection, JournalSection, PinsSection, ProxySection, UpstreamSection, WarmupSection
from proxy.core.mode import Mode
from simulator import Simulator, SimulatorConfig
from tests.contract.client import Client, eventually
from tests.contract.prompts import Prompt, node
from tests.engine.relay import Asked, Relay
from tests.engine.stage import MODELS, Gate, encode, until

__all__ = [
    "MODES",
    "Client",
    "Prompt",
    "WarmStage",
    "begun",
    "encode",
    "endless",
    "entry",
    "eventually",
    "is_warmup",
    "node",
    "until",
    "warm_stage",
]

MODES = pytest.mark.parametrize("mode", [Mode.PINS, Mode.FULL])


def entry(name: str, checkpoint: str, *, to: str = "vram", **keys: Any) -> str:
    """An entry for one checkpoint; what is a text or a list in `keys` is written as TOML."""
    lines = [f"{key} = {str(value).replace(chr(39), chr(34))}" for key, value in keys.items()]
    return "\n".join(
        [
            "[[entry]]",
            f'name = "{name}"',
            'loader = "CheckpointLoaderSimple"',
            f'inputs = {{ ckpt_name = "{checkpoint}.safetensors" }}',
            f'to = "{to}"',
            *lines,
            "",
        ]
    )


@dataclass
class WarmStage:
    """`client` goes through the proxy, `direct` to ComfyUI itself, `relay` stands between the two."""

    comfy: Simulator
    gate: Gate
    relay: Relay
    proxy: app.Running
    client: Client
    direct: Client
    stop: Callable[[], Awaitable[None]]
    """Stops the proxy, as a signal would."""

    @property
    def loads(self) -> list[str]:
        """The model files that ComfyUI has read from disk."""
        return [read.file.rpartition("/")[2].removesuffix(".safetensors") for read in self.comfy.loads()]

    @property
    def history(self) -> list[str]:
        """What ComfyUI's own history has."""
        return list(self.comfy.process.queue.history)

    async def is_ready(self) -> bool:
        return (await self.client.get("/comfykeep/ready")).status == 200

    async def ready(self) -> None:
        await eventually(self.is_ready, "readiness")

    async def last(self, name: str) -> Any:
        """How an entry last went."""
        rows = (await self.client.get_json("/comfykeep/warmup"))["entries"]
        return next(row["last"] for row in rows if row["name"] == name)

    async def result(self, name: str) -> str:
        """The result of an entry's run, waited for."""
        return str((await eventually(lambda: self.last(name), f"the end of {name}"))["result"])

    async def warm(self, **body: Any) -> Any:
        """Warm by hand; how it went."""
        answer = await self.client.post("/comfykeep/warmup", body)
        assert answer.status == 200, answer.body
        return answer.json()

    async def run(self, prompt: Prompt, prompt_id: str | None = None) -> None:
        """Run a client's prompt to its end."""
        submitted = await self.client.submit(prompt, **({"prompt_id": prompt_id} if prompt_id else {}))
        await self.client.history(submitted["prompt_id"])


@asynccontextmanager
async def warm_stage(
    folder: Path,
    schedule: str = "",
    mode: Mode = Mode.PINS,
    *,
    gate_readiness: bool = True,
    max_chains: int = 16,
    upstream: Mapping[str, Any] | None = None,
    groups: tuple[GroupSection, ...] = (),
    **simulated: Any,
) -> AsyncIterator[WarmStage]:
    """A proxy that has read its ComfyUI's classes; `schedule` is the text of its warmup.toml."""
    gate = Gate()
    file = folder / "warmup.toml"
    file.write_text(schedule)
    settings = {"models": MODELS, "time_scale": math.inf, "before_node": gate, **simulated}
    async with AsyncExitStack() as stack:
        comfy = await stack.enter_async_context(Simulator(SimulatorConfig(**settings)))
        relay = await stack.enter_async_context(Relay(comfy.url).serving())
        config = Config(
            proxy=ProxySection(listen="127.0.0.1:0", mode=mode),
            upstream=UpstreamSection(url=relay.url, **(upstream or {})),
            pins=PinsSection(max_chains=max_chains),
            journal=JournalSection(path=str(folder / "journal.sqlite3")),
            warmup=WarmupSection(schedule=str(file), gate_readiness=gate_readiness),
            group=groups,
        )
        stop = await stack.enter_async_context(AsyncExitStack())
        proxy = await stop.enter_async_context(app.running(config))
        stack.callback(gate.open)
        client = await stack.enter_async_context(Client(proxy.url))
        direct = await stack.enter_async_context(Client(comfy.url))
        await until(lambda: proxy.engine.upstream.schema.complete, "the schema")
        yield WarmStage(comfy, gate, relay, proxy, client, direct, stop.aclose)


def is_warmup(request: Asked) -> bool:
    return request.is_("POST", "/prompt") and b"comfykeep_warmup" in request.body


async def begun(stage: WarmStage) -> "asyncio.Task[object]":
    """A warm-up by hand that ComfyUI has begun and is held in; to be let go by the gate."""
    stage.gate.shut_all()
    task: asyncio.Task[object] = asyncio.create_task(stage.warm(model="a.safetensors"))
    await until(lambda: stage.gate.started, "the warm-up to start")
    return task


def endless(folder: Path) -> str:
    """A schedule with a workflow that samples until it is interrupted."""
    workflow = {
        "1": node("FakeCheckpointLoader", ckpt_name="m1"),
        "2": node("FakeSampler", model=["1", 0], positive="x", seed=0, steps=100_000),
        "3": node("FakeOutput", value=["2", 0]),
    }
    (folder / "endless.api.json").write_text(json.dumps(workflow))
    return '[[entry]]\nname = "endless"\nprompt = "endless.api.json"\nset = { "2.inputs.steps" = 100000 }\n'
