"""A ComfyUI and a journal for the scheduler's property tests, and an account of what happened to every prompt.

Nothing here uses the scheduler's own bookkeeping: the world counts the runs that ComfyUI really began.
"""

from collections import Counter
from dataclasses import dataclass, field

from proxy.core import commands as do
from proxy.core import events as ev
from proxy.core.jobs import State
from proxy.core.scheduler import Scheduler
from proxy.core.settings import Settings, Validate
from tests.playbook import Shelf, costs

QUESTIONS = (do.Probe, do.Dispatch, do.Recall, do.Locate)


@dataclass
class Fate:
    """What the world knows of one prompt."""

    prompt: ev.Submitted
    order: int
    valid: bool
    submitted: float
    answers: list[do.Command] = field(default_factory=list)
    ends: list[do.End] = field(default_factory=list)
    runs: list[tuple[int, float | None]] = field(default_factory=list)
    """For each run that began: its place among all runs, and its seconds once it ended."""
    successes: int = 0
    unwanted: bool = False
    moved: bool = False
    slip: int | None = None
    """The run that began because its probe slipped through: its place among all runs."""
    orphan: bool = False
    """Its client never got an answer, because the proxy was killed."""
    attempts: int = 0

    @property
    def accepted(self) -> bool:
        return any(isinstance(answer, do.Accept) for answer in self.answers)


