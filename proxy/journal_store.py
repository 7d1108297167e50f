"""The journal's statements: records to rows and back, on one connection, for one thread; nothing here waits or locks.

Two things that clients send do not fit SQLite's types as they are: text with lone surrogates (JSON may hold them,
UTF-8 may not), which is stored as bytes, and numbers of any size or not finite, which are stored as JSON.
"""

import json
import sqlite3
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, Final

from proxy.journal_errors import AlreadyAccepted, UnknownPrompt
from proxy.journal_records import UNSET, Finished, HistoryEntry, Record, Recovered, Update

PACK_FROM: Final = 1024
"""Bodies and history entries of so many bytes are compressed; below, the gain is not worth the call."""

SHRINK_PAGES: Final = 512
"""How many pages (of 4 KiB) are given back at a time: few enough not to hold up a submission."""

_COLUMNS: Final = (
    "sequence", "prompt_id", "idempotency_key", "client_id", "number", "front", "priority", "order_key", "state",
    "attempts", "upstream", "submitted", "dispatched", "started", "finished", "outcome",
)  # fmt: skip
_INSERT: Final = f"INSERT INTO prompts ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608 - names from above
_SELECT: Final = f"""
    SELECT {", ".join(f"prompts.{column}" for column in _COLUMNS)},
        headers, answer, bodies.packed, body, histories.packed, entry
    FROM prompts JOIN bodies USING (sequence) LEFT JOIN histories USING (sequence)
"""  # noqa: S608 - names from above
_TEXTS: Final = frozenset({"prompt_id", "idempotency_key", "client_id", "order_key", "state", "upstream", "outcome"})
_CHANGEABLE: Final = tuple(field.name for field in fields(Update) if field.name not in {"prompt_id", "history"})


