"""What waits in a journal that is not opened: in another mode than `full` it would be forgotten in silence."""

import sqlite3
from contextlib import closing
from pathlib import Path


def unfinished(path: Path) -> int:
    """How many prompts in the journal at `path` have not ended; 0 where there is none or it cannot be read.

    It is opened for reading only and without its lock: a fault in it is told by those who want to write.
    """
    if not path.exists():
        return 0
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            (count,) = connection.execute("SELECT count(*) FROM prompts WHERE finished IS NULL").fetchone()
            return int(count)
    except (OSError, sqlite3.Error):
        return 0


def told(count: int) -> str:
    """It, for people."""
    return f"{count} prompts wait in the journal; `comfykeep mode full` runs them"
