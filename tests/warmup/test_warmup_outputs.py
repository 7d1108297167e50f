"""What shows or saves is exchanged, whatever its kind, and what was uploaded is not needed."""

import pytest

from normalizer.inputs import Form
from tests.warmup.schemas import Prompt, classes, lacking, node, refusals, schema
from warmup.faults import BadEntry
from warmup.smallest import smallest

MADE: Prompt = {
    "checkpoint": node("CheckpointLoaderSimple", ckpt_name="flux.safetensors"),
    "image": node("EmptyImage", width=64, height=64, batch_size=1, color=0),
    "mask": node("SolidMask", value=1.0, width=64, height=64),
    "latent": node("EmptyLatentImage", width=64, height=64, batch_size=1),
    "audio": node("EmptyAudio", duration=1.0, sample_rate=44100, channels=2),
    "video": node("CreateVideo", images=["image", 0], fps=24.0),
    "text": node("StringReplace", string="x", find="x", replace="y"),
}
SOURCES = {
    "IMAGE": ["image", 0],
    "MASK": ["mask", 0],
    "LATENT": ["latent", 0],
    "AUDIO": ["audio", 0],
    "VIDEO": ["video", 0],
    "STRING": ["text", 0],
    "MODEL": ["checkpoint", 0],
    "CLIP": ["checkpoint", 1],
    "VAE": ["checkpoint", 2],
}
OUTPUT_NODES = [
    *("SaveImage", "PreviewImage", "MaskPreview", "SaveLatent", "CheckpointSave", "CLIPSave", "VAESave", "ModelSave"),
    *("SaveAnimatedWEBP", "SaveAnimatedPNG", "SaveAudio", "SaveAudioMP3", "SaveAudioOpus", "PreviewAudio"),
    *("SaveWEBM", "SaveVideo", "SaveText"),
]


@pytest.mark.parametrize("class_type", OUTPUT_NODES)
def test_every_kind_of_saving_node_is_exchanged(class_type: str) -> None:
    cls = schema().classes[class_type]
    assert cls.output_node
    links = {name: SOURCES[spec.type] for name, spec in cls.inputs.items() if spec.form is Form.LINK}
    made = smallest({**MADE, "9": node(class_type, **links)}, schema(), {})
    assert refusals(made, schema()) == []
    assert class_type not in classes(made)
    looked_at = [entry["inputs"]["source"] for entry in made.values() if entry["class_type"] == "PreviewAny"]
    assert sorted(looked_at) == sorted(links.values())


def test_a_preview_in_the_middle_stays_since_it_makes_a_text_of_anything() -> None:
    workflow = {
        "1": node("PrimitiveInt", value=30),
        "2": node("PreviewAny", source=["1", 0]),
        "3": node("StringReplace", string="N seconds", find="N", replace=["2", 0]),
        "4": node("SaveText", text=["3", 0], filename_prefix="x", format="txt"),
    }
    made = smallest(workflow, schema(), {})
    assert refusals(made, schema()) == []
    assert made["2"] == workflow["2"]
    assert made["3"] == workflow["3"]


def test_one_that_is_given_something_else_than_it_passes_on_is_not_wired_around() -> None:
    workflow = {
        "1": node("PrimitiveInt", value=30),
        "2": node("ShowAnything", value=["1", 0]),
        "3": node("StringReplace", string="N seconds", find="N", replace=["2", 0]),
        "4": node("SaveText", text=["3", 0], filename_prefix="x", format="txt"),
    }
    with pytest.raises(BadEntry, match="node 2"):
        smallest(workflow, schema(), {})
    workflow["1"] = node("StringReplace", string="x", find="x", replace="y")
    assert smallest(workflow, schema(), {})["3"]["inputs"]["replace"] == ["1", 0]


def test_uploaded_videos_and_sounds_become_blank_ones() -> None:
    workflow: Prompt = {
        "1": node("LoadVideo", file="holiday.mp4"),
        "2": node("GetVideoComponents", video=["1", 0]),
        "3": node("LoadAudio", audio="song.wav"),
        "4": node("CreateVideo", images=["2", 0], audio=["3", 0], fps=24.0),
        "5": node("SaveVideo", video=["4", 0], filename_prefix="x", format="auto"),
    }
    made = smallest(workflow, schema(), {})
    assert refusals(made, schema()) == []
    assert not {"LoadVideo", "LoadAudio", "SaveVideo"} & set(classes(made))
    video = made[made["2"]["inputs"]["video"][0]]
    assert video["class_type"] == "CreateVideo"
    assert made[video["inputs"]["audio"][0]]["class_type"] == "EmptyAudio", "what takes its sound finds some"
    assert smallest(workflow, lacking("EmptyAudio"), {})["1"] == workflow["1"], "nothing to make one of"
