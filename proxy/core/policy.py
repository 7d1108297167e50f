"""Which of the prompts whose turn it may be is sent next: the one that loads least.

ComfyUI runs prompts in the order of their numbers, so each change of model is paid as often as clients happen to
alternate. Here the prompts whose components are loaded already go first, and when something has to be loaded, then what
costs least.
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


@dataclass(frozen=True, slots=True)
class Choice:
    """The prompt to send, and why."""

    job: Job
    code: Code
    text: str
    numbers: dict[str, float] = field(default_factory=dict)


def choose(turn: Turn, costs: Costs, upstream: Sequence[ModelSet]) -> Choice:
    """Choose from the candidates of one turn; `upstream` are the models of the prompts before it, in order."""
    first = turn.candidates[0]
    if len(turn.candidates) == 1:
        return _only(first, turn, costs.load_seconds(first.models, upstream))
    prices: dict[ModelSet, float] = {}
    best, best_seconds, passes = first, 0.0, 0
    for index, job in enumerate(turn.candidates):
        seconds = prices.get(job.models)
        if seconds is None:
            seconds = prices[job.models] = costs.load_seconds(job.models, upstream)
        if index == 0 or seconds < best_seconds - NOTHING:
            best, best_seconds, passes = job, seconds, index
    numbers = {"load_seconds": best_seconds, "passes": float(passes)}
    if best is first:
        return Choice(best, Code.OLDEST, f"the oldest, and nothing loads less ({best_seconds:.1f} s)", numbers)
    numbers["oldest_load_seconds"] = prices[first.models]
    if best_seconds <= NOTHING:
        text = f"its models are loaded; the oldest would load for {prices[first.models]:.1f} s"
        return Choice(best, Code.RESIDENT, text, numbers)
    text = f"loads for {best_seconds:.1f} s, the oldest would for {prices[first.models]:.1f} s"
    return Choice(best, Code.CHEAPER, text, numbers)


def _only(job: Job, turn: Turn, seconds: float) -> Choice:
    texts = {
        Code.PLACE: "it stands first by its number",
        Code.OVERDUE: "it has been passed as often or as long as is allowed",
        Code.AGED: "it has waited long enough to come before higher priorities",
    }
    code = turn.forced or Code.ONLY_ONE
    return Choice(job, code, texts.get(code, "nothing else may go now"), {"load_seconds": seconds})
