"""What is written down when a prompt has ended: for the next pins, for the totals, and one line for people."""

import logging
from dataclasses import dataclass, replace

from proxy.core.account import Account
from proxy.core.events import Outcome
from proxy.core.timeline import Timeline
from proxy.engine.comfy import Upstream
from proxy.engine.records import Handling, Record

log = logging.getLogger("comfykeep")


@dataclass(slots=True)
class Totals:
    """The sums since the start."""

    prompts: int = 0
    loaded: int = 0
    kept: int = 0
    load_seconds: float = 0.0
    saved_seconds: float = 0.0
    avoidable_seconds: float = 0.0

    def add(self, account: Account) -> None:
        """Take in one prompt."""
        self.prompts += 1
        self.loaded += len(account.loaded)
        self.kept += len(account.kept)
        self.load_seconds += sum(item.seconds or 0.0 for item in account.loaded)
        self.saved_seconds += account.saved_seconds
        self.avoidable_seconds += account.avoidable_seconds


class Bookkeeping:
    """Closes the account of each prompt."""

    def __init__(self, upstream: Upstream) -> None:
        self.totals = Totals()
        self._upstream = upstream

    def close(self, record: Record, outcome: Outcome, now: float) -> None:
        """Book a prompt that ended as seen in its events."""
        timeline = _in_stable_ids(record)
        account = self._upstream.load_book.settle(record.components, timeline, keeps_alone=self._upstream.keeps_alone)
        record.account = account
        self.totals.add(account)
        seen = timeline.cached | timeline.node_seconds.keys()
        self._upstream.chain_book.used([c for c in record.chains if c.key in seen], now)
        self._upstream.chain_book.loaded({i.ref: i.seconds for i in account.loaded if i.seconds is not None})
        log.info("%s", describe(record, account, outcome))


def describe(record: Record, account: Account, outcome: Outcome) -> str:
    """One line: what was loaded, what was kept, what that saved."""
    seconds = record.timeline.run_seconds
    parts = [f"{outcome} in {seconds:.2f} s" if seconds is not None else str(outcome)]
    if account.loaded:
        items = (f"{i.ref.label} ({i.seconds:.2f} s)" if i.seconds is not None else i.ref.label for i in account.loaded)
        parts.append("loaded " + ", ".join(items))
    if account.kept:
        parts.append("kept " + ", ".join(ref.label for ref in account.kept))
    if account.saved_seconds:
        parts.append(f"saved {account.saved_seconds:.2f} s of loading")
    if record.handling is not Handling.REWRITTEN:
        parts.append(record.handling.value)
        if account.avoidable_seconds:
            parts.append(f"pins would have saved {account.avoidable_seconds:.2f} s of loading")
    return f"prompt {record.prompt_id}: " + "; ".join(parts)


def _in_stable_ids(record: Record) -> Timeline:
    """The timeline of a prompt that was sent as it came, as if it had been rewritten."""
    ids, timeline = record.stable_ids, record.timeline
    if not ids:
        return timeline
    return replace(
        timeline,
        cached=frozenset(ids.get(node, node) for node in timeline.cached),
        node_seconds={ids.get(node, node): seconds for node, seconds in timeline.node_seconds.items()},
    )
