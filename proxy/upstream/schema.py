"""ComfyUI's node classes, read once per start and added to when a prompt names one that is not known yet.

The full `/object_info` takes ComfyUI seconds with many custom nodes and starts a scan of its assets, so no prompt waits
for it: until it is there, and for classes installed later, the few classes of the prompt at hand are asked for one by
one (`/object_info/{class}` answers at once, and `{}` for a class that does not exist).
"""

import asyncio
import logging
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from normalizer import Schema
from proxy.errors import UpstreamError
from proxy.upstream.client import UpstreamClient

log = logging.getLogger(__name__)

PATIENCE = 1.0
"""Seconds a prompt waits at most for the schema of its own classes; then it goes on without being rewritten."""

RETRY = 5.0
"""Seconds between attempts to read the whole schema."""


class SchemaKeeper:
    """Holds the schema of one ComfyUI process."""

    def __init__(self, client: UpstreamClient, *, include: Iterable[str], exclude: Iterable[str]) -> None:
        """`include` and `exclude` overrule what the schema says about being a loader."""
        self._client = client
        self._include = tuple(include)
        self._exclude = tuple(exclude)
        self.schema = self._read({})
        self.complete = False

    async def load(self) -> None:
        """Read the whole schema; tries until it is there."""
        while not self.complete:
            try:
                info = await self._client.get_json("/object_info")
            except UpstreamError as error:
                log.debug("the schema is not to be had yet: %s", error)
            else:
                if isinstance(info, dict):
                    self.schema = self._read(info)
                    self.complete = True
                    return
            await asyncio.sleep(RETRY)

    def overrule(self, include: Iterable[str], exclude: Iterable[str]) -> None:
        """The operator has other corrections now; they hold when the schema has been read again."""
        self._include = tuple(include)
        self._exclude = tuple(exclude)
        self.complete = False

    def forget(self) -> None:
        """A new ComfyUI process may have other nodes: read again."""
        self.complete = False

    def lose(self, class_types: Iterable[str]) -> None:
        """ComfyUI has not got these classes any more; a prompt that names one asks again."""
        self.schema = self.schema.without(class_types)

    async def cover(self, class_types: Iterable[str]) -> Schema:
        """The schema, with the given classes in it as far as ComfyUI knows them and answers in time."""
        missing = {name for name in class_types if self.schema.get(name) is None}
        if missing:
            try:
                async with asyncio.timeout(PATIENCE):
                    answers = await asyncio.gather(*(self._ask(name) for name in missing))
            except (UpstreamError, TimeoutError) as error:
                log.warning("no schema for %s: %s", ", ".join(sorted(missing)), error or "no answer in time")
            else:
                found: dict[str, Any] = {}
                for answer in answers:
                    found |= answer
                if found:
                    self.schema = self.schema.extended(found)
        return self.schema

    async def _ask(self, class_type: str) -> dict[str, Any]:
        answer = await self._client.get_json(f"/object_info/{quote(class_type, safe='')}")
        return answer if isinstance(answer, dict) else {}

    def _read(self, info: Any) -> Schema:
        return Schema.from_object_info(info, include=self._include, exclude=self._exclude)
