"""What the worker tells the web server.

In ComfyUI the worker thread puts events into a queue and one loop sends them, so a prompt never waits for its clients,
but every client waits for the slowest one.
"""

from enum import IntEnum
from typing import Any, Protocol


class Binary(IntEnum):
    """Types of binary events (ComfyUI protocol.py)."""

    PREVIEW = 1
    UNENCODED_PREVIEW = 2
    TEXT = 3
    PREVIEW_WITH_METADATA = 4


class Events(Protocol):
    """The sending side, and what the server remembers about the running prompt."""

    client_id: Any
    """Client of the running prompt, or of the last one; None: it has none."""
    last_node_id: str | None
    """The node that runs, for a client that connects now."""
    last_prompt_id: str | None

    def send(self, event: str | Binary, data: Any, client_id: Any = None) -> None:
        """Queue an event for one client, or with None for all."""

    def supports(self, client_id: Any, feature: str) -> bool:
        """Whether the client announced a feature."""
