"""Nodes that make trouble on demand, named as a custom node pack for tests would name them.

They cover what core nodes do not show: instance state, undeclared inputs, unique ids, expansion, failures, custom
events, binary events, a slow IS_CHANGED, a node that reads the prompt.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from simulator.memory import DeviceOutOfMemoryError
from simulator.stills import SAMPLING
from simulator.values import Patcher

from .base import Call, Node, Spec
from .reading import read_weights
from .sampling import Latent, on_gpu

_CHECKPOINTS = ["m1", "m2", "m3", "m4", "m5", "m6"]
_LORAS = ["l1", "l2", "l3", "l4", "sub\\l5", "None"]
_SEED = ("INT", {"default": 0, "min": 0, "max": 0xFFFFFFFFFFFFFFFF, "control_after_generate": True})
_SALT = ("INT", {"default": 0, "max": 0xFFFFFFFFFFFFFFFF})
_STRENGTH = ("FLOAT", {"default": 1.0, "min": -100.0, "max": 100.0, "step": 0.01})
_UNIQUE_ID: Mapping[str, Any] = {"unique_id": "UNIQUE_ID"}
_STEP_SECONDS = 0.02
_IS_CHANGED_SECONDS = 0.3


class _TestNode(Node):
    CATEGORY = "comfykeep_test"
    MODULE = "custom_nodes.comfykeep_test_nodes"


@dataclass(frozen=True, eq=False)
class _Described(Patcher):
    """A model whose text says what was done to it."""

    text: str = ""

    def patched(self, what: str) -> "_Described":
        return _Described(self.weights, self.patches, self.also, f"{self.text}+{what}")

    def __repr__(self) -> str:
        return self.text


async def _read(call: Call, name: str, kinds: Sequence[str] = ("MODEL",)) -> tuple[_Described, ...]:
    shares = [1 / len(kinds)] * len(kinds)
    weights = await read_weights(call, None, name, kinds, shares)
    return tuple(_Described(each, text=f"{kind}:{name}") for each, kind in zip(weights, kinds, strict=True))


class FakeCheckpointLoader(_TestNode):
    """A checkpoint without a file list."""

    NAME = "FakeCheckpointLoader"
    REQUIRED: ClassVar[Mapping[str, Spec]] = {"ckpt_name": (_CHECKPOINTS,)}
    RETURN_TYPES = ("MODEL", "CLIP", "VAE")

    async def run(self, call: Call, *, ckpt_name: str) -> Any:
        """See Node."""
        return await _read(call, ckpt_name, ("MODEL", "CLIP", "VAE"))


class FakeLoraLoader(_TestNode):
    """A LoRA loader of a custom pack; keeps its last file as the core one does."""

    NAME = "FakeLoraLoader"
    REQUIRED: ClassVar[Mapping[str, Spec]] = {
        "model": ("MODEL",),
        "clip": ("CLIP",),
        "lora_name": (_LORAS,),
        "strength_model": _STRENGTH,
        "strength_clip": _STRENGTH,
    }
    RETURN_TYPES = ("MODEL", "CLIP")

    def __init__(self) -> None:
        self._last = ""

    async def run(
        self, call: Call, *, model: Any, clip: Any, lora_name: str, strength_model: float, strength_clip: float
    ) -> Any:
        """See Node."""
        if strength_model == 0 and strength_clip == 0:
            return model, clip
        if self._last != lora_name:
            await _read(call, lora_name)
            self._last = lora_name
        return model.patched(f"{lora_name}@{strength_model}"), clip.patched(f"{lora_name}@{strength_clip}")


class FakeSampler(_TestNode):
    """Steps with progress."""

    NAME = "FakeSampler"
    REQUIRED: ClassVar[Mapping[str, Spec]] = {
        "model": ("MODEL",),
        "positive": ("STRING", {"default": "", "multiline": True}),
        "seed": _SEED,
        "steps": ("INT", {"default": 5, "min": 1, "max": 100000}),
    }
    RETURN_TYPES = ("LATENT",)

    async def run(self, call: Call, *, model: Any, positive: str, seed: int, steps: int) -> Any:
        """See Node."""
        await on_gpu(call, model)
        for step in range(steps):
            call.check_interrupt()
            await call.machine.clock.sleep(_STEP_SECONDS)
            call.progress(step + 1, steps)
        latent = Latent((1, 4, 8, 8))
        latent.origin = f"{model}|{positive}|{seed}|{steps}"
        call.machine.memory.take(latent)
        return ({"samples": latent},)


class FakePowerLora(_TestNode):
    """Takes every LoRA as an undeclared input, as rgthree's Power Lora Loader does."""

    NAME = "FakePowerLora"
    ACCEPTS_ALL = True
    RETURN_TYPES = ("MODEL", "CLIP")

    @classmethod
    def info(cls, machine: Any) -> dict[str, Any]:
        """See Node; the schema shows no inputs at all."""
        entry = super().info(machine)
        entry["input"] = {"required": {}, "optional": {}, "hidden": {}}
        entry["input_order"] = {"required": [], "optional": [], "hidden": []}
        return entry

    async def run(self, call: Call, *, model: Any = None, clip: Any = None, **loras: Any) -> Any:
        """See Node."""
        for name, value in loras.items():
            if name.upper().startswith("LORA_") and isinstance(value, dict) and value.get("on"):
                await _read(call, str(value.get("lora")))
                what = f"{value.get('lora')}@{value.get('strength')}"
                model = None if model is None else model.patched(what)
                clip = None if clip is None else clip.patched(what)
        return model, clip


