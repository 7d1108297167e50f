"""The schedule file: what it may say, and that every fault names file, entry, key and remedy while the rest stands."""

import json
from pathlib import Path
from typing import Any

import pytest

from warmup.entries import Depth, Trigger
from warmup.faults import Fault
from warmup.schedule import Schedule, load

WORKFLOW = {
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "flux.safetensors"}},
    "6:1": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["4", 1], "odd.name": 1}},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "flux.api.json").write_text(json.dumps(WORKFLOW))
    return tmp_path


def read(folder: Path, text: str) -> Schedule:
    path = folder / "warmup.toml"
    path.write_text(text)
    return load(path)


def test_everything_an_entry_can_say(folder: Path) -> None:
    schedule = read(
        folder,
        """
        [[entry]]
        name = "flux in the morning"
        prompt = "flux.api.json"
        set = { "6:1.inputs.text" = "warm", "6:1.inputs.odd.name" = 2 }
        to = "vram"
        on = ["start", "upstream-start", "evicted", "idle"]
        cron = "0 8 * * mon-fri"
        timezone = "Europe/Berlin"
        priority = 3
        only_when_idle = true
        timeout = "90s"
        keep = "2h"

        [[entry]]
        name = "vae"
        loader = "VAELoader"
        inputs = { vae_name = "ae.safetensors" }
        to = "ram"
        timeout = 30

        [[entry]]
        name = "team"
        group = "flux"
        """,
    )
    assert schedule.faults == ()
    flux, vae, team = (planned.entry for planned in schedule.entries)
    assert flux.triggers == {Trigger.START, Trigger.UPSTREAM_START, Trigger.EVICTED, Trigger.IDLE}
    assert (flux.timeout, flux.keep, flux.priority, flux.only_when_idle) == (90.0, 7200.0, 3, True)
    assert schedule.entries[0].workflow == WORKFLOW
    assert (vae.to, vae.timeout, vae.keep, vae.cron, vae.what) == (
        Depth.RAM,
        30.0,
        None,
        None,
        "VAELoader ae.safetensors",
    )
    assert (team.to, team.timeout, team.what) == (Depth.VRAM, 600.0, "group flux")
    assert schedule.listening(Trigger.IDLE) == ("flux in the morning",)
    assert set(schedule.files) == {folder / "warmup.toml", folder / "flux.api.json"}


ENTRY = '[[entry]]\nname = "a"\n'
LOADER = ENTRY + 'loader = "VAELoader"\n'
PROMPT = ENTRY + 'prompt = "flux.api.json"\n'


@pytest.mark.parametrize(
    ("text", "entry", "key", "words"),
    [
        (LOADER + 'cron = "0 25 * * *"', "a", "cron", ["'0 25 * * *'", "bad hour"]),
        (LOADER + 'cron = "0 8 * *"', "a", "cron", ["4 fields, not 5"]),
        (LOADER + 'timezone = "Mars/Base"', "a", "timezone", ["no time zone", "Europe/Berlin"]),
        (LOADER + 'timezone = "../../etc/passwd"', "a", "timezone", ["no time zone"]),
        (LOADER + 'on = ["strat"]', "a", "on.0", ["'strat'", "'start'"]),
        (LOADER + 'on = "start"', "a", "on", ["'start'", "list"]),
        (LOADER + 'to = "gpu"', "a", "to", ["'ram' or 'vram'"]),
        (LOADER + 'keep = "2 hours"', "a", "keep", ['"2h"']),
        (LOADER + "timeout = 0", "a", "timeout", ["greater than 0"]),
        (LOADER + "timeout = nan", "a", "timeout", ["nan"]),
        (LOADER + "timeout = true", "a", "timeout", ["number of seconds"]),
        (LOADER + "priority = 1.5", "a", "priority", ["integer"]),
        (LOADER + 'prioritt = "x"', "a", "prioritt", ["unknown key", "did you mean 'priority'?"]),
        (LOADER + "inputs = { vae_name = [1] }", "a", "inputs.vae_name", ["a text, a finite number"]),
        (LOADER + "inputs = { vae_name = inf }", "a", "inputs.vae_name", ["a finite number"]),
        (LOADER + 'set = { "1.inputs.a" = 1 }', "a", "loader", ["set, which goes with prompt"]),
        (PROMPT + "inputs = { a = 1 }", "a", "prompt", ["inputs, which go with loader"]),
        (LOADER + 'group = "flux"', "a", "loader", ["exactly one of prompt, loader and group"]),
        (ENTRY, "a", "prompt", ["nothing to warm"]),
        ('[[entry]]\nloader = "VAELoader"', "#1", "name", ["is missing"]),
        ('[[entry]]\nname = 7\nloader = "VAELoader"', "#1", "name", ["string"]),
        ('[[entry]]\nname = " a"\nloader = "VAELoader"', " a", "name", ["space"]),
        (LOADER + LOADER, "a", "name", ["name of entry 1 already", "rename entry 2"]),
        (ENTRY + 'prompt = "none.json"', "a", "prompt", ["there is no file", "none.json"]),
        (PROMPT + 'set = { "9.inputs.text" = "x" }', "a", "set", ["no node '9'", "4 (CheckpointLoaderSimple)"]),
        (PROMPT + 'set = { "6:1.inputs.txt" = "x" }', "a", "set", ["no input 'txt'", "did you mean 'text'?"]),
        (PROMPT + 'set = { "6:1.text" = "x" }', "a", "set", ["no path", "6.inputs.text"]),
        ("[[entri]]\n", None, "entri", ["unknown key", "did you mean 'entry'?"]),
        ("entry = 3\n", None, "entry", ["[[entry]]"]),
        ("entry = [3]\n", "#1", None, ["is no table"]),
        ("[[entry]\n", None, None, ["not valid TOML", "line 1"]),
    ],
)
def test_faults_name_their_place_and_remedy(
    folder: Path, text: str, entry: str | None, key: str | None, words: list[str]
) -> None:
    [fault] = read(folder, text).faults
    assert (fault.file, fault.entry, fault.key) == (str(folder / "warmup.toml"), entry, key)
    assert fault.remedy
    for word in words:
        assert word in str(fault)


