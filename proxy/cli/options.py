"""Options that several commands share."""

import sys
from pathlib import Path
from typing import Annotated, TypeAlias

import typer
from rich.console import Console

from proxy.config import Config, load

_UNFOLDED = 10_000
"""Characters that no row needs; a table takes only what it needs."""


def _not_empty(value: str) -> str:
    if not value:
        raise typer.BadParameter("it is empty; give the id of a prompt")
    return value


ConfigOption: TypeAlias = Annotated[
    Path | None, typer.Option("--config", "-c", help="proxy.toml; without it every key has its default")
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
ProxyOption: TypeAlias = Annotated[
    str | None, typer.Option("--proxy", help="URL of the running proxy; default: where the configuration listens")
]
PromptArgument: TypeAlias = Annotated[
    str, typer.Argument(help="the id that ComfyUI answered to the submission", callback=_not_empty)
]


def read_config(path: Path | None) -> Config:
    """The configuration that a command was given.

    Raises:
        ConfigError: when it cannot be used.
    """
    return Config() if path is None else load(path)


def table_console() -> Console:
    """Where tables are printed: as wide as the terminal, and without folding where none reads it."""
    return Console() if sys.stdout.isatty() else Console(width=_UNFOLDED)
