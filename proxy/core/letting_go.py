"""Which keys of the Inspire Pack's cache to let go, when nobody wants anything else.

The pin planner decides which chains are worth their memory, by the queue, the groups and recent use; here its choice
is applied to what shared loaders keep. A key goes when no chosen chain needs what it keeps, or when its tag has no room
for it beside more important ones: the pack would let the longest unused go then, which may be the one to keep.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from normalizer import Chain
from normalizer.models import ModelRef
from proxy.core.shared_store import SharedStore

PATIENCE = 600.0
"""Seconds for which keys that an earlier proxy has left may still be asked for."""


@dataclass(frozen=True, slots=True)
class LetGo:
    """One key to take out, and why."""

    key: str
    ref: ModelRef | None
    reason: str


def all_keys(store: SharedStore, reason: str) -> tuple[LetGo, ...]:
    """Take out all that are ours."""
    return tuple(LetGo(key, ref, reason) for key, ref in store.ours().items())


def keys_to_let_go(
    store: SharedStore, chosen: Sequence[Chain], why_not: Mapping[ModelRef, str], strangers_since: float, now: float
) -> tuple[LetGo, ...]:
    """Choose the keys to take out.

    Args:
        store: what is held.
        chosen: the chains to keep, the most important first.
        why_not: why a component is in no chosen chain, where the planner said.
        strangers_since: since when (monotonic seconds) keys of an earlier proxy have had time to be asked for.
        now: monotonic seconds.
    """
    order = [ref for chain in chosen for ref in sorted(chain.models)]
    place = {ref: number for number, ref in reversed(list(enumerate(order)))}
    gone: list[LetGo] = []
    wanted: list[tuple[int, str, ModelRef]] = []
    for key, ref in store.ours().items():
        if ref is None:
            if now - strangers_since > PATIENCE:
                gone.append(LetGo(key, None, "left by an earlier comfykeep, and nobody has asked for it"))
        elif ref in place:
            wanted.append((place[ref], key, ref))
        else:
            gone.append(LetGo(key, ref, why_not.get(ref, "in no chain that is kept")))
    taken: dict[str, int] = {}
    for _, key, ref in sorted(wanted):
        tag = store.tag(key)
        room = None if tag is None else store.room(tag)
        if tag is not None and room is not None:
            taken[tag] = taken.get(tag, 0) + 1
            if taken[tag] > room:
                reason = f"the pack keeps {store.limits[tag]} under {tag!r}, and others are worth more"
                gone.append(LetGo(key, ref, reason))
    return tuple(gone)
