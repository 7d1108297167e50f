"""Workflows in their smallest form: small, legal, and saving nothing."""

import copy
from collections.abc import Collection, Mapping
from typing import Any

import pytest

from normalizer import normalize
from tests.warmup.schemas import Prompt, classes, lacking, node, refusals, schema
from warmup.faults import BadEntry
from warmup.smallest import refuse_unknown, smallest

TEXT_TO_IMAGE: Prompt = {
    "4": node("CheckpointLoaderSimple", ckpt_name="flux.safetensors"),
    "10": node(
        "LoraLoader", model=["4", 0], clip=["4", 1], lora_name="style.safetensors", strength_model=1, strength_clip=1
    ),
    "11": node("ModelSamplingFlux", model=["10", 0], max_shift=1.15, base_shift=0.5, width=1024, height=1024),
    "6": node("CLIPTextEncode", text="a cat", clip=["10", 1]),
    "5": node("EmptyLatentImage", width=1024, height=768, batch_size=4),
    "3": node(
        "KSampler",
        model=["11", 0],
        positive=["6", 0],
        negative=["6", 0],
        latent_image=["5", 0],
        seed=2**64 - 1,
        steps=30,
        cfg=7.0,
        sampler_name="euler",
        scheduler="simple",
        denoise=1.0,
    ),
    "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
    "9": node("SaveImage", images=["8", 0], filename_prefix="out"),
}


def small(workflow: Prompt, fixed: Mapping[str, Collection[str]] | None = None) -> Prompt:
    before = copy.deepcopy(workflow)
    made = smallest(workflow, schema(), fixed or {})
    assert workflow == before, "the workflow itself stays as it is"
    assert refusals(made, schema()) == []
    assert not {"SaveImage", "SaveAndGo", "SaveVideo+", "ModelSave"} & set(classes(made))
    return made


def test_one_step_on_the_smallest_canvas_and_nothing_saved() -> None:
    made = small(TEXT_TO_IMAGE)
    assert made["5"]["inputs"] == {"width": 16, "height": 16, "batch_size": 1}
    assert made["3"]["inputs"]["steps"] == 1
    assert made["3"]["inputs"]["seed"] == 2**64 - 1
    assert "9" not in made
    assert made["warmup-preview-1"] == node("PreviewAny", source=["8", 0])


def test_loader_chains_are_left_as_they_are() -> None:
    made = normalize(small(TEXT_TO_IMAGE), schema())
    real = normalize(TEXT_TO_IMAGE, schema())
    assert {chain.signature for chain in made.chains} == {chain.signature for chain in real.chains}
    assert made.models == real.models
    assert len(made.models) == 2


def test_a_loader_that_takes_steps_keeps_them() -> None:
    workflow = {"1": node("TurboLoader", model_name="a.gguf", steps=8), "2": node("PreviewAny", source=["1", 0])}
    assert small(workflow)["1"] == workflow["1"]


def test_what_the_entry_sets_is_left_alone() -> None:
    made = small(TEXT_TO_IMAGE, {"5": {"width"}, "3": {"steps"}})
    assert made["5"]["inputs"] == {"width": 1024, "height": 16, "batch_size": 1}
    assert made["3"]["inputs"]["steps"] == 30


def test_sizes_that_come_by_wire_are_cut_off() -> None:
    workflow = copy.deepcopy(TEXT_TO_IMAGE)
    workflow["20"] = node("PrimitiveInt", value=2048)
    for name in ("width", "height"):
        workflow["5"]["inputs"][name] = ["20", 0]
    workflow["3"]["inputs"]["steps"] = ["20", 0]
    made = small(workflow)
    assert made["5"]["inputs"]["width"] == 16
    assert made["3"]["inputs"]["steps"] == 1


def test_video_and_audio_have_their_own_least() -> None:
    def least(made: dict[str, Any]) -> dict[str, Any]:
        workflow = {"1": made, "2": node("PreviewAny", source=["1", 0])}
        inputs: dict[str, Any] = small(workflow)["1"]["inputs"]
        return inputs

    assert least(node("EmptyHunyuanLatentVideo", width=848, height=480, length=121, batch_size=1)) == {
        "width": 16,
        "height": 16,
        "length": 1,
        "batch_size": 1,
    }
    assert least(node("EmptyMochiLatentVideo", width=848, height=480, length=25, batch_size=2))["length"] == 7
    assert least(node("EmptyAceStepLatentAudio", seconds=120.0, batch_size=1))["seconds"] == 1.0


