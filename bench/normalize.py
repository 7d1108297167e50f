"""What it costs to rewrite a prompt, and to pass frames on.

Every prompt is rewritten before ComfyUI sees it, and every frame is looked at on its way back: both must be small
beside what a client waits for anyway. The prompts are built like real ones: of fifty nodes, six load or patch models,
the rest encode, sample, decode, scale and save. A frame without an id of ours is passed on as the bytes it came as; one
with such an id is parsed, restored and written again. The garbage collector is set as in the proxy. Times are of the
wall clock, so let nothing else run meanwhile.
"""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from normalizer import Schema, WayBack, mentions_sent_id, normalize
from proxy.collecting import collect_rarely

SIZES: Final = (10, 100, 1000)
"""Nodes of the prompts."""

OTHER_CLASSES: Final = 1000
"""Classes that the prompts do not use: a ComfyUI has many, and the garbage collector would walk them all."""

SECONDS: Final = 1.0
"""How long each row is measured."""


@dataclass(frozen=True, slots=True)
class PromptRow:
    """Normalizing one prompt: time in microseconds."""

    nodes: int
    median_us: float
    p99_us: float


@dataclass(frozen=True, slots=True)
class FrameRow:
    """One kind of text frame: how many a second can be restored, and how many passed on after the look."""

    kind: str
    restored_per_s: float
    passed_per_s: float


@dataclass(frozen=True, slots=True)
class Report:
    """Both tables."""

    prompts: tuple[PromptRow, ...]
    frames: tuple[FrameRow, ...]


def run(json_output: bool) -> None:
    """Measure, and print tables or JSON."""
    collect_rarely()
    report = measure(SECONDS)
    if json_output:
        print(json.dumps(asdict(report), indent=2))  # noqa: T201 - what the command is for
        return
    console = Console()
    prompts = Table(title="Rewriting a prompt", caption="microseconds, one core")
    for heading in ("nodes", "median", "p99"):
        prompts.add_column(heading, justify="right")
    for row in report.prompts:
        prompts.add_row(f"{row.nodes:,}", f"{row.median_us:,.0f}", f"{row.p99_us:,.0f}")
    frames = Table(title="Frames on the way back", caption="per second, one core")
    frames.add_column("kind")
    for heading in ("restored", "passed unchanged"):
        frames.add_column(heading, justify="right")
    for frame in report.frames:
        frames.add_row(frame.kind, f"{frame.restored_per_s:,.0f}", f"{frame.passed_per_s:,.0f}")
    console.print(prompts, frames)


def measure(seconds: float) -> Report:
    """Measure every row for that long."""
    schema = Schema.from_object_info(OBJECT_INFO | {f"Other{n}": OBJECT_INFO["KSampler"] for n in range(OTHER_CLASSES)})
    return Report(
        tuple(_prompt_row(size, schema, seconds) for size in SIZES),
        tuple(_frame_row(kind, schema, seconds) for kind in _frames("4")),
    )


def _prompt_row(size: int, schema: Schema, seconds: float) -> PromptRow:
    made = prompt(size)
    times = _times(lambda: normalize(made, schema), seconds)
    return PromptRow(len(made), statistics.median(times) * 1e6, times[int(len(times) * 0.99)] * 1e6)


def _frame_row(kind: str, schema: Schema, seconds: float) -> FrameRow:
    way_back = normalize(prompt(100), schema).way_back
    sent_id = next(iter(way_back.ids))
    ours, theirs = json.dumps(_frames(sent_id)[kind]), json.dumps(_frames("4")[kind])
    restored = statistics.median(_times(lambda: _pass_on(ours, way_back), seconds / 2))
    passed = statistics.median(_times(lambda: _pass_on(theirs, way_back), seconds / 2))
    return FrameRow(kind, 1 / restored, 1 / passed)


def _pass_on(frame: str, way_back: WayBack) -> str:
    """Do what is done with every text frame."""
    if not mentions_sent_id(frame):
        return frame
    event = json.loads(frame)
    return json.dumps({**event, "data": way_back.event(event["data"])})


def _times(work: Callable[[], object], seconds: float) -> list[float]:
    """Do the work again and again for that long, at least a hundred times; sorted seconds of each."""
    work()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 100 or time.perf_counter() < end:  # noqa: PLR2004 - enough for a 99th percentile
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return sorted(times)


def prompt(size: int) -> dict[str, Any]:
    """Make a prompt of that many nodes: for every fifty, one part that loads models and stages that use them."""
    nodes: dict[str, Any] = {}

    def add(class_type: str, **inputs: Any) -> list[Any]:
        node_id = str(len(nodes) + 1)
        nodes[node_id] = {"class_type": class_type, "inputs": inputs, "_meta": {"title": class_type}}
        return [node_id, 0]

    while len(nodes) < size:
        part = len(nodes) // 50
        checkpoint, model, clip, control, upscaler = _loading(add, part)
        while len(nodes) < min(size, 50 * (part + 1)):
            _stage(add, [checkpoint[0], 2], model, clip, control, upscaler)
    return dict(list(nodes.items())[:size])


