"""Kills the proxy and ComfyUI at random moments while clients work, and then accounts for every prompt.

Some hang for a while before they die, as processes do.

What counts is what clients were told: a prompt is accepted when its client got 200, and from then on it must finish,
fail for a reason of its own, be cancelled at its client's wish, or wait. What ran how often is told by the files that
ComfyUI saved, which no death takes away.
"""

import asyncio
import json
import math
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

from rich.console import Console

from bench.crowd import Account, Client, Span
from bench.errors import BenchError
from bench.victims import CAN_HANG, Side, Victims, running

CLIENTS = 3
_CALM = 0.8
"""Seconds between two kills at most, besides what the victims need to come up."""
_BOTH_SHARE = 0.15
"""So often the second dies before the first is back."""
_HUNG_SHARE = 0.2
"""So often it hangs before it dies, and in one of two such cases recovers in between."""
_HUNG = 0.5
"""Seconds that it hangs at most: less than `_UNWRITTEN`, for what ended before that counts as heard."""
_SETTLING = 120.0
"""Seconds that what is left gets to come to its end after the last kill."""
_UNWRITTEN = 1.0
"""Seconds after which the news of an end is in the journal for certain, whatever dies then."""
_MILLISECONDS = 1000

Villain: TypeAlias = Callable[[Victims, random.Random], Awaitable[None]]
"""Does something to the victims."""


@dataclass(frozen=True, slots=True)
class Report:
    """What became of the accepted prompts.

    Attributes:
        kills: of each side.
        failed: failed as they were made to.
        cancelled: taken out or interrupted at their clients' wish.
        waiting: still in the queue.
        lost: anything else: unknown, or failed although nothing was wrong with them.
        finished_twice: run again although their success was known.
        unheard: ended while their client's socket was open, and it was not told.
        faults: the ids of those of which something is wrong, by what it is.
    """

    kills: int
    accepted: int
    finished: int
    failed: int
    cancelled: int
    waiting: int
    lost: int
    finished_twice: int
    unheard: int
    faults: Mapping[str, Sequence[str]]

    @property
    def sound(self) -> bool:
        """Whether every promise was kept."""
        return not self.faults


def run(
    kills: int, seed: int, *, forget: bool = False, folder: Path | None = None, json_output: bool = False
) -> Report:
    """Kill each side so often, and print the account. `folder` keeps logs and journal."""
    with tempfile.TemporaryDirectory(prefix="comfykeep-chaos-", ignore_cleanup_errors=True) as name:
        report = asyncio.run(measure(folder or Path(name), kills, seed, forget=forget))
    if json_output:
        print(json.dumps(asdict(report)))  # noqa: T201 - what the command is for
        return report
    console = Console(highlight=False)
    console.print(
        f"Proxy and ComfyUI were killed {report.kills} times each, while {CLIENTS} clients worked (seed {seed})."
    )
    for name, number in asdict(report).items():
        if name not in {"kills", "faults"}:
            console.print(f"{number:8,} {name.replace('_', ' ')}")
    for name, prompt_ids in report.faults.items():
        console.print(f"{name.replace('_', ' ')}: {', '.join(prompt_ids)}")
    return report


async def measure(folder: Path, kills: int, seed: int, *, forget: bool = False) -> Report:
    """Play it in `folder`, which keeps what is left of it."""
    return await suffer(folder, seed, lambda victims, chance: _kill(victims, kills, chance), forget=forget)


async def suffer(folder: Path, seed: int, villain: Villain, *, forget: bool = False) -> Report:
    """Let clients work as long as the villain does, and account for what they were promised."""
    chance = random.Random(seed)
    async with running(folder, forget=forget) as victims:
        clients = [Client(victims.url, victims.session, random.Random(chance.random())) for _ in range(CLIENTS)]
        async with asyncio.TaskGroup() as group:
            listening = [group.create_task(client.listen()) for client in clients]
            working = [group.create_task(client.work()) for client in clients]
            await villain(victims, chance)
            for client in clients:
                client.finish()
            await _until_settled(victims, working)
            for task in listening:
                task.cancel()
        return await _account(victims, clients)


async def _kill(victims: Victims, kills: int, chance: random.Random) -> None:
    """Kill each side so often."""
    plan = [side for side in Side for _ in range(kills)]
    chance.shuffle(plan)
    while plan:
        await asyncio.sleep(chance.random() * _CALM)
        dead = [plan.pop()]
        if CAN_HANG and chance.random() < _HUNG_SHARE:
            await _hang(victims, dead[0], chance)
        await victims.kill(dead[0])
        if plan and plan[-1] is not dead[0] and chance.random() < _BOTH_SHARE:
            dead.append(plan.pop())
            await victims.kill(dead[1])
            chance.shuffle(dead)
        for side in dead:
            await victims.start(side)
        await victims.until_up()


