"""Which prompt may have ended ComfyUI although nobody heard that it began.

A prompt can take ComfyUI down so fast that the event of its start is never sent. Counted by starts alone, such a prompt
would be sent again, and end the next process, for ever. What speaks against it: it stood first in ComfyUI's queue, and
nothing else ran, neither a prompt of ours nor a stranger's. An innocent one can stand there too, when ComfyUI is killed
just then; but to stand there each time, `max_attempts` times, it takes a ComfyUI that cannot be used anyway. Our own
restarts are no evidence: the queue is stopped before them, and what stood there is being taken out when ComfyUI ends.
"""

from collections.abc import Mapping

from proxy.core.job import Job
from proxy.core.jobs import State
from proxy.core.ledger import Ledger

_TAKEN_OUT = frozenset({State.RECALLING, State.CANCELLING})


def suspect(ledger: Ledger, foreign: Mapping[str, bool]) -> Job | None:
    """To be asked when ComfyUI is lost, before what was known of its queue is put in doubt."""
    if foreign or ledger.running() is not None:
        return None
    there = [job for job in ledger.upstream.values() if job.confirmed or job.reached]
    to_run = [job for job in there if not job.parked]
    # Of several that are only checked, any may be the one.
    first = next(iter(to_run), there[0] if len(there) == 1 else None)
    # Nor is the one behind it to blame then: it has hardly come to be the first.
    return None if first is None or first.state in _TAKEN_OUT else first