def _loading(add: Callable[..., list[Any]], part: int) -> tuple[list[Any], ...]:
    checkpoint = add("CheckpointLoaderSimple", ckpt_name=f"base_{part}.safetensors")
    model, clip = checkpoint, [checkpoint[0], 1]
    for lora in ("style", "detail"):
        loaded = add(
            "LoraLoader",
            model=model,
            clip=clip,
            lora_name=f"{lora}.safetensors",
            strength_model=0.8,
            strength_clip=1.0,
        )
        model, clip = loaded, [loaded[0], 1]
    model = add("ModelSamplingSD3", model=model, shift=3.0)
    control = add("ControlNetLoader", control_net_name="depth.safetensors")
    upscaler = add("UpscaleModelLoader", model_name="x4.pth")
    return checkpoint, model, clip, control, upscaler


def _stage(
    add: Callable[..., list[Any]],
    vae: list[Any],
    model: list[Any],
    clip: list[Any],
    control: list[Any],
    upscaler: list[Any],
) -> None:
    positive = add("CLIPTextEncode", text="a lighthouse in the rain, oil on canvas", clip=clip)
    negative = add("CLIPTextEncode", text="blurry", clip=clip)
    guided = add("ControlNetApplyAdvanced", positive=positive, negative=negative, control_net=control, strength=0.7)
    latent = add("EmptyLatentImage", width=1024, height=1024, batch_size=1)
    sampled = add(
        "KSampler",
        model=model,
        positive=guided,
        negative=[guided[0], 1],
        latent_image=latent,
        seed=2**63,
        steps=20,
        cfg=7.0,
        sampler_name="euler",
        scheduler="normal",
        denoise=1.0,
    )
    decoded = add("VAEDecode", samples=sampled, vae=vae)
    upscaled = add("ImageUpscaleWithModel", upscale_model=upscaler, image=decoded)
    add("SaveImage", images=upscaled, filename_prefix="bench")


def _frames(node_id: str) -> dict[str, dict[str, Any]]:
    """Give one text frame of each kind, as ComfyUI sends them."""
    prompt_id = "2f0bd4c1-6b2b-4f9c-8b8e-0d6f4e1f6a55"
    state = {"value": 3, "max": 20, "state": "running", "prompt_id": prompt_id, "parent_node_id": None}
    names = [node_id, *(str(n) for n in range(20, 40))]
    nodes = {n: {**state, "node_id": n, "display_node_id": n, "real_node_id": n} for n in names}
    images = [{"filename": f"ComfyUI_{n:05}_.png", "subfolder": "", "type": "temp"} for n in range(4)]
    frames: dict[str, dict[str, Any]] = {
        "executing": {"node": node_id, "display_node": node_id},
        "executed": {"node": node_id, "display_node": node_id, "output": {"images": images}},
        "progress": {"value": 3, "max": 20, "node": node_id},
        "progress_state": {"nodes": nodes},
        "execution_cached": {"nodes": names, "timestamp": 1763880000000},
    }
    return {kind: {"type": kind, "data": {**data, "prompt_id": prompt_id}} for kind, data in frames.items()}


def _entry(output: list[str], module: str = "nodes", *, output_node: bool = False, **inputs: Any) -> dict[str, Any]:
    spec = {name: type_ if isinstance(type_, list) else [type_] for name, type_ in inputs.items()}
    return {"input": {"required": spec}, "output": output, "python_module": module, "output_node": output_node}


OBJECT_INFO: Final[dict[str, Any]] = {
    "CheckpointLoaderSimple": _entry(["MODEL", "CLIP", "VAE"], ckpt_name=[[]]),
    "LoraLoader": _entry(
        ["MODEL", "CLIP"], model="MODEL", clip="CLIP", lora_name=[[]], strength_model="FLOAT", strength_clip="FLOAT"
    ),
    "ModelSamplingSD3": _entry(["MODEL"], "comfy_extras.nodes_model_advanced", model="MODEL", shift="FLOAT"),
    "ControlNetLoader": _entry(["CONTROL_NET"], control_net_name=[[]]),
    "UpscaleModelLoader": _entry(["UPSCALE_MODEL"], "comfy_extras.nodes_upscale_model", model_name=["COMBO", {}]),
    "CLIPTextEncode": _entry(["CONDITIONING"], text="STRING", clip="CLIP"),
    "ControlNetApplyAdvanced": _entry(
        ["CONDITIONING", "CONDITIONING"],
        positive="CONDITIONING",
        negative="CONDITIONING",
        control_net="CONTROL_NET",
        strength="FLOAT",
    ),
    "EmptyLatentImage": _entry(["LATENT"], width="INT", height="INT", batch_size="INT"),
    "KSampler": _entry(
        ["LATENT"],
        model="MODEL",
        positive="CONDITIONING",
        negative="CONDITIONING",
        latent_image="LATENT",
        seed="INT",
        steps="INT",
        cfg="FLOAT",
        sampler_name=[["euler"]],
        scheduler=[["normal"]],
        denoise="FLOAT",
    ),
    "VAEDecode": _entry(["IMAGE"], samples="LATENT", vae="VAE"),
    "ImageUpscaleWithModel": _entry(
        ["IMAGE"], "comfy_extras.nodes_upscale_model", upscale_model="UPSCALE_MODEL", image="IMAGE"
    ),
    "SaveImage": _entry(["IMAGE"], output_node=True, images="IMAGE", filename_prefix="STRING"),
}
"""What the prompts need of `/object_info`."""
