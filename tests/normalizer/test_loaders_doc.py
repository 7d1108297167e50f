"""docs/loaders.md says what the code does."""

import re
from pathlib import Path

from normalizer import METADATA_SCANNERS, Role, describe
from tests.normalizer.schemas import EXTRACT, SCHEMA

TEXT = (Path(__file__).parents[2] / "docs" / "loaders.md").read_text("utf-8")
LOADERS, CHAIN_NODES = TEXT.partition("### Chain nodes")[::2]


def table(text: str) -> dict[str, tuple[str, str]]:
    rows = re.findall(r"^\| `(.+?)` \| (.+?) \| `(.+?)` \|$", text, re.MULTILINE)
    return {name: (reason, module) for name, reason, module in rows}


def test_every_row_of_a_class_that_the_tests_know() -> None:
    rows = [row for row in describe(SCHEMA) if row.class_type in EXTRACT]
    for role, text in ((Role.LOADER, LOADERS), (Role.CHAIN, CHAIN_NODES)):
        expected = {row.class_type: (row.reason, row.module) for row in rows if row.role is role}
        assert expected
        assert {name: row for name, row in table(text).items() if name in EXTRACT} == expected


def test_the_counts() -> None:
    found = re.search(r"Of (\d+) classes, (\d+) are loaders and (\d+) chain nodes", TEXT)
    assert found is not None
    assert [int(count) for count in found.groups()[1:]] == [len(table(LOADERS)), len(table(CHAIN_NODES))]


def test_the_metadata_scanners() -> None:
    assert all(f"`{name}`" in TEXT for name in METADATA_SCANNERS)
