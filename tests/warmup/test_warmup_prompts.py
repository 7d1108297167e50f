"""What is submitted for an entry: from its workflow, from what clients have sent before, or made up."""

import json
from fnmatch import fnmatch
from pathlib import Path

import pytest

from normalizer import Chain, ModelRef, Schema, normalize
from tests.warmup.schemas import Prompt, classes, lacking, node, refusals, schema
from tests.warmup.test_warmup_smallest import TEXT_TO_IMAGE
from warmup.entries import Depth
from warmup.faults import BadEntry
from warmup.misfits import check
from warmup.prompts import Preparation, Surroundings, prepare, prepare_file
from warmup.schedule import Schedule, load

FLUX = ModelRef("CheckpointLoaderSimple", ("flux.safetensors",))
STYLE = ModelRef("LoraLoader", ("style.safetensors",))


class Glob:
    def __init__(self, *globs: str) -> None:
        self.globs = globs

    def matches_name(self, name: str) -> bool:
        return any(fnmatch(name, glob) for glob in self.globs)


def around(
    *, of: Schema | None = None, seen: tuple[Prompt, ...] = (), groups: dict[str, Glob] | None = None
) -> Surroundings:
    known = of or schema()
    chains: tuple[Chain, ...] = tuple(chain for prompt in seen for chain in normalize(prompt, known).chains)
    return Surroundings(known, chains, groups or {})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "flux.json").write_text(json.dumps(TEXT_TO_IMAGE))
    return tmp_path


def read(folder: Path, entry: str) -> Schedule:
    (folder / "warmup.toml").write_text(f'[[entry]]\nname = "a"\n{entry}')
    schedule = load(folder / "warmup.toml")
    assert schedule.faults == ()
    return schedule


def prepared(folder: Path, entry: str, surroundings: Surroundings | None = None) -> Preparation:
    where = surroundings or around()
    [planned] = read(folder, entry).entries
    made = prepare(planned, where)
    for step in made.steps:
        assert refusals(step.prompt, where.schema) == []
        assert step.models == normalize(step.prompt, where.schema).models
    return made


def test_a_workflow_into_vram_is_one_small_prompt(folder: Path) -> None:
    [step] = prepared(folder, 'prompt = "flux.json"\nset = { "6.inputs.text" = "warm", "5.inputs.width" = 512 }').steps
    assert (step.depth, step.models, step.label) == (Depth.VRAM, frozenset({FLUX, STYLE}), "flux.json")
    assert step.prompt["6"]["inputs"]["text"] == "warm"
    assert step.prompt["5"]["inputs"] == {"width": 512, "height": 16, "batch_size": 1}


def test_a_workflow_into_ram_is_its_loader_chains_one_by_one(folder: Path) -> None:
    workflow = {**TEXT_TO_IMAGE, "20": node("VAELoader", vae_name="ae.safetensors")}
    workflow["8"] = node("VAEDecode", samples=["3", 0], vae=["20", 0])
    (folder / "two.json").write_text(json.dumps(workflow))
    steps = prepared(folder, 'prompt = "two.json"\nto = "ram"').steps
    assert sorted(classes(step.prompt) for step in steps) == [
        ["CheckpointLoaderSimple", "LoraLoader", "ModelSamplingFlux", "PreviewAny"],
        ["PreviewAny", "VAELoader"],
    ]
    signatures = {chain.signature for step in steps for chain in normalize(step.prompt, schema()).chains}
    assert signatures == {chain.signature for chain in normalize(workflow, schema()).chains}


def test_a_workflow_without_models_has_nothing_to_bring_into_ram(folder: Path) -> None:
    (folder / "flux.json").write_text(json.dumps({"1": node("PrimitiveInt", value=1)}))
    with pytest.raises(BadEntry, match="loads no model"):
        prepare(read(folder, 'prompt = "flux.json"\nto = "ram"').entries[0], around())


