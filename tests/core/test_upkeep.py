"""ComfyUI is blamed for what only a new process can mend, and for nothing else."""

from dataclasses import replace

import pytest

from proxy.core.upkeep import (
    GIB,
    POISON,
    RECYCLE,
    WARM_UP,
    Alert,
    Command,
    Drained,
    Event,
    Excused,
    Failed,
    Go,
    Reborn,
    Repeat,
    Resident,
    Restart,
    Settings,
    Stepped,
    Stop,
    Succeeded,
    Tell,
    Tick,
    Upkeep,
    Warmed,
)

ASSERT = Failed("p", "a", "RuntimeError", "CUDA error: device-side assert triggered\nCUDA kernel errors might be ...")
A, B, C = (Failed(f"p{graph}", graph, "RuntimeError", "no reason given") for graph in "abc")
OWN = Failed("q", "d", "ValueError", "no")


def play(upkeep: Upkeep, *events: Event) -> list[Command]:
    """All commands; a second passes before each event."""
    return [command for second, event in enumerate(events, 1) for command in upkeep.handle(event, float(second))]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("RuntimeError", "CUDA error: an illegal memory access was encountered"),
        ("torch.AcceleratorError", "CUDA error: no kernel image is available for execution on the device"),
        ("RuntimeError", "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        ("RuntimeError", "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`"),
        ("RuntimeError", "HIP error: unspecified launch failure"),
        ("RuntimeError", "CUDA unknown error - this may be due to an incorrectly set up environment, ..."),
        ("RuntimeError", "CUDA driver error: device not ready"),
        ("RuntimeError", "No CUDA GPUs are available"),
        ("RuntimeError", "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU and ..."),
    ],
)
def test_a_fatal_device_error_stops_the_queue_at_once(kind: str, message: str) -> None:
    upkeep = Upkeep(Settings())
    why = f"{kind}: {message}"
    assert play(upkeep, Failed("p", "a", kind, message)) == [Stop(POISON, why), Repeat("p"), Alert(why)]
    assert upkeep.poisoned == why


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("torch.OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB"),
        ("torch.AcceleratorError", "CUDA error: out of memory"),
        ("RuntimeError", "CUDA driver error: out of memory"),
        ("RuntimeError", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        ("FileNotFoundError", "No such file: a.png"),
        ("json.decoder.JSONDecodeError", "Expecting value: line 1 column 1 (char 0)"),
        ("RuntimeError", "mat1 and mat2 shapes cannot be multiplied (77x2048 and 768x320)"),
        ("RuntimeError", "ERROR: clip input is invalid: None"),
    ],
)
def test_want_of_memory_and_faults_of_prompts_are_told_at_once_and_do_not_count(kind: str, message: str) -> None:
    failures = [Failed(graph, graph, kind, message) for graph in "abcde"]
    assert play(Upkeep(Settings()), *failures) == [Tell(graph) for graph in "abcde"]


def test_three_graphs_that_fail_in_a_row_stop_it_and_are_all_repeated() -> None:
    stop, *repeats, alert = play(Upkeep(Settings()), A, B, OWN, C)[1:]
    assert isinstance(stop, Stop)
    assert "3 different workflows failed in a row" in stop.why
    assert repeats == [Repeat("pa"), Repeat("pb"), Repeat("pc")]
    assert alert == Alert(stop.why)


def test_a_success_shows_that_the_failures_before_it_were_their_own() -> None:
    assert play(Upkeep(Settings()), A, B, Succeeded(), C) == [Tell("pa"), Tell("pb")]


def test_a_graph_that_fails_again_is_its_own_fault() -> None:
    again = replace(A, prompt_id="another")
    assert play(Upkeep(Settings()), A, again, B) == [Tell("pa")]
    stop, *repeats, _ = play(Upkeep(Settings()), A, B, again, C)[1:]
    assert repeats == [Repeat("pb"), Repeat("another"), Repeat("pc")], "the first has been told"
    assert isinstance(stop, Stop)


def test_what_failed_in_an_earlier_comfyui_too_is_its_own_fault() -> None:
    again = [replace(failed, again=True) for failed in (A, B, C)]
    assert play(Upkeep(Settings()), *again) == [Tell("pa"), Tell("pb"), Tell("pc")]
    assert play(Upkeep(Settings()), replace(ASSERT, again=True))[1] == Repeat("p")


def test_paid_nodes_fail_far_away() -> None:
    paid = [replace(failed, type="Exception", paid=True) for failed in (A, B, C)]
    assert play(Upkeep(Settings()), *paid) == [Tell("pa"), Tell("pb"), Tell("pc")]


def test_where_nothing_follows_nothing_is_kept_back() -> None:
    assert play(Upkeep(Settings()), replace(A, alone=True)) == [Tell("pa")]
    assert play(Upkeep(Settings()), A, replace(B, alone=True)) == [Tell("pa"), Tell("pb")]
    assert play(Upkeep(Settings()), A, B, replace(C, alone=True))[1:4] == [Repeat("pa"), Repeat("pb"), Repeat("pc")]


def test_nobody_waits_long_for_an_end() -> None:
    upkeep = Upkeep(Settings())
    assert list(upkeep.handle(A, 1.0)) == []
    assert list(upkeep.handle(Drained(), 10.9)) == []
    assert list(upkeep.handle(Drained(), 11.0)) == [Tell("pa")], "nothing comes that could tell"
    assert list(upkeep.handle(B, 20.0)) == []
    assert list(upkeep.handle(Tick(), 31.0)) == [], "something runs"
    assert list(upkeep.handle(Stepped(), 32.0)) == []
    assert list(upkeep.handle(Tick(), 33.0)) == [Tell("pb")], "and computes"
    stop, repeat, _ = upkeep.handle(C, 40.0)
    assert isinstance(stop, Stop), "they were told, and count all the same"
    assert repeat == Repeat("pc")


def test_nobody_waits_longer_than_a_minute() -> None:
    upkeep = Upkeep(Settings())
    assert list(upkeep.handle(A, 0.0)) == []
    assert list(upkeep.handle(B, 50.0)) == []
    assert list(upkeep.handle(Tick(), 59.9)) == []
    assert list(upkeep.handle(Tick(), 60.0)) == [Tell("pa"), Tell("pb")]


def test_a_new_comfyui_begins_a_new_row() -> None:
    assert play(Upkeep(Settings()), A, B, Reborn(), C, Succeeded()) == [Tell("pc")]


def test_it_is_restarted_once_and_goes_on_when_it_is_back() -> None:
    upkeep = Upkeep(Settings(can_restart=True))
    _, repeat, restart = play(upkeep, ASSERT)
    assert restart == Restart("RuntimeError: CUDA error: device-side assert triggered")
    assert upkeep.handle(ASSERT, 2.0) == (repeat,)
    assert upkeep.handle(A, 2.0) == (Repeat("pa"),)
    assert upkeep.handle(Tick(), 30.0) == ()
    assert upkeep.handle(Tick(), 61.0) == (restart,), "it did not come back"
    assert upkeep.handle(Reborn(), 70.0) == (Go(POISON),)
    assert upkeep.poisoned is None
    assert upkeep.handle(Reborn(), 71.0) == ()


def test_restarts_have_time_between_them() -> None:
    upkeep = Upkeep(Settings(can_restart=True))
    play(upkeep, ASSERT, Reborn())
    assert [type(command) for command in upkeep.handle(ASSERT, 10.0)] == [Stop, Repeat]
    assert [type(command) for command in upkeep.handle(Tick(), 62.0)] == [Restart]


def test_the_operator_may_let_it_go_on() -> None:
    upkeep = Upkeep(Settings())
    play(upkeep, ASSERT)
    assert upkeep.handle(Excused(), 5.0) == (Go(POISON),)
    assert play(upkeep, B) == []


def test_recycling_waits_until_nothing_runs() -> None:
    upkeep = Upkeep(Settings(can_restart=True, recycle_after=2))
    assert play(upkeep, Succeeded(), OWN) == [Tell("q"), Stop(RECYCLE, "it has run 2 prompts")]
    assert play(upkeep, Tick(), Succeeded(), Drained(), Drained()) == [Restart("it has run 2 prompts")]
    assert play(upkeep, Warmed()) == []
    stop, resumed = play(upkeep, Reborn(), Succeeded(), Drained())
    assert isinstance(stop, Stop)
    assert (stop.by, resumed) == (WARM_UP, Go(RECYCLE)), "stopped all the time"
    assert play(upkeep, Warmed(), Warmed()) == [Go(WARM_UP)]


def test_the_operator_does_not_wait_for_warm_ups() -> None:
    upkeep = Upkeep(Settings(can_restart=True, recycle_after=1))
    play(upkeep, Succeeded(), Drained(), Reborn())
    assert play(upkeep, Excused(), Warmed()) == [Go(WARM_UP)]


def test_the_operator_may_let_it_go_on_where_a_restart_for_its_age_does_not_come_about() -> None:
    upkeep = Upkeep(Settings(can_restart=True, recycle_after=2))
    stop, restart = Stop(RECYCLE, "it has run 2 prompts"), Restart("it has run 2 prompts")
    assert play(upkeep, Succeeded(), Succeeded(), Drained()) == [stop, restart]
    assert play(upkeep, Excused(), Excused()) == [Go(RECYCLE)]
    assert list(upkeep.handle(Drained(), 100.0)) == [], "it is not to be restarted any more"
    assert play(upkeep, Succeeded()) == [], "its runs count anew"
    assert play(upkeep, Succeeded()) == [stop]
    assert list(upkeep.handle(Drained(), 200.0)) == [restart]


def test_one_that_the_operator_lets_go_on_may_be_large_until_there_is_a_new_one() -> None:
    upkeep = Upkeep(Settings(can_restart=True, recycle_bytes=8 * GIB))
    assert play(upkeep, Excused()) == []
    large = Resident(9 * GIB)
    stop = Stop(RECYCLE, "it has 9.0 GB of memory resident")
    assert play(upkeep, large, Excused(), large, large) == [stop, Go(RECYCLE)]
    assert play(upkeep, Reborn(), large) == [stop]


def test_the_operator_lets_a_broken_one_go_on_that_was_to_be_recycled() -> None:
    upkeep = Upkeep(Settings(can_restart=True, recycle_after=1))
    play(upkeep, Succeeded(), ASSERT)
    assert play(upkeep, Excused()) == [Go(POISON), Go(RECYCLE)]


@pytest.mark.parametrize("event", [Tick(), Drained()])
def test_when_the_command_is_taken_away_the_queue_goes_on(event: Event) -> None:
    upkeep = Upkeep(Settings(can_restart=True, recycle_after=1))
    play(upkeep, Succeeded())
    upkeep.settings = Settings(recycle_after=1)
    assert play(upkeep, event, event, Succeeded()) == [Go(RECYCLE)]


def test_after_poison_nothing_waits_for_warm_ups() -> None:
    upkeep = Upkeep(Settings(can_restart=True))
    play(upkeep, ASSERT)
    assert play(upkeep, Reborn()) == [Go(POISON)]


def test_a_comfyui_that_has_grown_is_recycled() -> None:
    upkeep = Upkeep(Settings(can_restart=True, recycle_bytes=8 * GIB))
    assert play(upkeep, Resident(8 * GIB - 1)) == []
    why = "it has 9.0 GB of memory resident"
    assert play(upkeep, Resident(9 * GIB), Resident(10 * GIB), Drained()) == [Stop(RECYCLE, why), Restart(why)]


def test_without_a_command_nothing_is_recycled() -> None:
    assert play(Upkeep(Settings(recycle_after=1)), Succeeded(), Drained()) == []
