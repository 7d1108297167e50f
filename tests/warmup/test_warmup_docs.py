"""The documentation and the example cannot drift from what an entry takes."""

import json
import re
import tomllib
from pathlib import Path

from tests.warmup.schemas import node
from warmup.entries import Entry, Trigger
from warmup.schedule import load

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "warmup.md").read_text(encoding="utf-8")
EXAMPLE = (ROOT / "deploy" / "warmup.example.toml").read_text(encoding="utf-8")


def test_every_key_is_documented_with_its_default() -> None:
    table = dict(re.findall(r"^\| `(\w+)` \|\s*([^|]*?)\s*\|", DOCS, re.MULTILINE))
    assert table.keys() == Entry.model_fields.keys()
    for key, documented in table.items():
        field = Entry.model_fields[key]
        if field.is_required():
            assert documented == "required"
            continue
        if not documented:
            assert field.default is None, key
            continue
        given = {"name": "a", "loader": "x"} | tomllib.loads(f"{key} = {documented.strip('`')}")
        assert getattr(Entry.model_validate(given), key) == field.default, key


def test_every_trigger_is_documented() -> None:
    for trigger in set(Trigger) - {Trigger.CRON, Trigger.MANUAL}:
        assert f'`"{trigger}"`' in DOCS


def test_the_example_is_good_and_uses_every_key(tmp_path: Path) -> None:
    (tmp_path / "warmup.toml").write_text(EXAMPLE)
    assert load(tmp_path / "warmup.toml").faults == ()
    (tmp_path / "warmup.toml").write_text(EXAMPLE.replace("#: ", ""))
    workflow = {
        "5": node("EmptyLatentImage", width=1024, height=1024, batch_size=1),
        "6": node("CLIPTextEncode", text="a cat"),
    }
    (tmp_path / "portraits.api.json").write_text(json.dumps(workflow))
    schedule = load(tmp_path / "warmup.toml")
    assert schedule.faults == ()
    used = set[str]().union(*(planned.entry.model_fields_set for planned in schedule.entries))
    assert used == Entry.model_fields.keys()