def test_unknown_classes_are_refused_at_every_depth(folder: Path) -> None:
    (folder / "flux.json").write_text(json.dumps({**TEXT_TO_IMAGE, "99": node("Gone")}))
    for depth in ("ram", "vram"):
        with pytest.raises(BadEntry, match="node 99 is of class 'Gone'"):
            prepare(read(folder, f'prompt = "flux.json"\nto = "{depth}"').entries[0], around())


CHECKPOINT = 'loader = "CheckpointLoaderSimple"\ninputs = { ckpt_name = "flux.safetensors" }\n'


def test_a_loader_into_ram_is_looked_at_and_not_used(folder: Path) -> None:
    [step] = prepared(folder, CHECKPOINT + 'to = "ram"').steps
    assert classes(step.prompt) == ["CheckpointLoaderSimple", "PreviewAny"]
    assert (step.models, step.depth) == (frozenset({FLUX}), Depth.RAM)


@pytest.mark.parametrize(
    ("entry", "used"),
    [
        (CHECKPOINT, ["CLIPTextEncode", "CheckpointLoaderSimple", "EmptyImage", "KSampler", "VAEDecode", "VAEEncode"]),
        (
            'loader = "VAELoader"\ninputs.vae_name = "ae.safetensors"',
            ["EmptyImage", "VAEDecode", "VAEEncode", "VAELoader"],
        ),
        (
            'loader = "CLIPLoader"\ninputs = { clip_name = "t5.safetensors", type = "sd3" }',
            ["CLIPLoader", "CLIPTextEncode"],
        ),
        (
            'loader = "CLIPVisionLoader"\ninputs.clip_name = "vit.safetensors"',
            ["CLIPVisionEncode", "CLIPVisionLoader", "EmptyImage"],
        ),
        (
            'loader = "UpscaleModelLoader"\ninputs.model_name = "4x.pth"',
            ["EmptyImage", "ImageUpscaleWithModel", "UpscaleModelLoader"],
        ),
    ],
)
def test_a_loader_into_vram_is_used_once_by_its_kind(folder: Path, entry: str, used: list[str]) -> None:
    made = prepared(folder, entry)
    [step] = made.steps
    assert classes(step.prompt) == sorted([*used, "PreviewAny"])
    assert (step.depth, made.notes) == (Depth.VRAM, ())
    if "KSampler" in used:
        assert step.prompt["warmup-KSampler"]["inputs"]["steps"] == 1


@pytest.mark.parametrize(
    ("entry", "note"),
    [
        ('loader = "UNETLoader"\ninputs.unet_name = "wan/low.safetensors"', "needs a text encoder"),
        ('loader = "StyleModelLoader"\ninputs.style_model_name = "redux.safetensors"', "knows how to use STYLE_MODEL"),
    ],
)
def test_what_cannot_be_used_alone_goes_into_ram_and_says_so(folder: Path, entry: str, note: str) -> None:
    made = prepared(folder, entry)
    [step] = made.steps
    assert (step.depth, len(step.prompt)) == (Depth.RAM, 2)
    assert note in made.notes[0]


def test_classes_that_this_comfyui_lacks_are_done_without(folder: Path) -> None:
    made = prepared(folder, CHECKPOINT, around(of=lacking("VAEEncode")))
    assert classes(made.steps[0].prompt) == [
        *("CLIPTextEncode", "CheckpointLoaderSimple", "EmptyLatentImage", "KSampler", "PreviewAny"),
    ]
    assert any("this ComfyUI has no VAEEncode" in note for note in made.notes)