def test_pictures_stay_large_enough_for_any_vae() -> None:
    workflow: Prompt = {
        "1": node("EmptyImage", width=2048, height=32, batch_size=3, color=0),
        "2": node("ImageScale", image=["1", 0], upscale_method="nearest-exact", width=0, height=4096, crop="disabled"),
        "3": node(
            "ImageScaleToTotalPixels",
            image=["2", 0],
            upscale_method="nearest-exact",
            megapixels=2.0,
            resolution_steps=1,
        ),
        "4": node("ResizeImageMaskNode", input=["3", 0], resize_type="scale dimensions", scale_method="area"),
        "5": node("PreviewImage", images=["4", 0]),
    }
    workflow["4"]["inputs"] |= {"resize_type.width": 900, "resize_type.height": 900, "resize_type.crop": "center"}
    made = small(workflow)
    assert made["1"]["inputs"] == {"width": 64, "height": 32, "batch_size": 1, "color": 0}
    assert (made["2"]["inputs"]["width"], made["2"]["inputs"]["height"]) == (0, 64)
    assert made["3"]["inputs"]["megapixels"] == 0.01
    assert (made["4"]["inputs"]["resize_type.width"], made["4"]["inputs"]["resize_type.height"]) == (64, 64)


def test_a_second_pass_stays_small() -> None:
    workflow = {
        "1": node("EmptyLatentImage", width=512, height=512, batch_size=1),
        "2": node(
            "LatentUpscale", samples=["1", 0], upscale_method="nearest-exact", width=2048, height=2048, crop="disabled"
        ),
        "3": node("RepeatLatentBatch", samples=["2", 0], amount=8),
        "4": node("PreviewAny", source=["3", 0]),
    }
    made = small(workflow)
    assert (made["2"]["inputs"]["width"], made["2"]["inputs"]["height"]) == (64, 64)
    assert made["3"]["inputs"]["amount"] == 1


def advanced(model: str, latent: str, start: int, end: int) -> dict[str, Any]:
    return node(
        "KSamplerAdvanced",
        model=[model, 0],
        positive=["6", 0],
        negative=["6", 0],
        latent_image=[latent, 0],
        add_noise="enable",
        noise_seed=1,
        steps=20,
        cfg=1.0,
        sampler_name="euler",
        scheduler="simple",
        start_at_step=start,
        end_at_step=end,
        return_with_leftover_noise="disable",
    )


def test_both_models_of_a_two_stage_sampling_are_used() -> None:
    workflow = {
        "1": node("UNETLoader", unet_name="wan/high.safetensors", weight_dtype="default"),
        "2": node("UNETLoader", unet_name="wan/low.safetensors", weight_dtype="default"),
        "3": node("CLIPLoader", clip_name="umt5.safetensors", type="stable_diffusion"),
        "6": node("CLIPTextEncode", text="", clip=["3", 0]),
        "5": node("EmptyHunyuanLatentVideo", width=848, height=480, length=121, batch_size=1),
        "7": advanced("1", "5", 0, 10),
        "8": advanced("2", "7", 10, 10_000),
        "9": node("PreviewAny", source=["8", 0]),
    }
    made = small(workflow)
    assert [
        made[node_id]["inputs"][name] for node_id in "78" for name in ("start_at_step", "steps", "end_at_step")
    ] == [
        *(0, 1, 10),
        *(0, 1, 10_000),
    ]


def test_a_schedule_that_is_cut_in_two_gets_two_steps() -> None:
    workflow = {
        "1": node("UNETLoader", unet_name="wan/high.safetensors", weight_dtype="default"),
        "2": node("BasicScheduler", model=["1", 0], scheduler="simple", steps=20, denoise=1.0),
        "3": node("SplitSigmas", sigmas=["2", 0], step=10),
        "4": node("PreviewAny", source=["3", 0]),
        "5": node("PreviewAny", source=["3", 1]),
    }
    made = small(workflow)
    assert (made["2"]["inputs"]["steps"], made["3"]["inputs"]["step"]) == (2, 1)
    assert sorted(entry["inputs"]["source"][1] for entry in made.values() if entry["class_type"] == "PreviewAny") == [
        0,
        1,
    ]


def test_a_class_that_needs_more_steps_gets_its_own_least() -> None:
    workflow = {
        "1": node("GITSScheduler", coeff=1.2, steps=10, denoise=1.0),
        "2": node("PreviewAny", source=["1", 0]),
    }
    assert small(workflow)["1"]["inputs"]["steps"] == 2


def test_uploaded_pictures_become_blank_ones() -> None:
    workflow = {
        "1": node("LoadImage", image="holiday.png"),
        "2": node("VAELoader", vae_name="ae.safetensors"),
        "3": node("VAEEncodeForInpaint", pixels=["1", 0], vae=["2", 0], mask=["1", 1], grow_mask_by=6),
        "4": node("PreviewAny", source=["3", 0]),
    }
    made = small(workflow)
    assert classes(made) == ["EmptyImage", "PreviewAny", "SolidMask", "VAEEncodeForInpaint", "VAELoader"]
    kept = smallest(workflow, schema(), {"1": {"image"}})
    assert kept["1"] == workflow["1"], "a picture that the entry names is used"