class Store:
    """The journal's tables behind typed calls.

    Any call may raise `sqlite3.Error`; what it did so far is then undone by the transaction around it.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    @contextmanager
    def transaction(self, *, writing: bool = True) -> Iterator[None]:
        """One commit for all that is done inside, or nothing of it; for reading, one state of everything."""
        self.connection.execute("BEGIN IMMEDIATE" if writing else "BEGIN")
        try:
            yield
            self.connection.execute("COMMIT")
        except BaseException:
            self._undo("ROLLBACK")
            raise

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Inside a transaction: undo one call that fails, and only that."""
        self.connection.execute("SAVEPOINT call")
        try:
            yield
        except BaseException:
            self._undo("ROLLBACK TO call", "RELEASE call")
            raise
        self.connection.execute("RELEASE call")

    def _undo(self, *statements: str) -> None:
        """SQLite undoes a transaction by itself on some errors, a full disk among them; then nothing is left to do."""
        for statement in statements:
            if self.connection.in_transaction:
                self.connection.execute(statement)

    def insert(self, record: Record) -> None:
        """Add a record.

        Raises:
            AlreadyAccepted: when its id, sequence or idempotency key is taken.
        """
        try:
            self.connection.execute(_INSERT, [_to_column(column, getattr(record, column)) for column in _COLUMNS])
        except sqlite3.IntegrityError as error:
            raise AlreadyAccepted(f"prompt {record.prompt_id!r} is in the journal already: {error}") from error
        self.connection.execute(
            "INSERT INTO bodies VALUES (?, ?, ?, ?, ?)",
            (record.sequence, json.dumps(record.headers), record.answer, *_pack(record.body)),
        )
        if record.history is not None:
            self._put_history(record.sequence, record.history)

    def update(self, change: Update) -> None:
        """Change what `change` sets.

        Raises:
            UnknownPrompt: when the prompt is not in the journal.
        """
        values = {name: value for name in _CHANGEABLE if (value := getattr(change, name)) is not UNSET}
        row = self.connection.execute(
            "SELECT sequence FROM prompts WHERE prompt_id = ?", (_to_text(change.prompt_id),)
        ).fetchone()
        if row is None:
            raise UnknownPrompt(f"prompt {change.prompt_id!r} is not in the journal")
        if values:
            assignments = ", ".join(f"{name} = ?" for name in values)
            self.connection.execute(
                f"UPDATE prompts SET {assignments} WHERE sequence = ?",  # noqa: S608 - names of Update's fields
                [*(_to_column(name, value) for name, value in values.items()), row[0]],
            )
        if isinstance(change.history, bytes):
            self._put_history(row[0], change.history)
        elif change.history is None:
            self.connection.execute("DELETE FROM histories WHERE sequence = ?", row)

    def _put_history(self, sequence: int, entry: bytes) -> None:
        """Add an entry, or replace it in its place: a run that is repeated keeps its rank, as in ComfyUI's history."""
        self.connection.execute(
            "INSERT INTO histories (sequence, packed, entry) VALUES (?, ?, ?) "
            "ON CONFLICT (sequence) DO UPDATE SET packed = excluded.packed, entry = excluded.entry",
            (sequence, *_pack(entry)),
        )

    def remember(self, facts: Mapping[str, str | None]) -> None:
        """Set facts to their JSON; `None` forgets one."""
        gone = [(_to_text(key),) for key, value in facts.items() if value is None]
        kept = [(_to_text(key), value) for key, value in facts.items() if value is not None]
        self.connection.executemany("DELETE FROM facts WHERE key = ?", gone)
        self.connection.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", kept)

    def recall(self) -> dict[str, Any]:
        """Every fact."""
        rows = self.connection.execute("SELECT key, value FROM facts ORDER BY key")
        return {_from_text(key): json.loads(value) for key, value in rows}

    def load(self) -> Recovered:
        """Everything a restart needs."""
        unfinished = self.connection.execute(f"{_SELECT} WHERE finished IS NULL ORDER BY sequence")
        finished = self.connection.execute(
            "SELECT prompt_id, sequence, idempotency_key, finished, outcome FROM prompts "
            "WHERE finished IS NOT NULL ORDER BY finished, sequence"
        )
        (last,) = self.connection.execute(
            "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'prompts'"
        ).fetchone()
        return Recovered(
            unfinished=tuple(_to_record(row) for row in unfinished),
            finished=tuple(
                Finished(_from_text(prompt_id), sequence, _from_column("idempotency_key", key), at, outcome)
                for prompt_id, sequence, key, at, outcome in finished
            ),
            facts=self.recall(),
            next_sequence=last + 1,
        )

    def find(self, prompt_id: str) -> Record | None:
        """The record of a prompt."""
        return self._find("prompt_id", prompt_id)

    def find_key(self, idempotency_key: str) -> Record | None:
        """The record that was accepted under an idempotency key."""
        return self._find("idempotency_key", idempotency_key)

    def _find(self, column: str, value: str) -> Record | None:
        row = self.connection.execute(f"{_SELECT} WHERE {column} = ?", (_to_text(value),)).fetchone()
        return None if row is None else _to_record(row)

    def history_entry(self, prompt_id: str) -> HistoryEntry | None:
        """The history entry of one prompt."""
        row = self.connection.execute(
            "SELECT prompt_id, packed, entry FROM histories JOIN prompts USING (sequence) WHERE prompt_id = ?",
            (_to_text(prompt_id),),
        ).fetchone()
        return None if row is None else _to_entry(row)

    def history(self, max_items: int | None, offset: int) -> tuple[HistoryEntry, ...]:
        """A page of the history, oldest first, with ComfyUI's reading of `max_items` and a negative `offset`."""
        if offset < 0 and max_items is not None:
            (total,) = self.connection.execute("SELECT count(*) FROM histories").fetchone()
            offset = total - max_items
        rows = self.connection.execute(
            "SELECT prompt_id, packed, entry FROM histories JOIN prompts USING (sequence) "
            "ORDER BY rank LIMIT ? OFFSET ?",
            (-1 if max_items is None else max(max_items, 0), max(offset, 0)),
        )
        return tuple(_to_entry(row) for row in rows)

    def delete(self, prompt_ids: Sequence[str]) -> int:
        """Forget finished prompts altogether; what has to be run stays. How many were forgotten."""
        cursor = self.connection.executemany(
            "DELETE FROM prompts WHERE prompt_id = ? AND finished IS NOT NULL",
            [(_to_text(prompt_id),) for prompt_id in prompt_ids],
        )
        return max(cursor.rowcount, 0)

    def withdraw(self, prompt_ids: Sequence[str]) -> None:
        """Forget prompts altogether, whatever became of them."""
        chosen = [(_to_text(prompt_id),) for prompt_id in prompt_ids]
        self.connection.executemany("DELETE FROM prompts WHERE prompt_id = ?", chosen)

    def clear(self) -> int:
        """Forget all finished prompts. How many."""
        return self.connection.execute("DELETE FROM prompts WHERE finished IS NOT NULL").rowcount

    def retain(self, count: int, finished_since: float) -> int:
        """Forget finished prompts older than `finished_since` (Unix seconds) or beyond the newest `count`. How many."""
        deleted = self.connection.execute(
            "DELETE FROM prompts WHERE finished < ? OR sequence IN (SELECT sequence FROM prompts "
            "WHERE finished IS NOT NULL ORDER BY finished DESC, sequence DESC LIMIT -1 OFFSET ?)",
            (finished_since, count),
        ).rowcount
        self._shrink()
        return deleted

    def _shrink(self) -> None:
        """Give a part of the file's free pages back to the disk, where most of what it once held is gone."""
        free, pages = self.connection.execute("SELECT * FROM pragma_freelist_count, pragma_page_count").fetchone()
        if free > max(SHRINK_PAGES, pages // 2):
            for _ in range(SHRINK_PAGES):
                self.connection.execute("PRAGMA incremental_vacuum(1)")  # of more, Python would take the first only


def _to_text(text: str) -> str | bytes:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
    return text


def _from_text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "surrogatepass")


def _to_column(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name in _TEXTS:
        return _to_text(value)
    return json.dumps(value) if name == "number" else value


def _from_column(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name in _TEXTS:
        return _from_text(value)
    if name == "front":
        return bool(value)
    return json.loads(value) if name == "number" else value


def _to_record(row: Sequence[Any]) -> Record:
    headers, answer, packed, body, history_packed, history = row[len(_COLUMNS) :]
    return Record(
        **{name: _from_column(name, value) for name, value in zip(_COLUMNS, row, strict=False)},
        headers=tuple((name, value) for name, value in json.loads(headers)),
        answer=answer,
        body=_unpack(packed, body),
        history=None if history is None else _unpack(history_packed, history),
    )


def _to_entry(row: Sequence[Any]) -> HistoryEntry:
    prompt_id, packed, entry = row
    return HistoryEntry(_from_text(prompt_id), _unpack(packed, entry))


def _pack(data: bytes) -> tuple[bool, bytes]:
    """The fastest level: the thread that packs is the one that everybody's answer waits for."""
    if len(data) >= PACK_FROM and len(packed := zlib.compress(data, 1)) < len(data):
        return True, packed
    return False, data


def _unpack(packed: bool, data: bytes) -> bytes:
    return zlib.decompress(data) if packed else data
