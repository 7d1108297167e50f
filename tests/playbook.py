"""Scripts for the scheduler: when this happens, then these commands follow.

    play = Playbook()
    play.when(ready()).then()
    play.when(submit("a")).then("Dispatch a, validating")

Commands are compared as lines of text, without their reasons unless a line names the reason's code in brackets. A
script that goes on without having said what follows from an event is a mistake, and so are commands nobody expected:
both fail with the transcript so far and the difference.
"""

import difflib
from typing import Self

from normalizer.models import ModelRef, ModelSet
from proxy.core import commands as do
from proxy.core import events as ev
from proxy.core.costs import LoadCosts, ResidentCosts
from proxy.core.scheduler import Scheduler
from proxy.core.settings import Settings
from proxy.core.tiers import Tier


class Shelf:
    """Tiers for tests: everything is cold but what a test has put elsewhere."""

    def __init__(self) -> None:
        self.tiers: dict[ModelRef, Tier] = {}

    def tier(self, ref: ModelRef) -> Tier:
        return self.tiers.get(ref, Tier.COLD)

    def put(self, tier: Tier, *names: str) -> None:
        self.tiers.update((model(name), tier) for name in names)


def model(name: str) -> ModelRef:
    """A checkpoint."""
    return ModelRef("CheckpointLoaderSimple", (name,))


def models(names: str) -> ModelSet:
    """One component for each word."""
    return frozenset(map(model, names.split()))


def submit(prompt_id: str, needs: str = "m", **more: object) -> ev.Submitted:
    return ev.Submitted(prompt_id=prompt_id, models=models(needs), **more)  # type: ignore[arg-type]


def ready(*, new_process: bool = False, **more: object) -> ev.UpstreamReady:
    return ev.UpstreamReady(new_process, **more)  # type: ignore[arg-type]


def costs(shelf: Shelf, seconds: float = 10.0) -> ResidentCosts:
    """Each component takes `seconds` from disk and a tenth of it from RAM; VRAM holds one."""
    size = 1_000_000_000
    learned = LoadCosts()
    learned.observe(model("any"), Tier.COLD, seconds, size)
    learned.observe(model("any"), Tier.WARM, seconds / 10, size)
    return ResidentCosts(learned, shelf, lambda _: size, vram=size)


class Playbook:
    """A scheduler, and what has been said to it."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.shelf = Shelf()
        self.scheduler = Scheduler(costs(self.shelf), settings)
        self.now = 0.0
        self._transcript: list[str] = []
        self._pending: list[do.Command] | None = None

    def when(self, event: ev.Event, *, after: float = 0.0) -> Self:
        """This happens, so many seconds later."""
        assert self._pending is None, self._report(["(nothing was said about this event)"])
        self.now += after
        self._transcript.append(f"{self.now:8.1f}  {event}")
        self._pending = self.scheduler.handle(event, self.now)
        return self

    def then(self, *lines: str) -> Self:
        """These commands follow, in this order, and no others."""
        assert self._pending is not None, "then() without when()"
        got = [
            line(command, with_code="[" in expected)
            for command, expected in zip(self._pending, [*lines, *[""] * len(self._pending)], strict=False)
        ]
        assert got == list(lines), self._report(list(lines))
        self._transcript += [f"{'':8}    -> {line(command, with_code=True)}" for command in self._pending]
        self._pending = None
        return self

    def run(self, prompt_id: str, *follows: str, seconds: float = 10.0) -> Self:
        """A staged prompt starts and, after some seconds, ends well; `follows` comes after its end."""
        self.when(ev.Started(prompt_id))
        self._pending = None
        return self.when(ev.Finished(prompt_id, run_seconds=seconds), after=seconds).then(*follows)

    def _report(self, expected: list[str]) -> str:
        got = [line(command, with_code=True) for command in self._pending or []]
        difference = difflib.ndiff(expected, got)
        return "\n".join(["", *self._transcript, "expected (-), got (+):", *difference])


def line(command: do.Command, *, with_code: bool = False) -> str:
    """A command in one line."""
    text = f"{type(command).__name__} {command.prompt_id}"
    match command:
        case do.Accept(validated=False):
            text += ", unchecked"
        case do.Dispatch(validating=True):
            text += ", validating"
        case do.Hold(attempts=attempts) if attempts:
            text += f", attempts {attempts}"
        case do.End(state=state):
            text += f", {state}"
        case _:
            pass
    return f"{text} [{command.reason.code}]" if with_code else text
