"""A proxy before a simulated ComfyUI, both in this process, and what a test needs to steer them."""

import asyncio
import json
import math
import shutil
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proxy import app
from proxy.config import (
    Config,
    JournalSection,
    NormalizerSection,
    PinsSection,
    ProxySection,
    QueueSection,
    ResidencySection,
    UpstreamSection,
)
from proxy.core.mode import Mode
from proxy.core.strategy import Strategy
from simulator import NodeStart, Simulator, SimulatorConfig
from tests.contract.client import Answer, Client
from tests.contract.prompts import Prompt, link, node
from tests.contract.sockets import PATIENCE
from tests.engine.relay import Relay, Script, pass_all

MB = 2**20
PROBES = 1e15
"""Numbers from which on a prompt in ComfyUI's queue is only there to be validated."""
MODELS = {
    "checkpoints": {f"{name}.safetensors": MB for name in "abcd"},
    "vae": {f"{name}.safetensors": MB for name in "vw"},
}


def encode(checkpoint: str, text: str, ids: str = "4 6 9") -> Prompt:
    """The smallest workflow with a model: a checkpoint, a text through its encoder, shown."""
    loader, encoder, shown = ids.split()
    return {
        loader: node("CheckpointLoaderSimple", ckpt_name=f"{checkpoint}.safetensors"),
        encoder: node("CLIPTextEncode", text=text, clip=link(loader, 1)),
        shown: node("PreviewAny", source=link(encoder)),
    }


def sampling(text: str, steps: int = 100_000) -> Prompt:
    """Samples until it is interrupted."""
    return {
        "1": node("FakeCheckpointLoader", ckpt_name="m1"),
        "2": node("FakeSampler", model=link("1"), positive=text, seed=0, steps=steps),
        "3": node("FakeOutput", value=link("2")),
    }


def fresh_id() -> str:
    return str(uuid.uuid4())


async def until(condition: Callable[[], Any], what: str) -> None:
    """Give other tasks their turn until the condition holds.

    Raises:
        AssertionError: it did not in time.
    """
    try:
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110 - any condition, not one that could set an event
                await asyncio.sleep(0.001)
    except TimeoutError:
        raise AssertionError(f"waited {PATIENCE} s for {what}") from None


class Gate:
    """Holds prompts back in ComfyUI before their first node runs, until told otherwise."""

    def __init__(self) -> None:
        self.started: list[str] = []
        """Prompts of which a node was to run, in order."""
        self._shut: dict[str, asyncio.Event] = {}
        self._shut_to_all: asyncio.Event | None = None

    async def __call__(self, start: NodeStart) -> None:
        if start.prompt_id not in self.started:
            self.started.append(start.prompt_id)
        opened = self._shut.get(start.prompt_id) or self._shut_to_all
        if opened is not None:
            await opened.wait()

    def shut(self, prompt_id: str) -> None:
        self._shut[prompt_id] = asyncio.Event()

    def shut_all(self) -> None:
        self._shut_to_all = asyncio.Event()

    def open(self, *prompt_ids: str) -> None:
        """Let these go on, or without ids everything."""
        if not prompt_ids and self._shut_to_all is not None:
            self._shut_to_all.set()
            self._shut_to_all = None
        for prompt_id in prompt_ids or list(self._shut):
            if (event := self._shut.pop(prompt_id, None)) is not None:
                event.set()

    async def reached(self, prompt_id: str) -> None:
        """Wait until a node of it is about to run."""
        await until(lambda: prompt_id in self.started, f"{prompt_id} to start")


