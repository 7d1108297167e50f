"""Options that several commands share."""

import sys
from pathlib import Path
from typing import Annotated, TypeAlias

import typer
from rich.console import Console

from proxy.addresses import check_url

_UNFOLDED = 10_000
"""Characters that no row needs; a table takes only what it needs."""


def _not_empty(value: str) -> str:
    if not value:
        raise typer.BadParameter("it is empty; give the id of a prompt")
    return value


def _base_url(value: str | None) -> str | None:
    try:
        return None if value is None else check_url(value)
    except ValueError as error:
        raise typer.BadParameter(f"{value!r} {error}") from error


ConfigOption: TypeAlias = Annotated[
    Path | None, typer.Option("--config", "-c", help="proxy.toml; without it every key has its default")
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
UpstreamOption: TypeAlias = Annotated[
    str | None, typer.Option(help="URL of the ComfyUI; default: the configured one", callback=_base_url)
]
ProxyOption: TypeAlias = Annotated[
    str | None, typer.Option("--proxy", help="URL of the running proxy; default: where the configuration listens")
]
PromptArgument: TypeAlias = Annotated[
    str, typer.Argument(help="the id that ComfyUI answered to the submission", callback=_not_empty)
]


def table_console() -> Console:
    """Where tables are printed: as wide as the terminal, and without folding where none reads it."""
    return Console() if sys.stdout.isatty() else Console(width=_UNFOLDED)
