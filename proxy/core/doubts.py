"""Failures in a row that may be ComfyUI's fault, and for how long their clients are not told of them.

One failure says nothing; the third in a row, on different graphs, says that the first two were none of the prompts'
doing either. To run those again too, nobody must have heard of their end. So it is kept back, but not for long: what
comes next at ComfyUI tells soon enough, and where nothing waits there is nothing to wait for.

No clock; times in seconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

PATIENCE = 10.0
"""Seconds for which an end is kept back at least, as long as nothing clears it up."""
LONGEST = 60.0
"""Seconds for which it is kept back at most: what runs next may take an hour without a sign."""


@dataclass(frozen=True, slots=True)
class _Doubt:
    prompt_id: str
    graph: str
    at: float


class Doubts:
    """The row of one ComfyUI."""

    def __init__(self) -> None:
        self._graphs: list[str] = []
        self._kept_back: list[_Doubt] = []
        self._stepped = False

    @property
    def in_a_row(self) -> int:
        """How many different graphs have failed without a success between them."""
        return len(self._graphs)

    def failed(self, prompt_id: str, graph: str, now: float) -> Sequence[str]:
        """A run has failed, and its end is kept back; of whom it need not be any longer: the same graph failed before.

        A graph that fails again and again is its own fault, so one of its prompts at most is waited for.
        """
        if graph not in self._graphs:
            self._graphs.append(graph)
        told = [doubt.prompt_id for doubt in self._kept_back if doubt.graph == graph]
        self._kept_back = [doubt for doubt in self._kept_back if doubt.graph != graph]
        self._kept_back.append(_Doubt(prompt_id, graph, now))
        self._stepped = False
        return told

    def stepped(self) -> None:
        """A node that runs has made a step: computing is possible."""
        self._stepped = True

    def take(self) -> Sequence[str]:
        """All whose end is kept back; from now on it is not."""
        taken = [doubt.prompt_id for doubt in self._kept_back]
        self._kept_back.clear()
        return taken

    def take_due(self, now: float, *, idle: bool) -> Sequence[str]:
        """As `take`, once they have been kept back for long enough; `idle` when nothing is at ComfyUI."""
        if not self._kept_back:
            return ()
        shown = (idle or self._stepped) and now >= self._kept_back[-1].at + PATIENCE
        return self.take() if shown or now >= self._kept_back[0].at + LONGEST else ()

    def end_row(self) -> None:
        """ComfyUI works, or is a new one."""
        self._graphs.clear()
