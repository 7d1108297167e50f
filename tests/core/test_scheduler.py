"""Scripts: what the scheduler wants done, event by event."""

from proxy.core import events as ev
from proxy.core.settings import Settings, Validate
from proxy.core.tiers import Tier
from tests.playbook import Playbook, ready, submit


def started(settings: Settings | None = None) -> Playbook:
    """ComfyUI is there, runs r and has s staged; both need model m, which is loaded."""
    play = Playbook(settings)
    play.shelf.put(Tier.HOT, "m")
    play.when(ready()).then()
    play.when(submit("r")).then("Dispatch r, validating")
    play.when(ev.Dispatched("r")).then("Accept r")
    play.when(ev.Started("r")).then()
    play.when(submit("s")).then("Dispatch s, validating")
    return play.when(ev.Dispatched("s")).then("Accept s")


def test_the_first_prompts_go_straight_to_comfyui() -> None:
    started()


def test_a_prompt_that_must_wait_is_probed_and_then_held() -> None:
    play = started()
    play.when(submit("a")).then("Probe a")
    play.when(ev.ProbeAccepted("a")).then("Accept a")
    play.when(ev.Finished("r", run_seconds=5.0), after=5).then("End r, finished", "Dispatch a")
    play.when(ev.Dispatched("a")).then()


def test_an_invalid_prompt_is_refused_by_a_probe() -> None:
    play = started()
    play.when(submit("a")).then("Probe a")
    play.when(ev.ProbeRefused("a")).then("Refuse a")


def test_an_invalid_prompt_is_refused_by_its_dispatch() -> None:
    play = Playbook()
    play.when(ready()).then()
    play.when(submit("a")).then("Dispatch a, validating")
    play.when(ev.DispatchRefused("a")).then("Refuse a")


def test_without_comfyui_prompts_are_taken_unchecked() -> None:
    play = Playbook()
    play.when(submit("a")).then("Accept a, unchecked")
    play.when(ready()).then("Dispatch a")
    play.when(ev.DispatchRefused("a")).then("End a, failed [invalid]")


def test_validation_at_dispatch_sends_no_probes() -> None:
    play = started(Settings(validate=Validate.DISPATCH))
    play.when(submit("a")).then("Accept a, unchecked")


def test_loaded_models_go_first() -> None:
    play = started()
    play.when(submit("x", "n")).then("Probe x")
    play.when(ev.ProbeAccepted("x")).then("Accept x")
    play.when(submit("y", "m")).then("Probe y")
    play.when(ev.ProbeAccepted("y")).then("Accept y")
    play.when(ev.Finished("r"), after=5).then("End r, finished", "Dispatch y [resident]")


def test_a_lost_comfyui_gives_everything_back_in_order() -> None:
    play = started()
    play.when(ev.UpstreamLost()).then()
    play.when(ready(new_process=True), after=30).then("Hold r, attempts 1", "Hold s", "Dispatch r [oldest]")


def test_what_is_staged_is_called_back_for_one_that_was_given_its_place() -> None:
    play = started(Settings(validate=Validate.DISPATCH))
    play.when(submit("a", "n")).then("Accept a, unchecked")
    play.when(submit("b", "m")).then("Accept b, unchecked")
    play.when(ev.Finished("r"), after=5).then("End r, finished", "Dispatch b [resident]")
    play.when(ev.Dispatched("b")).then()
    play.when(submit("c", "n", number=2.5)).then("Recall b [place]", "Accept c, unchecked")


def test_what_is_staged_is_called_back_when_the_run_before_it_takes_too_long_for_a_third() -> None:
    """`old` is passed by a and b, and stands behind them at ComfyUI: b must wait for it once a has run for long."""
    play = Playbook(Settings(depth=3, validate=Validate.DISPATCH, max_wait=8.0))
    play.shelf.put(Tier.HOT, "m")
    play.when(ready()).then()
    for name in ("r", "s", "t"):
        play.when(submit(name)).then(f"Dispatch {name}, validating")
        play.when(ev.Dispatched(name)).then(f"Accept {name}")
    for name, needs in (("old", "n"), ("a", "m"), ("b", "m")):
        play.when(submit(name, needs)).then(f"Accept {name}, unchecked")
    play.run("r", "End r, finished", "Dispatch a [resident]", seconds=1)
    play.when(ev.Dispatched("a")).then()
    play.run("s", "End s, finished", "Dispatch b [resident]", seconds=1)
    play.when(ev.Dispatched("b")).then()
    play.run("t", "End t, finished", "Dispatch old", seconds=1)
    play.when(ev.Dispatched("old")).then()
    play.when(ev.Started("a"), after=1).then()
    wakeup = play.scheduler.next_wakeup()
    assert wakeup is not None
    assert 4.0 < wakeup - play.now < 8.0
    play.when(ev.Tick(), after=wakeup - play.now).then("Recall old [time-is-up]")
    play.when(ev.RecallDone("old", started=False)).then("Hold old", "Recall b [time-is-up]")
    play.when(ev.RecallDone("b", started=False)).then("Hold b", "Dispatch old [overdue]")
    play.when(ev.Dispatched("old")).then("Dispatch b")
    play.when(ev.Dispatched("b")).then()
    assert play.scheduler.next_wakeup() is None


