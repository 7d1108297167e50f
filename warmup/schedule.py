"""The schedule file `warmup.toml`: what it says, what is wrong with it, and what is due when.

One bad entry must not cost the others, and whoever wrote it wants to hear of all faults at once; so `load` never
raises: it gives the entries that stand and the faults of those that do not. `due` and `next_due` are pure.
"""

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from warmup.entries import Entry, Trigger, contradictions
from warmup.faults import BadEntry, Complaint, Fault, nearest
from warmup.state import State
from warmup.workflow_file import path_complaints, read_workflow

DOCS = "docs/warmup.md"


@dataclass(frozen=True)
class Planned:
    """An entry that stands, with its workflow as read from its file (None for a loader or a group)."""

    entry: Entry
    workflow: Mapping[str, Any] | None
    definition: str
    """Changes when anything about the entry does."""

    @property
    def name(self) -> str:
        """The entry's name."""
        return self.entry.name


@dataclass(frozen=True)
class Due:
    """An entry that is to run now, and what calls for it."""

    planned: Planned
    triggers: tuple[Trigger, ...]


@dataclass(frozen=True)
class Schedule:
    """The entries that stand, the faults of the others, and every file that was read."""

    path: Path
    entries: tuple[Planned, ...] = ()
    faults: tuple[Fault, ...] = ()
    files: tuple[Path, ...] = ()

    def get(self, name: str) -> Planned | None:
        """The entry of this name, if it stands."""
        return next((planned for planned in self.entries if planned.name == name), None)

    @property
    def definitions(self) -> dict[str, str]:
        """Each entry's name and definition: what `State.known` takes."""
        return {planned.name: planned.definition for planned in self.entries}

    def listening(self, trigger: Trigger) -> tuple[str, ...]:
        """The names of the entries that this trigger runs."""
        return tuple(planned.name for planned in self.entries if trigger in planned.entry.triggers)

    def due(self, state: State, now: float) -> tuple[Due, ...]:
        """What is to run at `now` (seconds since the epoch), the highest priority first, else in the file's order.

        `state` must know all entries (`State.known`). However many cron times have passed unseen, an entry is due once.
        What runs already is not due, nor what backs off after a failure unless a person asks for it.
        """
        found = []
        for planned in self.entries:
            entry = state.entries[planned.name]
            if entry.running_since is not None:
                continue
            triggers = set(entry.pending)
            if (cron_at := self._cron_time(planned, state, now)) is not None and cron_at <= now:
                triggers.add(Trigger.CRON)
            if triggers and (entry.backing_off(now) is None or Trigger.MANUAL in triggers):
                found.append(Due(planned, tuple(sorted(triggers))))
        return tuple(sorted(found, key=lambda due: (Trigger.MANUAL not in due.triggers, -due.planned.entry.priority)))

    def next_due(self, state: State, now: float) -> float | None:
        """The earliest instant, never before `now`, at which something is due if nothing else happens."""
        times = [self.next_for(planned, state, now) for planned in self.entries]
        return min((time for time in times if time is not None), default=None)

    def next_for(self, planned: Planned, state: State, now: float) -> float | None:
        """The same for one entry; None while it runs, or when only an event can make it due."""
        entry = state.entries[planned.name]
        if entry.running_since is not None:
            return None
        time = now if entry.pending else self._cron_time(planned, state, now)
        if time is None or Trigger.MANUAL in entry.pending:
            return time
        return max(time, now, entry.backing_off(now) or now)

    @staticmethod
    def _cron_time(planned: Planned, state: State, now: float) -> float | None:
        cron = planned.entry.when
        return None if cron is None else cron.next_after(state.entries[planned.name].since(now))


