"""Which of the prompts whose turn it may be is sent next: the one whose passing of the oldest saves most loading.

ComfyUI runs prompts in the order of their numbers, so each change of model is paid as often as clients happen to
alternate. Here prompts pass the oldest while that spares loading: while what they need is loaded, and the oldest would
displace it, or while what they need is nearer than it will be once the oldest has run. What a prompt costs now says
less: a cheap one that costs the same later has no reason to pass anybody, and only delays the oldest.

1. Only one candidate: that one.
2. Else, for every candidate, the seconds of loading that are saved when it runs before the oldest instead of behind it.
3. Nothing is saved by any: the oldest.
4. The one that saves most; of those that save the same, the oldest.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from normalizer.models import ModelSet
from proxy.core.commands import Code
from proxy.core.costs import Costs
from proxy.core.job import Job
from proxy.core.turns import Turn

NOTHING = 0.05
"""Seconds of loading that do not count."""
SETS = 16
"""So many different sets of components are priced in one decision; it takes no longer, however many wait."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The prompt to send, and why."""

    job: Job
    code: Code
    text: str
    numbers: dict[str, float] = field(default_factory=dict)


def choose(turn: Turn, costs: Costs, upstream: Sequence[ModelSet]) -> Choice:
    """Choose from the candidates of one turn; `upstream` are the models of the prompts before it, in order."""
    oldest = turn.candidates[0]
    oldest_seconds = costs.load_seconds(oldest.models, upstream)
    if len(turn.candidates) == 1:
        return _only(oldest, turn, oldest_seconds)
    best, most, passes = oldest, 0.0, 0
    behind_oldest = [*upstream, oldest.models]
    priced = {oldest.models}
    for index, job in enumerate(turn.candidates):
        if job.models in priced:
            continue
        if len(priced) > SETS:
            break
        priced.add(job.models)
        # What a swap saves: this one is spared what the oldest would displace, the oldest is spared what both need.
        saved = costs.load_seconds(job.models, behind_oldest) - costs.load_seconds(job.models, upstream)
        if saved + oldest_seconds > most + NOTHING:
            saved += oldest_seconds - costs.load_seconds(oldest.models, [*upstream, job.models])
            if saved > most + NOTHING:
                best, most, passes = job, saved, index
    numbers = {"load_seconds": oldest_seconds, "passes": float(passes)}
    if best is oldest:
        text = f"the oldest, and nothing saves loading by passing it ({oldest_seconds:.1f} s to load)"
        return Choice(oldest, Code.OLDEST, text, numbers)
    seconds = costs.load_seconds(best.models, upstream)
    numbers |= {"load_seconds": seconds, "oldest_load_seconds": oldest_seconds, "saved_seconds": most}
    saves = f"running it before the oldest saves {most:.1f} s of loading"
    if seconds <= NOTHING:
        return Choice(best, Code.RESIDENT, f"its models are loaded; {saves}", numbers)
    return Choice(best, Code.CHEAPER, f"loads for {seconds:.1f} s; {saves}", numbers)


def _only(job: Job, turn: Turn, seconds: float) -> Choice:
    texts = {
        Code.PLACE: "it stands first by its number",
        Code.OVERDUE: "it has been passed as often or as long as is allowed",
        Code.AGED: "it has waited long enough to come before higher priorities",
    }
    code = turn.forced or Code.ONLY_ONE
    return Choice(job, code, texts.get(code, "nothing else may go now"), {"load_seconds": seconds})