class World:
    """ComfyUI, the shell around the scheduler, and the journal."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.shelf = Shelf()
        self.scheduler = Scheduler(costs(self.shelf), settings)
        self.now = 0.0
        self.fates: dict[str, Fate] = {}
        self.outstanding: list[do.Command] = []
        self.queue: list[tuple[str, bool]] = []
        """(id, parked)"""
        self.running: str | None = None
        self.run_began = 0.0
        self.history: dict[str, ev.Finished] = {}
        self.connected = False
        self.runs = 0
        self.foreign = 0
        self.states: dict[str, State] = {}
        """What the journal holds."""

    # the shell

    def tell(self, event: ev.Event) -> None:
        commands = self.scheduler.handle(event, self.now)
        for command in commands:
            self._note(command)
        # Everything is on disk before anything is done about it.
        for prompt_id, fate in self.fates.items():
            state = self.scheduler.state(prompt_id)
            if fate.accepted and state is not None:
                self.states[prompt_id] = state
        for command in commands:
            self._perform(command)

    def _note(self, command: do.Command) -> None:
        if isinstance(command, do.Accept | do.Refuse):
            self.fates[command.prompt_id].answers.append(command)
        elif isinstance(command, do.Hold):
            self.fates[command.prompt_id].attempts = command.attempts
        elif isinstance(command, do.End):
            self.fates[command.prompt_id].ends.append(command)

    def _perform(self, command: do.Command) -> None:
        if isinstance(command, do.Interrupt):
            if command.prompt_id == self.running and command.prompt_id is not None:
                self.finish(ev.Outcome.INTERRUPTED)
            return
        if isinstance(command, QUESTIONS):
            assert self.connected, f"{command} while ComfyUI is away"
            self.outstanding.append(command)
        if isinstance(command, do.Dispatch):
            assert self.fates[command.prompt_id].successes == 0, "sent again after it had succeeded"
            assert command.prompt_id not in self.at_comfyui(), "sent while ComfyUI has it"

    # ComfyUI

    def at_comfyui(self) -> list[str]:
        return [*([] if self.running is None else [self.running]), *(prompt_id for prompt_id, _ in self.queue)]

    def start(self) -> None:
        """ComfyUI begins with the first in its queue."""
        if self.running is None and self.queue:
            first = next((item for item in self.queue if not item[1]), self.queue[0])
            self.queue.remove(first)
            if first[1]:
                self.fates[first[0]].slip = self.runs
            self._began(first[0])
            if self.connected:
                self.tell(ev.Started(first[0]))

    def _began(self, prompt_id: str) -> None:
        self.running, self.run_began = prompt_id, self.now
        self.fates[prompt_id].runs.append((self.runs, None))
        self.runs += 1

    def _over(self) -> str:
        assert self.running is not None
        fate = self.fates[self.running]
        fate.runs[-1] = (fate.runs[-1][0], self.now - self.run_began)
        prompt_id, self.running = self.running, None
        return prompt_id

    def finish(self, outcome: ev.Outcome) -> None:
        """The running prompt's run ends."""
        if self.running is None:
            return
        seconds = self.now - self.run_began
        prompt_id = self._over()
        event = ev.Finished(prompt_id, outcome, seconds)
        self.fates[prompt_id].successes += outcome is ev.Outcome.SUCCESS
        if outcome is ev.Outcome.DOUBTED:
            self.history[prompt_id] = ev.Finished(prompt_id, ev.Outcome.ERROR, seconds)
        elif outcome is not ev.Outcome.SPOILED:
            self.history[prompt_id] = event
        if self.connected:
            self.tell(event)

    def judge(self, spoiled: bool) -> None:
        """It has come out whose fault all failures in doubt were."""
        for prompt_id in list(self.scheduler.context.ledger.doubtful):
            if spoiled:
                self.history.pop(prompt_id, None)
            self.tell(ev.Judged(prompt_id, spoiled))

    def answer(self, index: int, how: str) -> None:
        """ComfyUI, or the lack of it, answers an open question."""
        command = self.outstanding.pop(index)
        assert command.prompt_id is not None
        fate = self.fates[command.prompt_id]
        match command:
            case do.Probe(prompt_id):
                self._answer_probe(prompt_id, fate, how)
            case do.Dispatch(prompt_id):
                self._answer_dispatch(prompt_id, fate, how)
            case do.Recall(prompt_id) | do.Locate(prompt_id):
                self._answer_look(prompt_id, recall=isinstance(command, do.Recall))

    def _answer_probe(self, prompt_id: str, fate: Fate, how: str) -> None:
        idle = self.running is None and not self.queue
        if how == "lost on the way":
            self.tell(ev.ProbeUnclear(prompt_id))
        elif not fate.valid:
            self.tell(ev.ProbeRefused(prompt_id) if how == "yes" else ev.ProbeUnclear(prompt_id))
        elif how == "lost on the way back":
            self.queue.append((prompt_id, True))
            self.tell(ev.ProbeUnclear(prompt_id))
        elif how == "quick" and idle:
            fate.slip = self.runs
            self._began(prompt_id)
            self.tell(ev.ProbeSlipped(prompt_id))
        else:
            self.tell(ev.ProbeAccepted(prompt_id))

    def _answer_dispatch(self, prompt_id: str, fate: Fate, how: str) -> None:
        if how == "lost on the way":
            self.tell(ev.DispatchUnclear(prompt_id))
        elif not fate.valid:
            self.tell(ev.DispatchRefused(prompt_id) if how == "yes" else ev.DispatchUnclear(prompt_id))
        else:
            self.queue.append((prompt_id, False))
            if how == "quick":
                self.start()
            if how == "lost on the way back":
                self.tell(ev.DispatchUnclear(prompt_id))
            else:
                self.tell(ev.Dispatched(prompt_id))

    def _answer_look(self, prompt_id: str, *, recall: bool) -> None:
        if prompt_id in self.history:
            self.tell(self.history[prompt_id])
        elif recall:
            self.queue = [item for item in self.queue if item[0] != prompt_id]
            self.tell(ev.RecallDone(prompt_id, started=self.running == prompt_id))
        elif prompt_id == self.running:
            self.tell(ev.Located(prompt_id, ev.Where.RUNNING))
        elif prompt_id in self.at_comfyui():
            self.tell(ev.Located(prompt_id, ev.Where.PENDING))
        else:
            self.tell(ev.Located(prompt_id, ev.Where.ABSENT))

    # trouble

    def disconnect(self, carried_out: bool) -> None:
        """The connection breaks; what was asked may or may not have been carried out."""
        if not self.connected:
            return
        self.connected = False
        for command in self.outstanding:
            assert command.prompt_id is not None
            if carried_out and self.fates[command.prompt_id].valid:
                if isinstance(command, do.Dispatch | do.Probe):
                    self.queue.append((command.prompt_id, isinstance(command, do.Probe)))
                elif isinstance(command, do.Recall):
                    self.queue = [item for item in self.queue if item[0] != command.prompt_id]
        self.outstanding.clear()
        self.tell(ev.UpstreamLost())

    def crash(self) -> None:
        """ComfyUI dies with everything it had."""
        if self.running is not None:
            self._over()
        self.queue.clear()
        self.history.clear()
        self.new_process = True

    new_process = False

    def connect(self) -> None:
        """ComfyUI answers again."""
        if self.connected:
            return
        self.connected = True
        event = ev.UpstreamReady(
            self.new_process,
            frozenset([self.running] if self.running is not None else []),
            tuple(prompt_id for prompt_id, _ in sorted(self.queue, key=lambda item: item[1])),
            dict(self.history),
        )
        self.new_process = False
        self.tell(event)

    def restart_proxy(self, carried_out: bool) -> None:
        """The proxy is killed, and a new one reads the journal. Clients without an answer never get one."""
        self.disconnect(carried_out=carried_out)
        self.scheduler = Scheduler(costs(self.shelf), self.settings)
        for prompt_id, fate in self.fates.items():
            if not fate.answers:
                fate.orphan = True
                # The shell takes back what it finds parked under an id that the journal does not know.
                self.queue = [item for item in self.queue if item != (prompt_id, True)]
            elif fate.accepted:
                self.tell(self._restored(fate))

    def _restored(self, fate: Fate) -> ev.Restored:
        return ev.Restored(
            prompt=fate.prompt,
            number=next(answer.number for answer in fate.answers if isinstance(answer, do.Accept)),
            submitted=fate.submitted,
            state=self.states[fate.prompt.prompt_id],
            attempts=fate.attempts,
            started=bool(fate.runs),
            run_seconds=sum(seconds for _, seconds in fate.runs if seconds is not None),
        )

    def settle(self) -> None:
        """Every open question is answered, with a yes where that is possible."""
        last: list[do.Command] = []
        while self.connected and self.outstanding:
            last.append(self.outstanding[0])
            assert len(last) < 500, f"asks without end: {last[-6:]}"
            self.answer(0, "yes")

    def change(self, settings: Settings) -> None:
        """The operator has other settings now."""
        self.settings = settings
        self.tell(ev.SettingsChanged(settings))

    # time

    def pass_time(self, seconds: float) -> None:
        """Time goes by; recalls are answered at once, and the scheduler is woken when it wants to be."""
        until = self.now + seconds
        for _ in range(1000):
            wakeup = self.scheduler.next_wakeup()
            if wakeup is None or wakeup > until:
                break
            self.now = max(self.now, wakeup)
            self.tell(ev.Tick())
            self.settle()
        else:
            raise AssertionError(f"wants to be woken again and again at {self.now}")
        self.now = until

    def work(self, seconds: float) -> None:
        """One prompt runs, and all goes well."""
        self.settle()
        self.start()
        self.settle()
        self.pass_time(seconds)
        self.finish(ev.Outcome.SUCCESS)
        self.settle()

    # the account

    def check(self) -> None:
        """What must hold at any time."""
        ledger = self.scheduler.context.ledger
        assert ledger.accepted == sum(job.answered for job in ledger.unfinished())
        counts = Counter(self.at_comfyui())
        assert all(count == 1 for count in counts.values()), f"doubled: {counts}"
        for fate in self.fates.values():
            assert len(fate.answers) <= 1, f"answered twice: {fate.answers}"
            assert len(fate.ends) <= 1, f"ended twice: {fate.ends}"
            assert fate.successes <= 1, "ran twice"

    def check_bounds(self, *, same_client_only: bool) -> None:
        """Nobody was overtaken more often, or for longer, than allowed; a slip is nobody's choice: it takes no time."""
        for fate in self.fates.values():
            if self._outside_the_promise(fate):
                continue
            began = fate.runs[0][0] if fate.runs else self.runs
            passing = [
                other
                for other in self.fates.values()
                if other.order > fate.order
                and other.prompt.priority == fate.prompt.priority
                and not self._has_its_place(other)
                and (other.prompt.client == fate.prompt.client or not same_client_only)
                and any(place < began for place, _ in other.runs)
            ]
            assert len(passing) <= self.settings.max_bypass, f"{fate.prompt.prompt_id} was passed by {passing}"
            runs = sorted(run for other in passing for run in other.runs if run[0] < began and run[0] != other.slip)
            seconds = [self.now - self.run_began if spent is None else spent for _, spent in runs]
            assert sum(seconds[:-1]) <= self.settings.max_wait + 1e-6, f"{fate.prompt.prompt_id}: {seconds}"

    def _outside_the_promise(self, fate: Fate) -> bool:
        return fate.unwanted or fate.orphan or not fate.valid or self._has_its_place(fate)

    @staticmethod
    def _has_its_place(fate: Fate) -> bool:
        return fate.moved or fate.prompt.front or fate.prompt.number is not None

    def check_chains(self) -> None:
        """Prompts that share an order key began in the order of their submission."""
        chains: dict[tuple[str, str], list[Fate]] = {}
        for fate in self.fates.values():
            if fate.prompt.order_key is not None and fate.runs:
                chains.setdefault((fate.prompt.client, fate.prompt.order_key), []).append(fate)
        for chain in chains.values():
            places = [fate.runs[0][0] for fate in chain if fate.slip is None]
            assert places == sorted(places), f"out of order: {chain}"


def small_settings(validate: Validate, depth: int, quantum: float, bounds: tuple[int, float]) -> Settings:
    """Bounds small enough to be met in a short test."""
    return Settings(
        depth=depth,
        validate=validate,
        max_bypass=bounds[0],
        max_wait=bounds[1],
        age_step=10.0,
        fair_quantum=quantum,
        max_attempts=4,
    )