class FakePromptLookup(_TestNode):
    """Finds a node of the prompt by its id."""

    NAME = "FakePromptLookup"
    REQUIRED: ClassVar[Mapping[str, Spec]] = {"node_id": ("STRING", {"default": "1"})}
    HIDDEN: ClassVar[Mapping[str, Any]] = {"prompt": "PROMPT"}
    RETURN_TYPES = ("STRING",)

    async def run(self, call: Call, *, node_id: str, prompt: Any = None) -> Any:
        """See Node."""
        del call
        return (prompt[str(node_id)]["class_type"],)


class FakeUniqueIdLoader(_TestNode):
    """A loader whose results are cached per node id."""

    NAME = "FakeUniqueIdLoader"
    REQUIRED: ClassVar[Mapping[str, Spec]] = {"name": (_CHECKPOINTS,)}
    HIDDEN = _UNIQUE_ID
    RETURN_TYPES = ("MODEL",)

    async def run(self, call: Call, *, name: str, unique_id: str | None = None) -> Any:
        """See Node."""
        del unique_id
        return await _read(call, name)


class FakeSelfLoader(_TestNode):
    """A loader that keeps the whole model in its instance."""

    NAME = "FakeSelfLoader"
    REQUIRED: ClassVar[Mapping[str, Spec]] = {"name": (_CHECKPOINTS,)}
    OPTIONAL: ClassVar[Mapping[str, Spec]] = {"salt": ("INT", {"default": 0})}
    RETURN_TYPES = ("MODEL",)

    def __init__(self) -> None:
        self._kept: tuple[str, _Described] | None = None

    async def run(self, call: Call, *, name: str, salt: int = 0) -> Any:
        """See Node."""
        del salt
        if self._kept is None or self._kept[0] != name:
            (model,) = await _read(call, name)
            self._kept = name, model
        return (self._kept[1],)


class FakeOutput(_TestNode):
    """An output node that shows anything as text."""

    NAME = "FakeOutput"
    OUTPUT_NODE = True
    REQUIRED: ClassVar[Mapping[str, Spec]] = {"value": ("*",)}

    async def run(self, call: Call, *, value: Any) -> Any:
        """See Node."""
        del call
        if isinstance(value, dict):
            samples = value.get("samples")
            return {"ui": {"text": [str(samples.origin) if isinstance(samples, Latent) else "dict"]}}
        return {"ui": {"text": [str(value)]}}


class FakeSlowIsChanged(_TestNode):
    """A loader that takes its time to say whether its file changed."""

    NAME = "FakeSlowIsChanged"
    FINGERPRINT = True
    REQUIRED: ClassVar[Mapping[str, Spec]] = {"name": (_CHECKPOINTS,)}
    RETURN_TYPES = ("MODEL",)

    @classmethod
    async def fingerprint(cls, call: Call, **inputs: Any) -> Any:
        """See Node."""
        del inputs
        await call.machine.clock.sleep(_IS_CHANGED_SECONDS)
        return "constant"

    async def run(self, call: Call, *, name: str) -> Any:
        """See Node."""
        return await _read(call, name)


