"""The least that each kind of node can be given: video, sound, text, three dimensions; and what must agree with it."""

from typing import Any

import pytest

from tests.warmup.schemas import Prompt, node, refusals, schema
from warmup.sizes import small_inputs
from warmup.smallest import smallest


def least(class_type: str, *, steps: int = 1, **inputs: Any) -> dict[str, Any]:
    return small_inputs(node(class_type, **inputs), schema(), steps=steps)


@pytest.mark.parametrize(
    ("class_type", "given", "small"),
    [
        ("EmptyMochiLatentVideo", {"width": 848, "length": 25, "batch_size": 2}, {"width": 16, "length": 7}),
        ("WanImageToVideo", {"width": 832, "height": 480, "length": 81}, {"width": 16, "height": 16, "length": 1}),
        ("WanCameraEmbedding", {"width": 832, "height": 480, "length": 81}, {"width": 16, "height": 16, "length": 1}),
        ("EmptyAceStepLatentAudio", {"seconds": 120.0}, {"seconds": 1.0}),
        ("TextEncodeAceStepAudio1.5", {"duration": 120.0, "bpm": 190}, {"duration": 1.0}),
        ("TextGenerate", {"max_length": 512}, {"max_length": 1}),
        ("EmptyLatentHunyuan3Dv2", {"resolution": 3072}, {"resolution": 16}),
        ("VAEDecodeHunyuan3D", {"num_chunks": 8000, "octree_resolution": 256}, {"octree_resolution": 64}),
        ("ImageScaleToMaxDimension", {"largest_size": 2048}, {"largest_size": 64}),
        ("ConditioningSetArea", {"width": 512, "height": 512, "x": 256, "y": 0}, {"x": 0, "y": 0}),
        ("LTXVAddGuide", {"frame_idx": 40, "strength": 0.7}, {"frame_idx": 0}),
        ("LTXVAddGuide", {"frame_idx": -1}, {"frame_idx": -1}),
        ("VHS_LoadVideo", {"frame_load_cap": 0}, {"frame_load_cap": 1}),
        ("VHS_LoadVideo", {"frame_load_cap": ["1", 0]}, {"frame_load_cap": 1}),
        ("Video Slice", {"start_time": 30.0, "duration": 0.0}, {"start_time": 0.0, "duration": 1.0}),
        ("RenderSplat", {"frames": -120, "width": 512}, {"frames": 1, "width": 64}),
        ("ManualSigmas", {"sigmas": "1., 0.99, 0.725, 0.42, 0.0"}, {"sigmas": "1, 0.0"}),
        ("ManualSigmas", {"sigmas": "1, 0.5"}, {"sigmas": "1, 0.5"}),
        ("StringReplace", {"string": "x", "find": "x", "replace": "y"}, {}),
    ],
)
def test_the_least_of_each_kind(class_type: str, given: dict[str, Any], small: dict[str, Any]) -> None:
    made = least(class_type, **given)
    assert {name: made[name] for name in made if name != "batch_size"} == small


def test_a_written_out_schedule_keeps_the_steps_that_are_asked_for() -> None:
    assert least("ManualSigmas", sigmas="1, 0.9, 0.5, 0.2, 0", steps=2) == {"sigmas": "1, 0.9, 0"}


def test_a_camera_and_the_video_that_follows_it_agree() -> None:
    workflow: Prompt = {
        "1": node("VAELoader", vae_name="wan_vae.safetensors"),
        "2": node("CLIPLoader", clip_name="umt5.safetensors", type="stable_diffusion"),
        "3": node("CLIPTextEncode", text="x", clip=["2", 0]),
        "4": node("WanCameraEmbedding", camera_pose="Pan Up", width=832, height=480, length=81),
        "5": node(
            "WanCameraImageToVideo", positive=["3", 0], negative=["3", 0], vae=["1", 0], batch_size=1,
            width=["4", 1], height=["4", 2], length=["4", 3], camera_conditions=["4", 0],
        ),
        "6": node("PreviewAny", source=["5", 0]),
    }  # fmt: skip
    made = smallest(workflow, schema(), {})
    assert refusals(made, schema()) == []
    for name in ("width", "height", "length"):
        assert made["4"]["inputs"][name] == made["5"]["inputs"][name]
