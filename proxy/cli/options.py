"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

ConfigOption: TypeAlias = Annotated[
    Path | None, typer.Option("--config", "-c", help="proxy.toml; without it every key has its default")
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
ProxyOption: TypeAlias = Annotated[
    str | None, typer.Option("--proxy", help="URL of the running proxy; default: where the configuration listens")
]
