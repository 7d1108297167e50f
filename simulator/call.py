"""What a running node can see and do."""

import struct
from typing import TYPE_CHECKING, Any

from .events import Binary
from .graph import GraphBuilder
from .nodes.base import Interrupted
from .progress import Progress
from .stills import JPEG

if TYPE_CHECKING:
    from .run import Site

_PREVIEW_METADATA = "supports_preview_metadata"


class Interrupt:
    """The one flag by which a running prompt is stopped; whoever notices it takes it down."""

    def __init__(self) -> None:
        self.wanted = False

    def check(self) -> None:
        """Raise Interrupted where somebody wanted that."""
        if self.wanted:
            self.wanted = False
            raise Interrupted


class NodeCall:
    """One call of one node; see nodes.base.Call."""

    def __init__(  # it is made in one place, of what that place has
        self, site: "Site", progress: Progress, prompt_id: str, node_id: str, class_type: str, index: int
    ) -> None:
        self.machine = site.machine
        self.prompt_id = prompt_id
        self.node_id = node_id
        self.class_type = class_type
        self._site = site
        self._progress = progress
        self._index = index
        self._graphs = 0

    @property
    def client_id(self) -> Any:
        """Who gets the events of this prompt."""
        return self._site.events.client_id

    def check_interrupt(self) -> None:
        """Raise Interrupted where somebody wanted that."""
        self._site.interrupt.check()

    def progress(self, value: float, maximum: float, *, preview: bool = False, always: bool = False) -> None:
        """As the hook that ComfyUI's progress bars call (main.py, `hijack_progress`)."""
        self.check_interrupt()
        events = self._site.events
        shown = preview and (always or self._site.preview_method != "none")
        with_metadata = events.supports(events.client_id, _PREVIEW_METADATA)
        self._progress.update(self.node_id, value, maximum)
        if shown and with_metadata:
            metadata = self._progress.identity(self.node_id)
            events.send(Binary.PREVIEW_WITH_METADATA, (JPEG, metadata), events.client_id)
        data = {"value": value, "max": maximum, "prompt_id": self.prompt_id, "node": self.node_id}
        events.send("progress", data, events.client_id)
        if shown and not with_metadata:
            events.send(Binary.UNENCODED_PREVIEW, JPEG, events.client_id)

    def send(self, event: str, data: Any, client_id: Any) -> None:
        """Send an event of one's own."""
        self._site.events.send(event, data, client_id)

    def send_text(self, text: str, client_id: Any) -> None:
        """Send a progress text (ComfyUI server.py, `send_progress_text`)."""
        node_id = self.node_id.encode()
        self._site.events.send(Binary.TEXT, struct.pack(">I", len(node_id)) + node_id + text.encode(), client_id)

    def builder(self) -> GraphBuilder:
        """A builder whose ids follow ComfyUI's: node, call, number of the graph."""
        prefix = f"{self.node_id}.{self._index}.{self._graphs}."
        self._graphs += 1
        return GraphBuilder(prefix)
