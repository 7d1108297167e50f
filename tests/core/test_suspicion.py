"""A prompt that ends ComfyUI before its start is heard fails in the end; who only stood by does not."""

import pytest

from proxy.core import events as ev
from proxy.core.settings import Settings, Validate
from tests.playbook import Playbook, ready, submit

AT_DISPATCH = Settings(validate=Validate.DISPATCH)


def at_comfyui(*names: str, paid: bool = False) -> Playbook:
    """ComfyUI has taken these."""
    play = Playbook(AT_DISPATCH)
    play.when(ready()).then()
    for name in names:
        play.when(submit(name, paid=paid)).then(f"Dispatch {name}, validating")
        play.when(ev.Dispatched(name)).then(f"Accept {name}")
    return play


def test_one_that_kills_unheard_fails_after_as_many_attempts_as_any_other() -> None:
    play = at_comfyui("killer", "next")
    for attempt in (1, 2):
        play.when(ev.UpstreamLost()).then()
        play.when(ready(new_process=True), after=30).then(
            f"Hold killer, attempts {attempt} [suspect]", "Hold next [upstream-lost]", "Dispatch killer"
        )
        play.when(ev.Dispatched("killer")).then("Dispatch next")
        play.when(ev.Dispatched("next")).then()
    play.when(ev.UpstreamLost()).then()
    play.when(ready(new_process=True)).then("End killer, failed [attempts-spent]", "Hold next", "Dispatch next")
    play.when(ev.Dispatched("next")).then()


def test_a_paid_one_that_may_have_started_is_not_run_again() -> None:
    play = at_comfyui("paid", paid=True)
    play.when(ev.UpstreamLost()).then()
    play.when(ready(new_process=True)).then("End paid, failed [paid]")


def test_behind_one_that_runs_nobody_is_to_blame() -> None:
    play = at_comfyui("runs", "next")
    play.when(ev.Started("runs")).then()
    play.when(ev.UpstreamLost()).then()
    play.when(ready(new_process=True)).then("Hold runs, attempts 1", "Hold next [upstream-lost]", "Dispatch runs")


def test_one_that_is_being_called_back_when_we_restart_comfyui_is_not_to_blame() -> None:
    play = at_comfyui("broken", "next")
    play.when(ev.Started("broken")).then()
    play.when(ev.Paused("poison")).then("Recall next")
    play.when(ev.Finished("broken", ev.Outcome.ERROR)).then("End broken, failed")
    for _ in range(AT_DISPATCH.max_attempts + 1):
        play.when(ev.UpstreamLost()).then()
        play.when(ready(new_process=True)).then("Hold next [upstream-lost]")
        play.when(ev.Resumed("poison")).then("Dispatch next")
        play.when(ev.Dispatched("next")).then()
        play.when(ev.Paused("poison")).then("Recall next")


def test_behind_one_that_is_being_cancelled_nobody_is_to_blame() -> None:
    play = at_comfyui("cancelled", "next")
    play.when(ev.CancelRequested("cancelled")).then("Recall cancelled")
    play.when(ev.UpstreamLost()).then()
    play.when(ready(new_process=True)).then("End cancelled, cancelled", "Hold next [upstream-lost]", "Dispatch next")


@pytest.mark.parametrize("running", [True, False])
def test_beside_a_stranger_nobody_is_to_blame(running: bool) -> None:
    play = at_comfyui("mine")
    play.when(ev.ForeignSeen("stranger", running)).then()
    play.when(ev.UpstreamLost()).then()
    play.when(ready(new_process=True)).then("Hold mine [upstream-lost]", "Dispatch mine")


def test_what_comfyui_has_certainly_never_seen_is_not_to_blame() -> None:
    play = Playbook(AT_DISPATCH)
    play.when(ready()).then()
    play.when(submit("a")).then("Dispatch a, validating")
    play.when(ev.DispatchUnclear("a", sent=False)).then("Locate a")
    play.when(ev.UpstreamLost()).then()
    play.when(ready(new_process=True)).then("Accept a, unchecked [upstream-lost]", "Dispatch a")


def test_a_broken_connection_to_a_comfyui_that_lives_on_counts_for_nothing() -> None:
    play = at_comfyui("a")
    play.when(ev.UpstreamLost()).then()
    play.when(ready(pending=("a",))).then()
    play.when(ev.Started("a")).then()
    play.when(ev.UpstreamLost()).then()
    play.when(ready(new_process=True)).then("Hold a, attempts 1 [upstream-lost]", "Dispatch a")


@pytest.mark.parametrize(("checked", "code"), [(("a",), "suspect"), (("a", "b"), "upstream-lost")])
def test_one_that_kills_while_it_is_checked_is_to_blame_if_it_was_the_only_one(
    checked: tuple[str, ...], code: str
) -> None:
    play = Playbook()
    play.when(ready()).then()
    play.when(submit("last")).then("Dispatch last, validating")
    play.when(ev.Dispatched("last")).then("Accept last")
    play.when(ev.Started("last")).then()
    play.when(submit("staged")).then("Dispatch staged, validating")
    play.when(ev.Dispatched("staged")).then("Accept staged")
    for name in checked:
        play.when(submit(name)).then(f"Probe {name}")
    play.when(ev.CancelRequested("staged", interrupt=False)).then("Recall staged")
    play.when(ev.RecallDone("staged", started=False)).then("End staged, cancelled")
    play.when(ev.Finished("last")).then("End last, finished")
    play.when(ev.UpstreamLost()).then()
    play.when(ready(new_process=True)).then(*(f"Accept {name}, unchecked [{code}]" for name in checked), "Dispatch a")
