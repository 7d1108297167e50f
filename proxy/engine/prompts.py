"""The prompts of the held queue by their ids and idempotency keys, from their submission until they have ended."""

from collections.abc import Iterator

from proxy.engine.held import Held


class Prompts:
    """All prompts that wait here, or are at ComfyUI by way of the held queue."""

    def __init__(self) -> None:
        self._by_id: dict[str, Held] = {}
        self._by_key: dict[str, Held] = {}
        self._sequence = 1

    def __iter__(self) -> Iterator[Held]:
        return iter(self._by_id.values())

    def get(self, prompt_id: object) -> Held | None:
        """The prompt, while it has not ended."""
        return self._by_id.get(prompt_id) if isinstance(prompt_id, str) else None

    def get_by_key(self, idempotency_key: str | None) -> Held | None:
        """The prompt that was submitted under an idempotency key, while it has not ended."""
        return None if idempotency_key is None else self._by_key.get(idempotency_key)

    def add(self, held: Held) -> None:
        """Take one in; its id and key are new."""
        self._by_id[held.prompt_id] = held
        if held.idempotency_key is not None:
            self._by_key[held.idempotency_key] = held

    def remove(self, held: Held) -> None:
        """It has ended."""
        del self._by_id[held.prompt_id]
        if held.idempotency_key is not None:
            del self._by_key[held.idempotency_key]

    def next_sequence(self) -> int:
        """The place of a new prompt in the order of acceptance."""
        sequence, self._sequence = self._sequence, self._sequence + 1
        return sequence

    def resume_from(self, sequence: int) -> None:
        """The first sequence that was never used."""
        self._sequence = sequence
