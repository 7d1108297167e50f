"""The one loop that runs warm-ups: wakes up, looks at what is due, runs one thing at a time, remembers how it went.

One at a time on purpose: a warm-up that has ended may have made the next one needless, and ComfyUI runs one prompt at a
time anyway. Triggers only mark entries as pending, so however many come, an entry runs once for all of them.
"""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from normalizer import ModelSet
from warmup.entries import Depth, Trigger
from warmup.faults import BadEntry, Fault
from warmup.gate import Gate
from warmup.in_force import InForce
from warmup.misfits import Misfits
from warmup.plan import Action, Decision, needed, plan, resident
from warmup.ports import Clock, Store, Warmer
from warmup.prepared import Prepared
from warmup.prompts import Preparation, Step, Surroundings, prepare_file
from warmup.report import Report, make_rows
from warmup.requests import FileRequest, Requests
from warmup.runner import Run, run_steps
from warmup.schedule import Due, Planned, Schedule
from warmup.state import Outcome, Result, State

log = logging.getLogger(__name__)

POLL = 5.0
"""Seconds between looks at files and at whether clients are idle: soon enough for people, and costs nothing."""
IDLE_AFTER = 60.0
"""Seconds without clients' prompts after which `idle` entries run: longer than people think between two prompts."""
GATE_LIMIT = 300.0
"""Seconds that anything waits for the entries for a start of ComfyUI."""
FILE_TIME_LIMIT = 600.0
"""Seconds for a model file that is warmed by hand, the default of an entry's `timeout`."""


