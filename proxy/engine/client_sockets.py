"""Keeps a client's event socket to ComfyUI open while one of its prompts is there."""

import asyncio

from proxy.engine.records import Record
from proxy.engine.submission import Submission
from proxy.upstream.dial import Knock
from proxy.upstream.feed import Feed

PATIENCE = 2.0
"""Seconds a submission waits for its client's event socket; then it goes on, and its first events may be missed."""

_CREDENTIALS = frozenset({"host", "origin", "cookie", "authorization", "sec-fetch-site"})
"""Headers of a submission with which a socket is opened on the client's behalf."""


class ClientSockets:
    """Holds and releases sockets for records."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    async def hold(self, record: Record, submission: Submission) -> None:
        """Have the client's socket open before its prompt can start."""
        if record.held or record.client_id is None or record.client_id == self._feed.own_id:
            return
        headers = tuple((name, value) for name, value in submission.headers if name.lower() in _CREDENTIALS)
        record.held = True
        _, mark, query = submission.target.partition("?")
        ready = self._feed.hold(record.client_id, Knock(f"/ws{mark}{query}", headers))
        if not ready.done():
            await asyncio.wait([ready], timeout=PATIENCE)

    def release(self, record: Record) -> None:
        """The prompt has ended, or was taken back. May be called again."""
        if record.held and record.client_id is not None:
            record.held = False
            self._feed.release(record.client_id)
