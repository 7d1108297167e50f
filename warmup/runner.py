"""Runs the prompts of one warm-up one after the other, within one time limit, and says how it went in one result."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from warmup.plan import needed
from warmup.ports import Warmer
from warmup.prompts import Step
from warmup.state import Result


@dataclass(frozen=True, slots=True)
class Run:
    """How the prompts of a warm-up ended: the worst result, the seconds that they ran in all, and the reason."""

    result: Result
    seconds: float
    detail: str

    def with_notes(self, notes: Iterable[str]) -> "Run":
        """The same with more to say."""
        return Run(self.result, self.seconds, "; ".join([self.detail, *notes]))


async def run_steps(
    warmer: Warmer,
    steps: Sequence[Step],
    *,
    name: str,
    priority: int,
    time_limit: float,
    nonce: int,
    progress: Callable[[float], None],
) -> Run:
    """Run the steps that are still needed when their turn comes; the first that does not succeed ends the warm-up.

    `nonce` is a number that no warm-up of the last hours has had.
    """
    seconds = 0.0
    warmed: list[str] = []
    for number, step in enumerate(steps):
        progress(number / len(steps))
        if not needed(step, warmer):
            continue
        if seconds >= time_limit:
            return Run(Result.TIMED_OUT, seconds, f"{time_limit:.0f} s were over before {step.label}")
        ended = await warmer.run(
            step.fresh(nonce + number),
            name=name,
            priority=priority,
            time_limit=time_limit - seconds,
            progress=lambda done, number=number: progress((number + done) / len(steps)),  # type: ignore[misc]
        )
        seconds += ended.seconds
        if ended.result is not Result.WARMED:
            return Run(ended.result, seconds, f"{step.label}: {ended.detail}")
        warmed.append(step.label)
    if not warmed:
        return Run(Result.SKIPPED, seconds, "all of it was there when its turn came")
    return Run(Result.WARMED, seconds, ", ".join(warmed))