class WarmupService:
    """Keeps one schedule for one ComfyUI. All methods belong to the event loop that `run` runs in."""

    def __init__(
        self,
        path: Path | None,
        warmer: Warmer,
        clock: Clock,
        store: Store,
        *,
        gate_limit: float = GATE_LIMIT,
        gates_readiness: bool = False,
        idle_after: float = IDLE_AFTER,
    ) -> None:
        """Read the schedule at `path`, if there is one; `schedule.faults` has what is wrong with it.

        The `upstream-start` entries count as tried `gate_limit` seconds after a restart of ComfyUI, even if they have
        not been; with `gates_readiness`, `ready` is False until they are.
        """
        self._in_force = InForce(path)
        self._warmer = warmer
        self._clock = clock
        self._store = store
        self._gate = Gate(gate_limit)
        self._gates_readiness = gates_readiness
        self._idle_after = idle_after
        self._state = self._remembered()
        self._requests = Requests()
        self._wake = asyncio.Event()
        self._prompts = Prepared()
        self._misfits = Misfits(self._prompts)
        self._waiting: dict[str, str] = {}
        self._progress: dict[str, float] = {}
        self._idle_seen: float | None = None
        self._idle_served = False

    @property
    def schedule(self) -> Schedule:
        """The schedule in force."""
        return self._in_force.schedule

    async def run(self) -> None:
        """Run until cancelled. Entries with the trigger `start` are due at once."""
        for fault in self.schedule.faults:
            log.error("%s", fault)
        self._save()
        self._trigger(self.schedule.listening(Trigger.START), Trigger.START)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._watch(), name="warm-up schedule file")
                tasks.create_task(self._work(), name="warm-ups")
        finally:
            self._requests.close()

    def upstream_started(self) -> None:
        """Run the entries that are for this: a new ComfyUI process answers."""
        names = self.schedule.listening(Trigger.UPSTREAM_START)
        self._trigger(names, Trigger.UPSTREAM_START)
        now = self._clock.now()
        self._gate.close((name for name in names if self._state.entries[name].backing_off(now) is None), now)

    def evicted(self, models: ModelSet) -> None:
        """Run the entries that are for this and need it: these components have left VRAM, or RAM as well."""
        around = self._warmer.surroundings()
        listening = [planned for planned in self.schedule.entries if Trigger.EVICTED in planned.entry.triggers]
        if around is None or not listening:
            return
        hit = []
        for planned in listening:
            prepared = self._prepared(planned, around)
            steps = prepared.steps if isinstance(prepared, Preparation) else ()
            if any(step.models & models and needed(step, self._warmer) for step in steps):
                hit.append(planned.name)
        self._trigger(hit, Trigger.EVICTED)

    def poke(self) -> None:
        """Look again now: ComfyUI answers, its schema has been read, or the last client's prompt has ended."""
        self._wake.set()

    def ready(self) -> bool:
        """Whether no `upstream-start` entry holds readiness back any more."""
        return not self._gates_readiness or self.tried()

    def tried(self) -> bool:
        """Whether the `upstream-start` entries have been tried since ComfyUI came up."""
        return self._gate.open(self._clock.now())

    async def warm(self, name: str, depth: Depth | None = None) -> Outcome:
        """Run an entry now, behind clients' prompts; `depth` overrides its `to`. Gives how it went.

        Raises:
            KeyError: there is no such entry, or it is out.
        """
        if self.schedule.get(name) is None:
            raise KeyError(name)
        answer = self._requests.entry(name, depth)
        self._trigger([name], Trigger.MANUAL)
        return await answer

    async def warm_file(self, file: str, depth: Depth = Depth.VRAM) -> Outcome:
        """Warm a model file by its name, whether it is on the schedule or not. Gives how it went."""
        answer = self._requests.file(file, depth)
        self._wake.set()
        return await answer

    def reload(self) -> tuple[Fault, ...]:
        """Read the schedule again. A file with faults that the one in force has not is not taken; they are given."""
        if not self._in_force.reload():
            return self._in_force.rejected
        definitions = self.schedule.definitions
        self._state = self._state.known(definitions, self._clock.now())
        self._gate.keep(definitions.keys())
        for name in self._requests.entries() - definitions.keys():
            self._requests.answer(name, self._outcome(Run(Result.CANCELLED, 0.0, "no longer on the schedule"), ()))
        self._save()
        self._wake.set()
        return ()

    def report(self) -> Report:
        """How everything stands."""
        out = self._misfits.faults
        rows = make_rows(self.schedule, self._state, self._clock.now(), self._waiting, self._progress, out)
        files = self._requests.rows(self._progress)
        faults = (*self.schedule.faults, *(fault for found in out.values() for fault in found))
        return Report(self._in_force.path, (*rows, *files), faults, self._in_force.rejected)

    async def _watch(self) -> None:
        """Read the schedule again whenever it, or a workflow that it names, has changed on disk."""
        never = asyncio.Event()
        while True:
            await self._clock.wait(never, POLL)
            if self._in_force.changed():
                self.reload()

    async def _work(self) -> None:
        while True:
            self._wake.clear()
            if not await self._do_one():
                await self._clock.wait(self._wake, self._pause())

    def _pause(self) -> float:
        """Seconds until something is due that is not waiting for somebody else, or until it is time to look again."""
        now = self._clock.now()
        times = [
            self.schedule.next_for(planned, self._state, now)
            for planned in self.schedule.entries
            if planned.name not in self._waiting and planned.name not in self._misfits.faults
        ]
        return min([POLL, *(max(time - now, 0.0) for time in times if time is not None)])

    async def _do_one(self) -> bool:
        """Do the first thing that can be done; False when there is none."""
        around = self._warmer.surroundings()
        idle = self._watch_idle()
        due = self.schedule.due(self._state, self._clock.now())
        if around is None:
            self._waiting = {item.planned.name: "ComfyUI does not answer yet" for item in due}
            return False
        self._judge(around)
        if (wanted := self._requests.next_file()) is not None:
            await self._warm_file(wanted, around)
            return True
        due = tuple(item for item in due if self._fits(item))
        prepared = {item.planned.name: self._prepared(item.planned, around) for item in due}
        decisions = plan(due, prepared, self._warmer, clients_busy=not idle)
        self._waiting = {item.name: item.reason for item in decisions if item.action is Action.WAIT}
        for decision in decisions:
            if decision.action is not Action.WAIT and (planned := self.schedule.get(decision.name)):
                await self._carry_out(planned, decision, prepared[decision.name])
                return True
        return False

    def _judge(self, around: Surroundings) -> None:
        """Take out what this ComfyUI cannot do: what has called for it stays due, and runs once it can be done."""
        for fault in self._misfits.judge(self.schedule, around):
            log.error("%s", fault)
        for name in self._misfits.faults:
            self._gate.tried(name)

    def _fits(self, due: Due) -> bool:
        """Whether it is to be run, or refused with an answer: a person may try what is out, as a file may be newer."""
        return due.planned.name not in self._misfits.faults or Trigger.MANUAL in due.triggers

    def _watch_idle(self) -> bool:
        """Whether no client's prompt runs or waits; once in each idle time, when it is long enough, trigger `idle`."""
        idle = self._warmer.idle_for()
        if idle is None or (self._idle_seen is not None and idle < self._idle_seen):
            self._idle_served = False
        self._idle_seen = idle
        if idle is not None and idle >= self._idle_after and not self._idle_served:
            self._idle_served = True
            self._trigger(self.schedule.listening(Trigger.IDLE), Trigger.IDLE)
        return idle is not None

    async def _carry_out(self, planned: Planned, decision: Decision, prepared: Preparation | BadEntry) -> None:
        """Run, skip or refuse one entry, and remember how it went."""
        name, entry = planned.name, planned.entry
        self._state = self._state.with_entry(name, self._state.entries[name].started(self._clock.now()))
        if decision.action is Action.RUN:
            log.info("%s: warming, %s", name, decision.reason)
            ended = await self._run(name, decision.steps, entry.priority, entry.timeout)
        else:
            ended = Run(Result.SKIPPED if decision.action is Action.SKIP else Result.FAILED, 0.0, decision.reason)
        if isinstance(prepared, Preparation):
            ended = ended.with_notes(prepared.notes)
            if entry.keep and ended.result in {Result.WARMED, Result.SKIPPED}:
                self._warmer.keep(prepared.models, entry.keep)
        outcome = self._told(name, ended, decision.triggers)
        if name in self._state.entries:
            self._state = self._state.with_entry(name, self._state.entries[name].finished(outcome))
        self._gate.tried(name)
        self._requests.answer(name, outcome)
        self._save()

    async def _warm_file(self, wanted: FileRequest, around: Surroundings) -> None:
        try:
            prepared = prepare_file(wanted.file, around, wanted.depth)
        except BadEntry as bad:
            ended = Run(Result.FAILED, 0.0, str(bad))
        else:
            steps = [step for step in prepared.steps if needed(step, self._warmer)]
            if steps:
                ended = await self._run(wanted.file, steps, 0, FILE_TIME_LIMIT)
            else:
                ended = Run(Result.SKIPPED, 0.0, resident(prepared.steps))
            ended = ended.with_notes(prepared.notes)
        self._requests.answer_file(self._told(wanted.file, ended, (Trigger.MANUAL,)))

    async def _run(self, name: str, steps: Sequence[Step], priority: int, time_limit: float) -> Run:
        try:
            return await run_steps(
                self._warmer,
                steps,
                name=name,
                priority=priority,
                time_limit=time_limit,
                nonce=int(self._clock.now() * 1000),
                progress=partial(self._progress.__setitem__, name),
            )
        finally:
            self._progress.pop(name, None)

    def _prepared(self, planned: Planned, around: Surroundings) -> Preparation | BadEntry:
        return self._prompts.get(planned, around, self._requests.depth(planned.name) or planned.entry.to)

    def _trigger(self, names: Iterable[str], trigger: Trigger) -> None:
        if concerned := tuple(names):
            self._state = self._state.triggered(concerned, trigger, self._clock.now())
            self._wake.set()

    def _told(self, name: str, ended: Run, triggers: tuple[Trigger, ...]) -> Outcome:
        """The outcome of a warm-up, after it has been logged."""
        level = logging.WARNING if ended.result.is_failure else logging.INFO
        log.log(level, "%s: %s after %.1f s: %s", name, ended.result, ended.seconds, ended.detail)
        return self._outcome(ended, triggers)

    def _outcome(self, ended: Run, triggers: tuple[Trigger, ...]) -> Outcome:
        return Outcome(self._clock.now(), ended.result, ended.seconds, ended.detail, triggers)

    def _save(self) -> None:
        self._store.save(self._state.to_json())

    def _remembered(self) -> State:
        state = State()
        if (text := self._store.load()) is not None:
            try:
                state = State.from_json(text)
            except ValueError as error:
                log.warning("%s; cron times missed before this start are not made up for", error)
        return state.known(self.schedule.definitions, self._clock.now())