@dataclass
class Stage:
    """`client` goes through the proxy, `direct` to ComfyUI itself, `relay` stands between the two."""

    comfy: Simulator
    direct: Client
    gate: Gate
    mode: Mode
    folder: Path
    queue: QueueSection
    upstream: Mapping[str, Any]
    strategy: Strategy = Strategy.PINS
    pins: PinsSection = field(default_factory=PinsSection)
    residency: ResidencySection = field(default_factory=ResidencySection)
    relay: Relay = field(init=False)
    client: Client = field(init=False)
    proxy: app.Running = field(init=False)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def start(self, script: Script = pass_all, *, wait: bool = True) -> None:
        """Start a proxy, on the journal that an earlier one left; `wait` until it knows its ComfyUI."""
        self.relay = await self._stack.enter_async_context(Relay(self.comfy.url).serving())
        self.relay.script = script
        config = Config(
            proxy=ProxySection(listen="127.0.0.1:0", mode=self.mode),
            upstream=UpstreamSection(url=self.relay.url, **self.upstream),
            pins=self.pins,
            normalizer=NormalizerSection(strategy=self.strategy),
            queue=self.queue,
            residency=self.residency,
            journal=JournalSection(path=str(self.folder / "journal.sqlite3")),
        )
        self.proxy = await self._stack.enter_async_context(app.running(config))
        self.client = await self._stack.enter_async_context(Client(self.proxy.url))
        if wait:
            await until(lambda: self.proxy.engine.upstream.schema.complete, "the schema")

    async def stop(self) -> None:
        """Stop the proxy as a signal would."""
        await self._stack.aclose()

    async def kill(self) -> None:
        """Let the proxy do nothing more: it is cut off, and what is on disk now is all that it leaves."""
        self.relay.cut()
        self.proxy.engine.departure.hurry()
        left = self.folder / fresh_id()
        left.mkdir()
        for file in self.folder.glob("journal.sqlite3*"):
            shutil.copy(file, left)
        self.folder = left
        await self._stack.aclose()

    @property
    def loads(self) -> list[str]:
        """The model files that ComfyUI has read from disk."""
        return [read.file.rpartition("/")[2] for read in self.comfy.loads()]

    def pending(self, *, probes: bool = False) -> list[str]:
        """Ids of ComfyUI's queue, in the order in which they would run."""
        items = sorted(self.comfy.process.queue.pending, key=lambda item: (item[0], item[1]))
        return [item[1] for item in items if (item[0] >= PROBES) == probes]

    @property
    def at_comfyui(self) -> int:
        """How many prompts ComfyUI has that may run."""
        return len(self.pending()) + len(self.comfy.process.queue.running)

    async def post(self, path: str, body: Any, **headers: str) -> Answer:
        """POST through the proxy, headers as keywords, `_` for `-`."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.request("POST", path, body, headers={"Content-Type": "application/json", **sent})

    async def blocker(self, client: Client | None = None, **fields: Any) -> str:
        """A prompt that runs until `gate.open` is called; its id."""
        prompt_id = fresh_id()
        self.gate.shut(prompt_id)
        await (client or self.client).submit(encode("a", prompt_id), prompt_id=prompt_id, **fields)
        await self.gate.reached(prompt_id)
        return prompt_id

    async def ended(self, *prompt_ids: str) -> list[Any]:
        """The history entries of prompts, waited for."""
        return [await self.client.history(prompt_id) for prompt_id in prompt_ids]


@asynccontextmanager
async def staged(  # noqa: PLR0913 - whatever a test wants otherwise
    mode: Mode = Mode.PINS,
    folder: Path = Path("unused"),
    *,
    queue: QueueSection | None = None,
    strategy: Strategy = Strategy.PINS,
    pins: PinsSection | None = None,
    upstream: Mapping[str, Any] | None = None,
    residency: ResidencySection | None = None,
    script: Script = pass_all,
    gate: Gate | None = None,
    **simulated: Any,
) -> AsyncIterator[Stage]:
    """A proxy that knows its ComfyUI; `folder` takes the journal of the mode `full`, `script` steers the relay,
    and `upstream` has more keys of that section of the configuration."""
    gate = gate or Gate()
    settings = {"models": MODELS, "time_scale": math.inf, "before_node": gate, **simulated}
    async with Simulator(SimulatorConfig(**settings)) as comfy, Client(comfy.url) as direct:
        settled = (
            queue or QueueSection(),
            upstream or {},
            strategy,
            pins or PinsSection(),
            residency or ResidencySection(),
        )
        stage = Stage(comfy, direct, gate, mode, folder, *settled)
        try:
            await stage.start(script)
            yield stage
        finally:
            gate.open()
            await stage.stop()


def canonical(value: Any) -> str:
    """JSON with sorted keys, to compare prompts by."""
    return json.dumps(value, sort_keys=True)
