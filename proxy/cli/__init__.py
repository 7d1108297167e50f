"""The command `comfykeep`."""

from proxy.cli.commands import main

__all__ = ["main"]
