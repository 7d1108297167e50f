"""docs/operations.md quotes the log as it is, and names the commands and routes that there are."""

import re
from pathlib import Path

from typer.main import get_command

from proxy.cli import commands

ROOT = Path(__file__).parent.parent
DOCS = (ROOT / "docs/operations.md").read_text(encoding="utf-8")


def source() -> str:
    """All code, with string literals that are split over lines put together."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "proxy").rglob("*.py")))
    return re.sub(r'"\s*\n\s*f?"', "", text)


def test_every_quoted_line_of_the_log_exists() -> None:
    rows = re.findall(r"^\| `(.+?)` \| (?:info|warning|error|critical) \|", DOCS, re.MULTILINE)
    assert len(rows) > 20
    code = source()
    assert [row for row in rows if row not in code] == []


def test_every_command_exists() -> None:
    group = get_command(commands.app)
    for words in re.findall(r"comfykeep (queue \w+|service \w+|queue|explain|mode)\b", DOCS):
        command = group
        for word in words.split():
            command = command.commands[word]  # type: ignore[attr-defined]


def test_every_route_exists() -> None:
    routes = "".join(path.read_text() for path in (ROOT / "proxy/downstream").glob("*routes.py"))
    quoted = re.findall(r"`(?:GET|POST) (/comfykeep/[\w/]+)", DOCS)
    assert quoted
    assert [path for path in quoted if path.replace("/ID/", "/{prompt_id}/") not in routes] == []
