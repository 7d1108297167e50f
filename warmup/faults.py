"""What is wrong with a warm-up schedule, in words that say where to look and what to do."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong: the file, the entry (None: the file as a whole), the key, what is wrong and the remedy."""

    file: str
    entry: str | None
    key: str | None
    problem: str
    remedy: str

    @property
    def where(self) -> str:
        """The file, the entry and the key, as far as they are known."""
        entry = None if self.entry is None else f"entry {self.entry!r}"
        return ": ".join(part for part in (self.file, entry, self.key) if part is not None)

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}; {self.remedy}"


@dataclass(frozen=True, slots=True)
class Complaint:
    """One thing wrong with an entry, said by who does not know which entry of which file it is."""

    key: str | None
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.key + ': ' if self.key else ''}{self.problem}; {self.remedy}"

    def at(self, file: str, entry: str) -> Fault:
        """The same as a `Fault` of that entry."""
        return Fault(file, entry, self.key, self.problem, self.remedy)


class BadEntry(Exception):  # noqa: N818 - the entry is bad, not the program
    """An entry cannot be used, with everything that is wrong with it."""

    def __init__(self, *complaints: Complaint) -> None:
        super().__init__("\n".join(map(str, complaints)))
        self.complaints = complaints


def nearest(word: str, known: Iterable[str], otherwise: str) -> str:
    """A remedy: the known word that was probably meant, or `otherwise`."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else otherwise
