"""ComfyUI is blamed for what only a new process can mend, and for nothing else."""

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
    Resident,
    Restart,
    Settings,
    Stop,
    Succeeded,
    Tick,
    Upkeep,
    Warmed,
)

ASSERT = Failed("a", "RuntimeError", "CUDA error: device-side assert triggered\nCUDA kernel errors might be ...")
SHAPE = "mat1 and mat2 shapes cannot be multiplied (77x2048 and 768x320)"


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
    ],
)
def test_a_fatal_device_error_stops_the_queue_at_once(kind: str, message: str) -> None:
    upkeep = Upkeep(Settings())
    why = f"{kind}: {message}"
    assert play(upkeep, Failed("a", kind, message)) == [Stop(POISON, why, spoils=True), Alert(why)]
    assert upkeep.poisoned == why


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("torch.OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB"),
        ("torch.AcceleratorError", "CUDA error: out of memory"),
        ("RuntimeError", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        ("FileNotFoundError", "No such file: a.png"),
    ],
)
def test_want_of_memory_and_faults_of_prompts_do_not(kind: str, message: str) -> None:
    assert play(Upkeep(Settings()), *[Failed("a", kind, message)] * 5) == []


def test_three_graphs_that_fail_in_a_row_stop_it() -> None:
    failures = [Failed(graph, "RuntimeError", SHAPE) for graph in "abc"]
    assert play(Upkeep(Settings()), failures[0], failures[1], Succeeded(), failures[2]) == []
    assert play(Upkeep(Settings()), failures[0], failures[0], failures[1]) == []
    stop, alert = play(Upkeep(Settings()), *failures)
    assert isinstance(stop, Stop)
    assert stop.spoils
    assert "3 different workflows failed in a row" in stop.why
    assert alert == Alert(stop.why)


def test_it_is_restarted_once_and_goes_on_when_it_is_back() -> None:
    upkeep = Upkeep(Settings(can_restart=True))
    stop, restart = play(upkeep, ASSERT)
    assert restart == Restart("RuntimeError: CUDA error: device-side assert triggered")
    assert upkeep.handle(ASSERT, 2.0) == (stop,)
    assert upkeep.handle(Tick(), 30.0) == ()
    assert upkeep.handle(Tick(), 61.0) == (restart,), "it did not come back"
    assert upkeep.handle(Reborn(), 70.0) == (Go(POISON),)
    assert upkeep.poisoned is None
    assert upkeep.handle(Reborn(), 71.0) == ()


def test_restarts_have_time_between_them() -> None:
    upkeep = Upkeep(Settings(can_restart=True))
    play(upkeep, ASSERT, Reborn())
    assert [type(command) for command in upkeep.handle(ASSERT, 10.0)] == [Stop]
    assert [type(command) for command in upkeep.handle(Tick(), 62.0)] == [Restart]


def test_the_operator_may_let_it_go_on() -> None:
    upkeep = Upkeep(Settings())
    play(upkeep, ASSERT)
    assert upkeep.handle(Excused(), 5.0) == (Go(POISON),)
    assert play(upkeep, Failed("b", "ValueError", "no")) == []


def test_recycling_waits_until_nothing_runs() -> None:
    upkeep = Upkeep(Settings(can_restart=True, recycle_after=2))
    assert play(upkeep, Succeeded(), Failed("a", "ValueError", "no")) == [Stop(RECYCLE, "it has run 2 prompts")]
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