class FakeRaise(_TestNode):
    """Fails as asked: with an ordinary error, or as the GPU runs out of memory."""

    NAME = "FakeRaise"
    REQUIRED: ClassVar[Mapping[str, Spec]] = {"value": ("*",), "mode": (["ok", "error", "oom"],)}
    OPTIONAL: ClassVar[Mapping[str, Spec]] = {"salt": _SALT}
    RETURN_TYPES = ("*",)

    async def run(self, call: Call, *, value: Any, mode: str, salt: int = 0) -> Any:
        """See Node."""
        del call, salt
        if mode == "error":
            raise RuntimeError("FakeRaise: asked to fail")
        if mode == "oom":
            raise DeviceOutOfMemoryError("FakeRaise: CUDA out of memory (pretended). Tried to allocate 2.00 GiB")
        return (value,)


class FakeCustomEvent(_TestNode):
    """Sends an event of its own; to a client that there is not, and so to all, as most nodes do."""

    NAME = "FakeCustomEvent"
    REQUIRED: ClassVar[Mapping[str, Spec]] = {"value": ("*",), "to": (["client", "broadcast"],)}
    OPTIONAL: ClassVar[Mapping[str, Spec]] = {"salt": _SALT}
    HIDDEN = _UNIQUE_ID
    RETURN_TYPES = ("*",)

    async def run(self, call: Call, *, value: Any, to: str, salt: int = 0, unique_id: str | None = None) -> Any:
        """See Node."""
        del salt
        event = {"node": unique_id, "value": 1}
        call.send("fake.event", event, None if to == "broadcast" else call.client_id)
        return (value,)


class FakeExpand(_TestNode):
    """Expands into a sampler, and a loader where one is asked for."""

    NAME = "FakeExpand"
    REQUIRED: ClassVar[Mapping[str, Spec]] = {
        "model": ("MODEL",),
        "seed": ("INT", {"default": 0, "min": 0, "max": 0xFFFFFFFFFFFFFFFF}),
        "steps": ("INT", {"default": 5, "min": 1, "max": 1000}),
        "inner_ckpt": (["none", *_CHECKPOINTS],),
    }
    RETURN_TYPES = ("LATENT",)

    async def run(self, call: Call, *, model: Any, seed: int, steps: int, inner_ckpt: str) -> Any:
        """See Node."""
        graph = call.builder()
        if inner_ckpt != "none":
            model = [graph.node("FakeCheckpointLoader", "loader", ckpt_name=inner_ckpt), 0]
        sampler = graph.node("FakeSampler", "sampler", model=model, positive="expanded", seed=seed, steps=steps)
        return {"result": ([sampler, 0],), "expand": graph.finish()}


class FakeBinary(_TestNode):
    """Sends progress texts and previews."""

    NAME = "FakeBinary"
    REQUIRED: ClassVar[Mapping[str, Spec]] = {
        "value": ("*",),
        "steps": ("INT", {"default": 3, "min": 1, "max": 1000}),
        "to": (["client", "broadcast"],),
    }
    OPTIONAL: ClassVar[Mapping[str, Spec]] = {"salt": _SALT}
    HIDDEN = _UNIQUE_ID
    RETURN_TYPES = ("*",)

    async def run(  # its inputs
        self, call: Call, *, value: Any, steps: int, to: str, salt: int = 0, unique_id: str | None = None
    ) -> Any:
        """See Node."""
        del salt, unique_id
        for step in range(steps):
            call.check_interrupt()
            call.send_text(f"step {step + 1} of {steps} \u00e4\u4f60", call.client_id if to == "client" else None)
            await call.machine.clock.sleep(_STEP_SECONDS)
            call.progress(step + 1, steps, SAMPLING)
        return (value,)


NODES: tuple[type[Node], ...] = (
    FakeCheckpointLoader,
    FakeLoraLoader,
    FakeSampler,
    FakePowerLora,
    FakePromptLookup,
    FakeUniqueIdLoader,
    FakeSelfLoader,
    FakeOutput,
    FakeSlowIsChanged,
    FakeRaise,
    FakeCustomEvent,
    FakeExpand,
    FakeBinary,
)