def load(path: Path) -> Schedule:
    """Read a schedule file. What cannot be used is out and stands among the faults; nothing is raised."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return _unusable(path, "there is no such file", f"create it ({DOCS} has an example) or remove its path")
    except (OSError, UnicodeDecodeError) as error:
        return _unusable(path, f"cannot be read: {error}", "check its permissions and that it is UTF-8 text")
    try:
        raw = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        return _unusable(path, f"not valid TOML: {error}", "correct that line")
    reader = _Reader(path)
    reader.read(raw)
    return Schedule(path, tuple(reader.entries), tuple(reader.faults), (path, *dict.fromkeys(reader.files)))


def _unusable(path: Path, problem: str, remedy: str) -> Schedule:
    return Schedule(path, (), (Fault(str(path), None, None, problem, remedy),), (path,))


class _Reader:
    """Reads one file entry by entry and collects what stands and what does not."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[Planned] = []
        self.faults: list[Fault] = []
        self.files: list[Path] = []

    def read(self, raw: Mapping[str, Any]) -> None:
        for key in raw.keys() - {"entry"}:
            self._add(None, key, "unknown key", nearest(key, ["entry"], f"each entry is an [[entry]]; see {DOCS}"))
        entries = raw.get("entry", [])
        if not isinstance(entries, list):
            self._add(None, "entry", "must be a list of tables", "write [[entry]] with two brackets")
            return
        names: dict[str, int] = {}
        for number, table in enumerate(entries, start=1):
            label = _label(table, number)
            if not isinstance(table, dict):
                self._add(label, None, "is no table", "write [[entry]] and its keys below it")
            elif label in names:
                self._add(label, "name", f"is the name of entry {names[label]} already", f"rename entry {number}")
            else:
                names[label] = number
                self._read_entry(label, table)

    def _read_entry(self, label: str, table: Mapping[str, Any]) -> None:
        try:
            entry = Entry.model_validate(table)
        except ValidationError as error:
            self._add_all(label, _explained(error, table))
            return
        workflow = None
        if entry.prompt is not None:
            file = self.path.parent / entry.prompt
            self.files.append(file)
            try:
                workflow = read_workflow(file)
            except BadEntry as bad:
                self._add_all(label, bad.complaints)
                return
            if complaints := path_complaints(workflow, entry.set):
                self._add_all(label, complaints)
                return
        self.entries.append(Planned(entry, workflow, _digest(entry, workflow)))

    def _add(self, entry: str | None, key: str | None, problem: str, remedy: str) -> None:
        self.faults.append(Fault(str(self.path), entry, key, problem, remedy))

    def _add_all(self, entry: str, complaints: Sequence[Complaint]) -> None:
        self.faults.extend(complaint.at(str(self.path), entry) for complaint in complaints)


def _label(table: Any, number: int) -> str:
    name = table.get("name") if isinstance(table, dict) else None
    return name if isinstance(name, str) and name else f"#{number}"


def _digest(entry: Entry, workflow: Mapping[str, Any] | None) -> str:
    text = entry.model_dump_json() + json.dumps(workflow, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _explained(error: ValidationError, table: Mapping[str, Any]) -> list[Complaint]:
    """All faults of an entry, in the words of people who write TOML rather than Python."""
    faults = []
    for fault in error.errors():
        key = ".".join(str(part) for part in fault["loc"])
        message = fault["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
        match fault["type"]:
            case "extra_forbidden":
                faults.append(Complaint(key, "unknown key", nearest(key, Entry.model_fields, f"see {DOCS}")))
            case "missing":
                faults.append(Complaint(key, "is missing", "give each entry a name of its own"))
            case "tuple_type":
                faults.append(Complaint(key, f"{fault['input']!r} is no list", "write [ ] around it"))
            case _ if key:
                faults.append(Complaint(key, f"{fault['input']!r}: {message}", f"see {DOCS}"))
    faults.extend(Complaint(_subject(table), problem, f"see {DOCS}") for problem in contradictions(table))
    return faults


def _subject(table: Mapping[str, Any]) -> str:
    return next((key for key in ("prompt", "loader", "group") if key in table), "prompt")