def test_all_faults_at_once_and_only_those_entries_are_out(folder: Path) -> None:
    schedule = read(
        folder,
        LOADER
        + """
        [[entry]]
        name = "b"
        cron = "never"
        keep = "x"
        foo = 1
        [[entry]]
        name = "c"
        prompt = "flux.api.json"
        set = { "1.inputs.a" = 1, "nonsense" = 2 }
        [[entry]]
        name = "d"
        group = "flux"
        """,
    )
    assert [planned.name for planned in schedule.entries] == ["a", "d"]
    assert [(fault.entry, fault.key) for fault in schedule.faults] == [
        ("b", "cron"),
        ("b", "keep"),
        ("b", "foo"),
        ("b", "prompt"),
        ("c", "set"),
        ("c", "set"),
    ]


def page_format() -> dict[str, Any]:
    return {"nodes": [{"id": 1, "type": "VAELoader"}], "links": [], "version": 0.4}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (json.dumps(page_format()), ["page's own format", "Export (API)"]),
        (json.dumps({"prompt": WORKFLOW, "client_id": "x"}), ["whole submission", "'prompt'"]),
        ("{", ["no JSON"]),
        ("[" * 100_000, ["no JSON"]),
        ('{"1": {"class_type": "A", "inputs": {"x": %s}}}' % ("[" * 600 + "]" * 600), ["more than 64 deep"]),
        ("\ufffe", ["no JSON"]),
        ("[]", ["no JSON object"]),
        ("{}", ["no nodes"]),
        ('{"1": {"inputs": {}}}', ["node '1' has no class_type"]),
        ('{"1": {"class_type": "A"}}', ["node '1' has no inputs"]),
        ('{"1": {"class_type": "A", "inputs": {"x": ["2", 0]}}}', ["input x", "'2', which is not there"]),
        ('{"1": {"class_type": "A", "inputs": {"x": ["1", 0.5]}}}', ["output 0.5"]),
        ('{"1": {"class_type": "A", "inputs": {"x": ["1", NaN]}}}', ["output nan"]),
    ],
)
def test_what_is_no_workflow_in_api_format(folder: Path, content: str, words: list[str]) -> None:
    (folder / "flux.api.json").write_text(content)
    [fault] = read(folder, PROMPT).faults
    assert (fault.entry, fault.key) == ("a", "prompt")
    for word in words:
        assert word in str(fault)


def test_a_missing_file_is_a_fault_of_the_file(tmp_path: Path) -> None:
    schedule = load(tmp_path / "warmup.toml")
    [fault] = schedule.faults
    assert (fault.entry, fault.key, schedule.entries) == (None, None, ())
    assert "there is no such file" in fault.problem


def test_bytes_that_are_no_text_are_a_fault_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "warmup.toml").write_bytes(b"\xff\xfe\x00")
    [fault] = load(tmp_path / "warmup.toml").faults
    assert "cannot be read" in fault.problem


def test_a_changed_workflow_is_a_changed_entry(folder: Path) -> None:
    before = read(folder, PROMPT)
    assert read(folder, PROMPT).definitions == before.definitions
    (folder / "flux.api.json").write_text(json.dumps(WORKFLOW | {"9": WORKFLOW["4"]}))
    assert read(folder, PROMPT).definitions != before.definitions


def test_a_fault_in_words() -> None:
    fault = Fault("warmup.toml", "a", "cron", "has 4 fields, not 5", "see docs/warmup.md")
    assert str(fault) == "warmup.toml: entry 'a': cron: has 4 fields, not 5; see docs/warmup.md"
