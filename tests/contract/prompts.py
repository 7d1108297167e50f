"""Workflows that every ComfyUI runs without model files, and a few that use whatever VAEs it has."""

import itertools
import secrets
from typing import Any

import pytest

from tests.contract.client import Client

Prompt = dict[str, Any]

_fresh = itertools.count(secrets.randbelow(0xFFFFFF - 100_000))


def fresh() -> int:
    """A number that no prompt before has used, not even one of an earlier run against the same ComfyUI."""
    return next(_fresh)


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def link(node_id: str, slot: int = 0) -> list[Any]:
    return [node_id, slot]


def text(value: str) -> Prompt:
    """A constant shown as text: the smallest prompt there is."""
    return {"1": node("PrimitiveString", value=value), "2": node("PreviewAny", source=link("1"))}


def image(color: int, *, width: int = 64, height: int = 48, batch_size: int = 1, prefix: str | None = None) -> Prompt:
    """A plain image, previewed, or saved when a prefix is given."""
    made = node("EmptyImage", width=width, height=height, batch_size=batch_size, color=color)
    if prefix is None:
        return {"1": made, "2": node("PreviewImage", images=link("1"))}
    return {"1": made, "2": node("SaveImage", images=link("1"), filename_prefix=prefix)}


def failing(color: int) -> Prompt:
    """Fails while it runs: SaveImage refuses to write outside of the output folder."""
    return image(color, width=8, height=8, prefix="../outside/of/it")


def decoded(vae_name: str, *, width: int = 64) -> Prompt:
    """An empty latent through a VAE; the loader is the only node that two of these can share."""
    return {
        "1": node("VAELoader", vae_name=vae_name),
        "2": node("EmptyLatentImage", width=width, height=64, batch_size=1),
        "3": node("VAEDecode", samples=link("2"), vae=link("1")),
        "4": node("PreviewImage", images=link("3")),
    }


async def vae_names(client: Client, at_least: int = 1) -> list[str]:
    """Files that VAELoader can load there, small ones first; skips the test when there are too few."""
    info = (await client.get_json("/object_info/VAELoader"))["VAELoader"]
    options = [name for name in info["input"]["required"]["vae_name"][0] if "." in name]
    if len(options) < at_least:
        pytest.skip(f"needs {at_least} VAE files")
    return sorted(options, key=lambda name: (len(name), name))


async def over_the_socket(client: Client) -> Prompt:
    """Three pictures shown as previews only, at steps 0, 1 and 2 of 3, by node 2.

    It is one of ComfyUI's example custom nodes; skips the test where it was removed.
    """
    if not await client.get_json("/object_info/SaveImageWebsocket"):
        pytest.skip("needs SaveImageWebsocket")
    return {
        "1": node("EmptyImage", width=8, height=8, batch_size=3, color=fresh()),
        "2": node("SaveImageWebsocket", images=link("1")),
    }


def long_blur(nodes: int = 100) -> Prompt:
    """Seconds of image work in steps of some tens of milliseconds, interruptible between them."""
    prompt = {"1": node("EmptyImage", width=384, height=384, batch_size=1, color=fresh())}
    for step in range(2, nodes):
        prompt[str(step)] = node("ImageBlur", image=link(str(step - 1)), blur_radius=31, sigma=9.5)
    prompt[str(nodes)] = node("PreviewImage", images=link(str(nodes - 1)))
    return prompt


def long_sampling(checkpoint: str) -> Prompt:
    """A sampler that takes its time, for a ComfyUI that has a checkpoint."""
    return {
        "1": node("CheckpointLoaderSimple", ckpt_name=checkpoint),
        "2": node("CLIPTextEncode", text="a cat", clip=link("1", 1)),
        "3": node("EmptyLatentImage", width=256, height=256, batch_size=1),
        "4": node(
            "KSampler",
            model=link("1"),
            seed=fresh(),
            steps=10_000,
            cfg=7.0,
            sampler_name="euler",
            scheduler="normal",
            positive=link("2"),
            negative=link("2"),
            latent_image=link("3"),
            denoise=1.0,
        ),
        "5": node("VAEDecode", samples=link("4"), vae=link("1", 2)),
        "6": node("PreviewImage", images=link("5")),
    }
