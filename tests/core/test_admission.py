"""Prompts of an earlier process: what may have happened to them in between."""

import pytest

from proxy.core import commands as do
from proxy.core import events as ev
from proxy.core.jobs import State
from proxy.core.settings import Settings
from tests.playbook import Playbook, line, ready, submit


@pytest.mark.parametrize(
    ("rerun_paid", "follows"), [(False, "End p1, failed [paid]"), (True, "Hold p1, attempts 1 [upstream-lost]")]
)
def test_a_paid_prompt_that_was_sent_may_have_started(rerun_paid: bool, follows: str) -> None:
    book = Playbook(Settings(rerun_paid=rerun_paid))
    book.when(ev.Restored(prompt=submit("p1", paid=True), number=1.0, submitted=0.0, state=State.DISPATCHING)).then()
    assert follows in _commands(book.scheduler.handle(ready(new_process=True), 1.0))


def test_a_paid_prompt_that_waited_runs() -> None:
    book = Playbook()
    book.when(ev.Restored(prompt=submit("p1", paid=True), number=1.0, submitted=0.0)).then()
    book.when(ready(new_process=True)).then("Dispatch p1")


def _commands(commands: list[do.Command]) -> list[str]:
    return [line(command, with_code=True) for command in commands]
