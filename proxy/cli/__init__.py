"""The command `comfykeep`."""

import sys


def main() -> None:
    """Run the command line. Its modules are loaded here, so that Ctrl-C ends it quietly from the first moment on."""
    try:
        from proxy.cli import commands  # noqa: PLC0415 - see above

        commands.main()
    except KeyboardInterrupt:
        sys.exit(130)