def test_nothing_wakes_the_queue_while_nothing_is_passed() -> None:
    play = started(Settings(validate=Validate.DISPATCH))
    play.when(submit("old", "n")).then("Accept old, unchecked")
    play.when(submit("a", "m")).then("Accept a, unchecked")
    assert play.scheduler.next_wakeup() is None
    play.run("r", "End r, finished", "Dispatch a [resident]", seconds=1)
    play.when(ev.Dispatched("a")).then()
    play.when(ev.Started("s")).then()
    assert play.scheduler.next_wakeup() is None, "s was there first: its run costs nobody anything"


def test_one_that_waits_for_a_verdict_on_the_one_before_it_is_passed_no_more_often_than_allowed() -> None:
    play = Playbook(Settings(depth=1, validate=Validate.DISPATCH, max_bypass=2))
    play.when(ready()).then()
    play.when(submit("first", order_key="k")).then("Dispatch first, validating")
    play.when(ev.Dispatched("first")).then("Accept first")
    play.when(ev.Started("first")).then()
    for name, key in (("second", "k"), ("a", None), ("b", None), ("c", None)):
        play.when(submit(name, order_key=key)).then(f"Accept {name}, unchecked")
    play.when(ev.Finished("first", ev.Outcome.DOUBTED, 5.0), after=5).then("Dispatch a")
    play.when(ev.Dispatched("a")).then()
    play.run("a", "End a, finished", "Dispatch b")
    play.when(ev.Dispatched("b")).then()
    play.run("b", "End b, finished")
    play.when(ev.Judged("first", spoiled=False)).then("End first, failed", "Dispatch second [overdue]")


def test_what_is_staged_is_called_back_for_one_that_waits_for_a_verdict_on_the_one_before_it() -> None:
    play = Playbook(Settings(depth=2, validate=Validate.DISPATCH, max_wait=8.0))
    play.when(ready()).then()
    for name, key in (("r", None), ("first", "k")):
        play.when(submit(name, order_key=key)).then(f"Dispatch {name}, validating")
        play.when(ev.Dispatched(name)).then(f"Accept {name}")
    play.when(ev.Started("r")).then()
    for name, key in (("s", None), ("second", "k"), ("a", None), ("b", None)):
        play.when(submit(name, order_key=key)).then(f"Accept {name}, unchecked")
    play.when(ev.Finished("r", run_seconds=1.0), after=1).then("End r, finished", "Dispatch s")
    play.when(ev.Dispatched("s")).then()
    play.when(ev.Started("first")).then()
    play.when(ev.Finished("first", ev.Outcome.DOUBTED, 1.0), after=1).then("Dispatch a")
    play.when(ev.Dispatched("a")).then()
    play.run("s", "End s, finished", "Dispatch b", seconds=1)
    play.when(ev.Dispatched("b")).then()
    play.when(ev.Started("a")).then()
    wakeup = play.scheduler.next_wakeup()
    assert wakeup is not None
    play.when(ev.Tick(), after=wakeup - play.now).then("Recall b [time-is-up]")
    play.when(ev.RecallDone("b", started=False)).then("Hold b")
    play.when(ev.Judged("first", spoiled=False)).then("End first, failed", "Dispatch second [overdue]")


def test_no_probe_is_sent_that_might_pass_one_that_waits_for_a_verdict_too_often() -> None:
    play = Playbook(Settings(depth=1, max_bypass=1))
    play.when(ready()).then()
    play.when(submit("first", order_key="k")).then("Dispatch first, validating")
    play.when(ev.Dispatched("first")).then("Accept first")
    play.when(ev.Started("first")).then()
    for name, place in (("second", {"order_key": "k"}), ("stays", {"number": -1})):
        play.when(submit(name, **place)).then(f"Probe {name}")
        play.when(ev.ProbeAccepted(name)).then(f"Accept {name}")
    play.when(ev.Finished("first", ev.Outcome.DOUBTED, 1.0), after=1).then("Dispatch stays [place]")
    play.when(ev.Dispatched("stays")).then()
    play.when(submit("a")).then("Probe a")
    play.when(ev.ProbeSlipped("a")).then("Accept a")
    play.when(ev.Finished("a", run_seconds=1.0), after=1).then("End a, finished")
    play.when(submit("b")).then("Accept b, unchecked")