def test_a_loader_gets_the_defaults_that_the_page_would_send(folder: Path) -> None:
    [step] = prepared(folder, 'loader = "UNETLoader"\ninputs.unet_name = "wan/low.safetensors"\nto = "ram"').steps
    assert step.prompt["warmup-loader"]["inputs"] == {"unet_name": "wan/low.safetensors", "weight_dtype": "default"}
    client = {
        "7": node("CLIPLoader", clip_name="t5.safetensors", type="sd3", device="default"),
        "8": node("PreviewAny", source=["7", 0]),
    }
    [step] = prepared(
        folder, 'loader = "CLIPLoader"\ninputs = { clip_name = "t5.safetensors", type = "sd3" }\nto = "ram"'
    ).steps
    [ours], [theirs] = normalize(step.prompt, schema()).chains, normalize(client, schema()).chains
    assert ours.signature == theirs.signature


@pytest.mark.parametrize(
    ("entry", "key", "words"),
    [
        ('loader = "CheckpointLoaderSimpel"', "loader", "did you mean 'CheckpointLoaderSimple'"),
        ('loader = "LoraLoader"', "loader", "needs MODEL from another node; give a prompt instead"),
        ('loader = "KSampler"', "loader", "loads no model by itself"),
        ('loader = "PrimitiveInt"', "loader", "loads no model by itself"),
        ('loader = "VAELoader"\ninputs.vae_nam = "a"', "inputs.vae_nam", "no such input; did you mean 'vae_name'"),
        ('loader = "VAELoader"', "inputs.vae_name", "needs it; give one of 'ae.safetensors'"),
        ('loader = "CLIPLoader"\ninputs.clip_name = "t5.safetensors"', "inputs.type", "give one of 'stable_diffusion'"),
        ('group = "nightly"', "group", "no group 'nightly'; did you mean 'night'"),
        ('group = "empty"', "group", "no model file of this ComfyUI matches"),
        ('group = "encoders"', "group", "t5.safetensors: inputs.type: CLIPLoader needs it"),
    ],
)
def test_what_keeps_a_loader_or_group_from_being_warmed(folder: Path, entry: str, key: str, words: str) -> None:
    where = around(groups={"night": Glob("flux*"), "empty": Glob("nothing"), "encoders": Glob("t5*")})
    schedule = read(folder, entry)
    faults = [fault for fault in check(schedule, where) if fault.key == key]
    assert len(faults) == 1
    assert faults[0].entry == "a"
    assert words in str(faults[0])


def test_all_faults_of_a_loader_at_once(folder: Path) -> None:
    faults = check(read(folder, 'loader = "CLIPLoader"\ninputs.foo = 1'), around())
    assert [fault.key for fault in faults] == ["inputs.foo", "inputs.clip_name", "inputs.type"]


def test_models_that_are_not_there_are_found_by_check_only(folder: Path) -> None:
    gone = read(folder, 'loader = "VAELoader"\ninputs.vae_name = "ae2.safetensors"')
    [fault] = check(gone, around())
    assert fault.key == "inputs.vae_name"
    assert "did you mean 'ae.safetensors'" in fault.remedy
    assert prepare(gone.entries[0], around()).steps, "the file may be newer than the schema"
    (folder / "flux.json").write_text(json.dumps(TEXT_TO_IMAGE).replace("flux.safetensors", "gone.ckpt"))
    for depth in ("ram", "vram"):
        [fault] = check(read(folder, f'prompt = "flux.json"\nto = "{depth}"'), around())
        assert (fault.key, fault.entry) == ("prompt", "a")
        assert "node 4 (CheckpointLoaderSimple): ckpt_name 'gone.ckpt'" in fault.problem
    assert (
        check(read(folder, 'prompt = "flux.json"\nset = { "4.inputs.ckpt_name" = "flux.safetensors" }'), around()) == ()
    )


