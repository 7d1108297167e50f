"""Prompts that go on as the bytes they came as: in `observe`, with `X-Comfykeep: bypass`, and what nobody understands.

They are looked at all the same, so that the account of what pins would have saved is complete.
"""

from collections.abc import Callable
from dataclasses import dataclass

from normalizer import MalformedPrompt, Normalized, Schema, normalize
from proxy.engine.bookkeeping import Bookkeeping
from proxy.engine.comfy import Upstream
from proxy.engine.records import Archive, Handling, Record, Records, components_of
from proxy.engine.submission import Draft, Submission, draft, parse, refuse_fatal, refuse_unreadable
from proxy.engine.unpacking import unpacked
from proxy.errors import DownstreamError
from proxy.upstream.client import Answer

SERVER_ERROR = 500


@dataclass(frozen=True, slots=True)
class Look:
    """A prompt that was understood: as it came, and as it is or would have been rewritten."""

    original: Draft
    normalized: Normalized
    schema: Schema


class Passing:
    """Passes submissions on and keeps records of them."""

    def __init__(self, upstream: Upstream, records: Records, books: Bookkeeping, clock: Callable[[], float]) -> None:
        self._upstream = upstream
        self._records = records
        self._books = books
        self._clock = clock

    async def look_at(self, original: Draft, *, judged: bool = False) -> Look | None:
        """Normalize a prompt; None when it cannot be walked. `judged` spares one that was found harmless before.

        Raises:
            DownstreamError: when it is known to kill ComfyUI.
        """
        schema = await self._upstream.schema.cover(original.class_types)
        if not judged:
            refuse_fatal(original.payload, schema)
        try:
            return Look(original, normalize(original.prompt, schema), schema)
        except MalformedPrompt:
            return None

    async def look_at_raw(self, submission: Submission) -> Look | None:
        """As `look_at`, for a body that goes on whatever is in it; None when it is not understood."""
        try:
            plain = unpacked(submission, self._upstream.body_limit)
            original = None if plain is None else draft(parse(plain))
            return None if original is None else await self.look_at(original)
        except DownstreamError:
            return None

    async def post(self, submission: Submission) -> Answer:
        """Send a submission on, untouched.

        Raises:
            UpstreamError: when ComfyUI does not answer.
        """
        headers = submission.headers_without("content-length", "expect")
        return await self._upstream.client.post(submission.target, submission.body, headers)

    async def post_misfit(self, submission: Submission, payload: object) -> Answer:
        """Send on what is not understood; where ComfyUI could not even read it, say so.

        Raises:
            DownstreamError: instead of ComfyUI's 500 page, or when it is known to kill ComfyUI.
            UpstreamError: when ComfyUI does not answer.
        """
        refuse_fatal(payload)
        answer = await self.post(submission)
        if answer.status == SERVER_ERROR:
            refuse_unreadable(payload)
        return answer

    def note(self, answer: Answer, look: Look, handling: Handling) -> None:
        """Keep a record of a prompt that was accepted; its first events may have been seen before."""
        try:
            told = answer.json()
            prompt_id = told["prompt_id"]
        except (ValueError, KeyError, TypeError):
            return
        record = self._records.get(prompt_id) or Record(prompt_id, handling)
        record.handling = handling
        record.number = told.get("number")
        record.client_id = look.original.client_id
        record.components = components_of(look.normalized, look.schema)
        record.stable_ids = {old: new for new, old in look.normalized.way_back.ids.items()}
        record.chains = look.normalized.chains
        record.archive = Archive.of(look.original.prompt, look.original.prompt, ())
        if record.timeline.outcome is None:
            self._records.add(record)
        else:
            self._books.close(record, record.timeline.outcome, self._clock())
