"""What people asked for by hand and have not been answered: entries by name, and model files in the order of asking."""

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from warmup.entries import Depth
from warmup.report import Row
from warmup.state import Outcome


@dataclass(frozen=True, eq=False)
class FileRequest:
    """A model file that somebody wants warm."""

    file: str
    depth: Depth
    answer: asyncio.Future[Outcome]


class Requests:
    """All of them. Whoever asks awaits a future; one that nobody awaits any more is left alone."""

    def __init__(self) -> None:
        self._entries: dict[str, list[asyncio.Future[Outcome]]] = {}
        self._depths: dict[str, Depth] = {}
        self._files: deque[FileRequest] = deque()
        self._current: FileRequest | None = None

    def entry(self, name: str, depth: Depth | None) -> asyncio.Future[Outcome]:
        """Ask for an entry; of several depths asked for at once the last counts."""
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._entries.setdefault(name, []).append(answer)
        if depth is not None:
            self._depths[name] = depth
        return answer

    def depth(self, name: str) -> Depth | None:
        """How far somebody wants this entry brought, if not as far as its `to`."""
        return self._depths.get(name)

    def entries(self) -> set[str]:
        """The names of the entries asked for."""
        return set(self._entries)

    def answer(self, name: str, outcome: Outcome) -> None:
        """Tell all who asked for an entry."""
        self._depths.pop(name, None)
        for answer in self._entries.pop(name, ()):
            if not answer.done():
                answer.set_result(outcome)

    def file(self, file: str, depth: Depth) -> asyncio.Future[Outcome]:
        """Ask for a model file."""
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._files.append(FileRequest(file, depth, answer))
        return answer

    def next_file(self) -> FileRequest | None:
        """Begin with the file that was asked for first; the one before it has ended."""
        self._current = self._files.popleft() if self._files else None
        return self._current

    def answer_file(self, outcome: Outcome) -> None:
        """Tell whoever asked for the file that was begun."""
        if self._current and not self._current.answer.done():
            self._current.answer.set_result(outcome)
        self._current = None

    def close(self) -> None:
        """Nobody will be answered any more."""
        for answer in self._unanswered():
            answer.cancel()

    def _unanswered(self) -> Iterator[asyncio.Future[Outcome]]:
        for answers in self._entries.values():
            yield from answers
        yield from (request.answer for request in self._all_files())

    def _all_files(self) -> Iterable[FileRequest]:
        return [self._current, *self._files] if self._current else list(self._files)

    def rows(self, progress: Mapping[str, float]) -> tuple[Row, ...]:
        """A row for each file, as for an entry."""
        return tuple(
            Row(
                name=request.file,
                what=request.file,
                to=request.depth,
                when="by hand",
                next_at=None,
                status="running" if request is self._current else "waiting",
                reason="asked for by hand",
                progress=progress.get(request.file, 0.0) if request is self._current else None,
                last=None,
            )
            for request in self._all_files()
        )