def test_a_group_is_what_clients_sent_and_the_plain_loaders_of_the_rest(folder: Path) -> None:
    where = around(seen=(TEXT_TO_IMAGE,), groups={"g": Glob("flux*", "ae*")})
    steps = prepared(folder, 'group = "g"\nto = "ram"', where).steps
    assert [classes(step.prompt) for step in steps] == [
        ["CheckpointLoaderSimple", "PreviewAny"],
        ["PreviewAny", "VAELoader"],
    ]
    client = normalize(TEXT_TO_IMAGE, schema())
    assert set(normalize(steps[0].prompt, schema()).own) <= set(client.own), "the very node that clients use"
    steps = prepared(
        folder, 'group = "g"\nto = "ram"', around(seen=(TEXT_TO_IMAGE,), groups={"g": Glob("style*")})
    ).steps
    assert [classes(step.prompt) for step in steps] == [["CheckpointLoaderSimple", "LoraLoader", "PreviewAny"]]


def test_a_group_without_a_way_to_load_some_of_it_says_so(folder: Path) -> None:
    made = prepared(folder, 'group = "g"\nto = "ram"', around(groups={"g": Glob("*.safetensors")}))
    loaded = {file for ref in made.models for file in ref.files}
    assert loaded == {
        *("flux.safetensors", "sd15.safetensors", "ae.safetensors", "wan_vae.safetensors", "vit.safetensors"),
        *("wan/high.safetensors", "wan/low.safetensors", "redux.safetensors", "canny.safetensors"),
    }
    assert all("needs it" in note or "another node" in note for note in made.notes)
    assert len(made.notes) == 3


def test_a_lone_diffusion_model_is_sampled_with_the_lone_encoder_and_vae(folder: Path) -> None:
    client = {
        "1": node("UNETLoader", unet_name="wan/low.safetensors", weight_dtype="default"),
        "2": node("CLIPLoader", clip_name="umt5.safetensors", type="sd3", device="default"),
        "3": node("VAELoader", vae_name="wan_vae.safetensors"),
        "4": node("PreviewAny", source=["1", 0]),
        "5": node("PreviewAny", source=["2", 0]),
        "6": node("PreviewAny", source=["3", 0]),
    }
    where = around(seen=(client,), groups={"wan": Glob("wan/low*", "umt5*", "wan_vae*", "redux*")})
    made = prepared(folder, 'group = "wan"', where)
    joint, alone = made.steps
    assert {"UNETLoader", "CLIPLoader", "VAELoader", "KSampler", "VAEDecode"} <= set(classes(joint.prompt))
    assert len(joint.models) == 3
    assert alone.models == {ModelRef("StyleModelLoader", ("redux.safetensors",))}
    where = around(seen=(client,), groups={"wan": Glob("wan/*", "umt5*", "wan_vae*")})
    made = prepared(folder, 'group = "wan"', where)
    assert len(made.steps) == 4, "which of the two diffusion models the encoder is for is not known"
    assert "KSampler" not in {name for step in made.steps for name in classes(step.prompt)}


def test_a_file_by_name_is_loaded_as_clients_load_it() -> None:
    where = around(seen=(TEXT_TO_IMAGE,))
    [step] = prepare_file("style.safetensors", where, Depth.RAM).steps
    assert classes(step.prompt) == ["CheckpointLoaderSimple", "LoraLoader", "PreviewAny"]
    [step] = prepare_file("low.safetensors", around(), Depth.RAM).steps
    assert step.models == {ModelRef("UNETLoader", ("wan/low.safetensors",))}
    [step] = prepare_file("wan\\low.safetensors", around(), Depth.RAM).steps
    assert step.models == {ModelRef("UNETLoader", ("wan/low.safetensors",))}


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("flux.safetensor", "did you mean 'flux.safetensors'"),
        ("style.safetensors", "LoraLoader loads no model by itself"),
        ("a.gguf", "inputs.mode: HalfLoader needs it; give one of 'fast', 'slow'"),
    ],
)
def test_a_file_that_cannot_be_warmed(file: str, words: str) -> None:
    with pytest.raises(BadEntry, match=f"{file}") as caught:
        prepare_file(file, around(), Depth.VRAM)
    assert words in str(caught.value)