async def _hang(victims: Victims, side: Side, chance: random.Random) -> None:
    victims.freeze(side)
    await asyncio.sleep(chance.random() * _HUNG)
    if chance.random() < 0.5:  # noqa: PLR2004 - one way or the other
        victims.thaw(side)
        await asyncio.sleep(chance.random() * _CALM)


async def _until_settled(victims: Victims, working: Sequence[asyncio.Task[None]]) -> None:
    """Wait until nothing is in the queue any more, or for so long that nothing more is to be expected."""
    await asyncio.wait(working)
    deadline = time.monotonic() + _SETTLING
    while time.monotonic() < deadline and await _waiting(victims):  # noqa: ASYNC110 - of another process
        await asyncio.sleep(0.1)
    await asyncio.sleep(_UNWRITTEN)  # the last events are on their way


async def _waiting(victims: Victims) -> frozenset[str]:
    queue = await _get(victims, "/queue")
    return frozenset(item[1] for items in queue.values() for item in items)


async def _get(victims: Victims, path: str) -> Any:
    async with victims.session.get(victims.url + path) as response:
        if not response.ok:
            raise BenchError(f"GET {path} answers {response.status}: {await response.text()}")
        return json.loads(await response.text())


async def _account(victims: Victims, clients: Sequence[Client]) -> Report:
    waiting, history = await _waiting(victims), await _get(victims, "/history")
    found: dict[str, list[str]] = defaultdict(list)
    for client in clients:
        for account in client.accounts.values():
            if account.accepted:
                entry = history.get(account.prompt_id)
                found["accepted"].append(account.prompt_id)
                found[_fate(account, waiting, entry)].append(account.prompt_id)
                if _ran_needlessly(victims, account):
                    found["finished_twice"].append(account.prompt_id)
                if _is_unheard(account, client.spans, entry):
                    found["unheard"].append(account.prompt_id)
    faults = {name: found[name] for name in ("waiting", "lost", "finished_twice", "unheard") if found[name]}
    return Report(
        kills=len(victims.killed[Side.PROXY]),
        accepted=len(found["accepted"]),
        finished=len(found["finished"]),
        failed=len(found["failed"]),
        cancelled=len(found["cancelled"]),
        waiting=len(found["waiting"]),
        lost=len(found["lost"]),
        finished_twice=len(found["finished_twice"]),
        unheard=len(found["unheard"]),
        faults=faults,
    )


def _fate(account: Account, waiting: frozenset[str], entry: Any) -> str:
    if entry is not None:
        status = entry["status"]
        if status["status_str"] == "success":
            return "finished"
        kinds = dict(status["messages"])
        if "execution_interrupted" in kinds and account.cancelled:
            return "cancelled"
        own = "asked to fail" in kinds.get("execution_error", {}).get("exception_message", "")
        return "failed" if own and not account.sound else "lost"
    if account.prompt_id in waiting:
        return "waiting"
    return "cancelled" if account.cancelled else "lost"


def _ran_needlessly(victims: Victims, account: Account) -> bool:
    """It ran to its end again: nothing had died meanwhile that knew of the first end, or its client had heard of it."""
    saved = sorted(file.stat().st_mtime for file in victims.saved.glob(f"{account.prompt_id}_*.png"))
    for first, second in pairwise(saved):
        if not any(first <= death <= second for death in victims.killed[Side.COMFYUI]):
            return True
        for kind, at in account.heard:
            if kind == "execution_success" and first <= at < second and not _died_with_the_news(victims, first, at):
                return True
    return False


def _died_with_the_news(victims: Victims, first: float, at: float) -> bool:
    """Whether the proxy may have had no time to write the end down, and ComfyUI died too before it was asked again."""
    for death in victims.killed[Side.PROXY]:
        if at <= death and victims.worked(Side.PROXY, at, death) <= _UNWRITTEN:
            asked_again = min((moment for moment in victims.up if moment > death), default=math.inf)
            return any(first <= other <= asked_again for other in victims.killed[Side.COMFYUI])
    return False


def _is_unheard(account: Account, spans: Sequence[Span], entry: Any) -> bool:
    """Its client listened all the time of its last run and a while after, and heard nothing of its end."""
    messages = {} if entry is None else dict(entry["status"]["messages"])
    times = [data["timestamp"] / _MILLISECONDS for data in messages.values()]
    if not times:
        return False
    listened = any(span.since <= min(times) and max(times) + _UNWRITTEN <= span.until for span in spans)
    return listened and not any(min(times) - _UNWRITTEN <= at for _, at in account.heard)
