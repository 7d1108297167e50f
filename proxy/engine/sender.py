"""Sends one prompt to ComfyUI and brings back the answer in the client's terms.

Two things must never happen. What we add must not cost a client its prompt: an answer that blames a pin, or refuses a
prompt with a shared loader, is not passed on; the prompt goes again without pins, or with its own loaders. And a
prompt must not run twice because an answer got lost: whether ComfyUI has it is settled by looking into its queue and
its history, never by sending again.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from normalizer import Chain, Normalized, Schema, SharedLoaders, WayBack, cache_keys, carry, exchange
from proxy.engine.comfy import Upstream
from proxy.engine.records import Archive, Record
from proxy.engine.recovery import read_history_entry, read_queue
from proxy.engine.submission import Draft, Place, Submission, compose
from proxy.errors import UpstreamError, UpstreamUnreachable
from proxy.upstream.client import Answer
from proxy.wire.headers import HeaderList

log = logging.getLogger(__name__)

_OK = 200
_SERVER_ERROR = 500
_DROPPED_HEADERS = (
    "content-length",  # the body is another one
    "accept-encoding",  # the answer is to be read here
    "expect",  # the body is sent at once
    "content-type",  # the body is written in UTF-8 whatever the client's was
)


@dataclass(frozen=True, slots=True)
class Parcel:
    """One prompt on its way: as it came, as it was understood, as it was rewritten, and where it is written down."""

    submission: Submission
    original: Draft
    normalized: Normalized
    schema: Schema
    record: Record


class Sender:
    """Sends rewritten prompts to one ComfyUI."""

    def __init__(
        self,
        upstream: Upstream,
        own_client_id: str,
        about_to_send: Callable[[Parcel, Place | None, Mapping[str, Any]], None],
    ) -> None:
        """`about_to_send` is told the prompt as ComfyUI will get it; its first events may come before the answer."""
        self._upstream = upstream
        self._own_client_id = own_client_id
        self._about_to_send = about_to_send

    async def send(self, parcel: Parcel, pins: Sequence[Chain], place: Place | None = None) -> Answer:
        """Submit a prompt, with pins and shared loaders unless ComfyUI objects; notes in its record what was sent.

        Raises:
            UpstreamError: when ComfyUI did not answer and does not have the prompt either.
        """
        answer, way_back = await self._post(parcel, pins, self._upstream.shared_loaders, place)
        if not answer.ok and answer.status < _SERVER_ERROR and parcel.record.keys:
            log.info("ComfyUI refused a prompt with shared loaders; it goes again with its own: %r", answer.body[:500])
            answer, way_back = await self._post(parcel, pins, SharedLoaders(), place)
        if named := _named(answer, way_back):
            log.warning("ComfyUI objected to a pin; the prompt goes again without that: %r", answer.body[:500])
            answer, way_back = await self._post(parcel, self._without(named, parcel.record), SharedLoaders(), place)
        if await self._suspects_us(answer, way_back, parcel.record):
            log.warning("ComfyUI objected to a pin; the prompt goes again without any: %r", answer.body[:500])
            answer, way_back = await self._post(parcel, (), SharedLoaders(), place)
        return restored_answer(answer, way_back)

    async def probe(self, parcel: Parcel, place: Place) -> Answer:
        """Submit a prompt that is to be taken out again before it runs: with its own loaders, no pins, no consequences.

        Raises:
            UpstreamError: when ComfyUI did not answer.
        """
        body, way_back = compose(parcel.original, parcel.normalized, parcel.schema, self._own_client_id, place)
        parcel.record.way_back = way_back
        answer = await self._upstream.client.post(parcel.submission.target, body, _headers(parcel))
        return restored_answer(answer, way_back)

    async def _post(
        self, parcel: Parcel, pins: Sequence[Chain], loaders: SharedLoaders, place: Place | None
    ) -> tuple[Answer, WayBack]:
        original, record = parcel.original, parcel.record
        carried = exchange(carry(parcel.normalized, pins, parcel.schema), loaders)
        body, way_back = compose(original, carried, parcel.schema, self._own_client_id, place)
        pinned = frozenset(way_back.pins)
        record.way_back = way_back
        record.keys = cache_keys(carried.prompt)
        record.pins = tuple(chain for chain in pins if not pinned.isdisjoint(chain.nodes))
        record.archive = Archive.of(original.prompt, carried.prompt, carried.changes)
        self._about_to_send(parcel, place, carried.prompt)
        try:
            return await self._upstream.client.post(parcel.submission.target, body, _headers(parcel)), way_back
        except UpstreamError as error:
            if isinstance(error, UpstreamUnreachable) and not error.sent:
                raise
            return await self._settle(record.prompt_id, error), way_back

    async def _settle(self, prompt_id: str, error: UpstreamError) -> Answer:
        number = await find_number(self._upstream, prompt_id)
        if number is None:
            raise error
        log.warning("%s; but it has prompt %s, so the client is told that it was taken", error, prompt_id)
        return taken(prompt_id, number)

    async def _suspects_us(self, answer: Answer, way_back: WayBack, record: Record) -> bool:
        if not way_back.pins and not record.keys:
            return False
        if answer.status >= _SERVER_ERROR:
            # It may have been queued all the same.
            return await find_number(self._upstream, record.prompt_id) is None
        return bool(_named(answer, way_back))

    def _without(self, named: frozenset[str], record: Record) -> Sequence[Chain]:
        """The chains of a refused prompt that hold nothing of the classes of these pins; such classes are forgotten.

        Of a pin ComfyUI's validation looks at nothing but its class, and it names only the first that it misses.
        """
        nodes = {node_id: node for chain in record.pins for node_id, node in chain.nodes.items()}
        gone = {nodes[node_id]["class_type"] for node_id in named}
        self._upstream.schema.lose(gone)
        return [chain for chain in record.pins if gone.isdisjoint(node["class_type"] for node in chain.nodes.values())]


def _named(answer: Answer, way_back: WayBack) -> frozenset[str]:
    """The pins that a refusal names."""
    return frozenset() if answer.ok else way_back.pins_named(_json(answer.body))


def _headers(parcel: Parcel) -> HeaderList:
    return [*parcel.submission.headers_without(*_DROPPED_HEADERS), ("Content-Type", "application/json")]


async def find_number(upstream: Upstream, prompt_id: str) -> float | None:
    """The number under which ComfyUI has a prompt in its queue or history; None if it has none.

    Raises:
        UpstreamError: when it cannot be asked.
    """
    queue = await read_queue(upstream.client)
    for item in (*queue.running, *queue.pending):
        if item[1] == prompt_id:
            return float(item[0])
    entry = await read_history_entry(upstream.client, prompt_id)
    return None if entry is None else entry.number


def restored_answer(answer: Answer, way_back: WayBack) -> Answer:
    """The answer to a submission in the client's terms; the same bytes where nothing changes."""
    parsed = _json(answer.body)
    restored = way_back.submission_answer(parsed)
    return answer if restored == parsed else with_body(answer, json.dumps(restored).encode())


def taken(prompt_id: str, number: float) -> Answer:
    """ComfyUI's answer to a submission that it took, where its own was lost."""
    return json_answer(json.dumps({"prompt_id": prompt_id, "number": number, "node_errors": {}}).encode())


def json_answer(body: bytes) -> Answer:
    """A 200 with a JSON body, as ComfyUI gives it."""
    headers = [("Content-Type", "application/json; charset=utf-8"), ("Content-Length", str(len(body)))]
    return Answer(_OK, "OK", headers, body, ours=True)


def with_body(answer: Answer, body: bytes) -> Answer:
    """The answer with another body and the length of that."""
    headers = [(name, str(len(body)) if name.lower() == "content-length" else value) for name, value in answer.headers]
    return replace(answer, headers=headers, body=body)


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None
