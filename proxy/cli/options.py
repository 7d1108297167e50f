"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from proxy.config import Config, load

ConfigOption: TypeAlias = Annotated[
    Path | None, typer.Option("--config", "-c", help="proxy.toml; without it every key has its default")
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
ProxyOption: TypeAlias = Annotated[
    str | None, typer.Option("--proxy", help="URL of the running proxy; default: where the configuration listens")
]


def read_config(path: Path | None) -> Config:
    """The configuration that a command was given.

    Raises:
        ConfigError: when it cannot be used.
    """
    return Config() if path is None else load(path)
