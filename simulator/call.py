"""What a running node can see and do."""

import struct
from typing import TYPE_CHECKING, Any

from .events import Binary
from .graph import GraphBuilder
from .ledger import Doer
from .nodes.base import Interrupted
from .progress import Progress
from .stills import Still

if TYPE_CHECKING:
    from .run import Site

_PREVIEW_METADATA = "supports_preview_metadata"

# comfy/utils.py: PROGRESS_THROTTLE_MIN_INTERVAL (here in simulated seconds of work) and PROGRESS_THROTTLE_MIN_PERCENT.
_QUIET_SECONDS = 0.1
_QUIET_PERCENT = 0.5


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
        self.doer = Doer(prompt_id, node_id, class_type)
        self._site = site
        self._progress = progress
        self._index = index
        self._graphs = 0
        self._told = -1.0
        self._told_at = 0.0

    @property
    def client_id(self) -> Any:
        """Who gets the events of this prompt."""
        return self._site.events.client_id

    def check_interrupt(self) -> None:
        """Raise Interrupted where somebody wanted that."""
        self._site.interrupt.check()

    @property
    def previews(self) -> bool:
        """Whether samplers show their work."""
        return self._site.preview_method != "none"

    def progress(self, value: float, maximum: float, preview: Still | None = None) -> None:
        """As a progress bar of ComfyUI, which tells less than it is told (comfy/utils.py, `ProgressBar`)."""
        now = self.machine.clock.slept
        rushed = now - self._told_at < _QUIET_SECONDS
        little = (value - max(0.0, self._told)) / maximum * 100 < _QUIET_PERCENT
        if preview is None and self._told >= 0 and value < maximum and (rushed or little):
            return
        self._told, self._told_at = value, now
        self._tell_progress(value, maximum, preview)

    def _tell_progress(self, value: float, maximum: float, preview: Still | None) -> None:
        """The hook that progress bars call (ComfyUI main.py, `hijack_progress`)."""
        self.check_interrupt()
        events = self._site.events
        with_metadata = events.supports(events.client_id, _PREVIEW_METADATA)
        self._progress.update(self.node_id, value, maximum)
        if preview is not None and with_metadata:
            metadata = self._progress.identity(self.node_id)
            events.send(Binary.PREVIEW_WITH_METADATA, (preview, metadata), events.client_id)
        data = {"value": value, "max": maximum, "prompt_id": self.prompt_id, "node": self.node_id}
        events.send("progress", data, events.client_id)
        if preview is not None and not with_metadata:
            events.send(Binary.UNENCODED_PREVIEW, preview, events.client_id)

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
