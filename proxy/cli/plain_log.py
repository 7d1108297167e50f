"""What is no fault of ours is told in a line: a client that speaks no HTTP must not fill the log with tracebacks."""

import logging

from aiohttp.http import HttpProcessingError


def told_in_a_line(record: logging.LogRecord) -> bool:
    """A filter for aiohttp's server log: keeps every record, and shortens those of requests that could not be read."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, HttpProcessingError):
        reason = " ".join(error.message.split())
        record.msg, record.args = "not HTTP, answered with %d: %s (%s)", (error.code, reason, record.getMessage())
        record.exc_info = None
        record.levelno, record.levelname = logging.WARNING, "WARNING"
    return True