def test_a_picture_is_not_replaced_where_blank_ones_cannot_be_made() -> None:
    workflow = {"1": node("LoadImage", image="a.png"), "2": node("PreviewImage", images=["1", 0])}
    assert smallest(workflow, lacking("SolidMask"), {})["1"] == workflow["1"]


def test_everything_shown_or_saved_is_looked_at_once() -> None:
    workflow = copy.deepcopy(TEXT_TO_IMAGE) | {
        "12": node("PreviewImage", images=["8", 0]),
        "13": node("ModelSave", model=["11", 0], filename_prefix="m"),
        "14": node("KSamplerSelect", sampler_name="euler"),
    }
    made = small(workflow)
    sources = [entry["inputs"]["source"] for entry in made.values() if entry["class_type"] == "PreviewAny"]
    assert sources == [["11", 0], ["8", 0]]
    assert "14" not in made, "what nobody looks at does not run"


def test_a_saving_node_in_the_middle_is_wired_around() -> None:
    workflow = {
        "1": node("EmptyImage", width=64, height=64, batch_size=1, color=0),
        "2": node("SaveAndGo", images=["1", 0], folder="x"),
        "3": node("SaveAndGo", images=["2", 0], folder="y"),
        "4": node("ImageScale", image=["3", 0], upscale_method="nearest-exact", width=64, height=64, crop="disabled"),
        "5": node("SaveImage", images=["4", 0], filename_prefix="z"),
    }
    made = small(workflow)
    assert made["4"]["inputs"]["image"] == ["1", 0]


def test_a_saving_node_whose_result_is_needed_is_refused() -> None:
    workflow = {
        "1": node("EmptyImage", width=64, height=64, batch_size=1, color=0),
        "2": node("SaveVideo+", images=["1", 0]),
        "3": node("UseNames", names=["2", 0]),
        "4": node("PreviewAny", source=["3", 0]),
    }
    with pytest.raises(BadEntry, match=r"node 2 \(SaveVideo\+\) shows or saves something and node 3 needs"):
        smallest(workflow, schema(), {})


def test_saving_nodes_in_a_circle_are_refused() -> None:
    workflow = {
        "1": node("SaveAndGo", images=["2", 0], folder="x"),
        "2": node("SaveAndGo", images=["1", 0], folder="x"),
        "3": node("ImageScale", image=["1", 0], upscale_method="area", width=64, height=64, crop="disabled"),
    }
    with pytest.raises(BadEntry, match="shows or saves"):
        smallest(workflow, schema(), {})


@pytest.mark.parametrize(
    ("workflow", "words"),
    [
        (
            {"1": node("FluxKontextProImageNode", prompt="x"), "2": node("PreviewImage", images=["1", 0])},
            r"node 1 \(FluxKontextProImageNode\) calls a paid service",
        ),
        (
            {
                "1": node("LoopOpen", total=50, value=1),
                "2": node("LoopClose", flow=["1", 0], value=["1", 1]),
                "3": node("PreviewAny", source=["2", 0]),
            },
            r"node 1 \(LoopOpen\) is part of a loop(.|\n)*node 2 \(LoopClose\)",
        ),
        ({"1": node("VAELoader", vae_name="ae.safetensors")}, "nothing in it is shown or saved"),
    ],
)
def test_what_is_not_run_unasked(workflow: Prompt, words: str) -> None:
    with pytest.raises(BadEntry, match=words):
        smallest(workflow, schema(), {})


def test_a_paid_node_that_leads_to_nothing_does_no_harm() -> None:
    workflow = {**TEXT_TO_IMAGE, "50": node("FluxKontextProImageNode", prompt="x")}
    assert "50" not in small(workflow)


def test_unknown_classes_are_all_named() -> None:
    with pytest.raises(BadEntry) as caught:
        refuse_unknown({"1": node("Nope"), "2": node("VAELoader"), "3": node("Never")}, schema())
    assert [complaint.key for complaint in caught.value.complaints] == ["prompt", "prompt"]
    assert "'Nope'" in str(caught.value)


def test_without_preview_any_pictures_go_to_the_temporary_folder() -> None:
    old = lacking("PreviewAny")
    assert smallest(TEXT_TO_IMAGE, old, {})["warmup-preview-1"] == node("PreviewImage", images=["8", 0])
    with pytest.raises(BadEntry, match="has no PreviewAny to end a warm-up of VAE with"):
        smallest({"1": node("VAELoader"), "2": node("ShowText", text=["1", 0])}, old, {})


def test_ids_that_are_taken_are_not_taken_again() -> None:
    workflow = copy.deepcopy(TEXT_TO_IMAGE)
    workflow["warmup-preview-1"] = workflow.pop("8")
    workflow["9"]["inputs"]["images"] = ["warmup-preview-1", 0]
    assert small(workflow)["warmup-preview-1-"] == node("PreviewAny", source=["warmup-preview-1", 0])
