"""A stall is reported once, when nothing has moved for long enough while something waited."""

from proxy.core.stall import Stall


def test_a_stall_is_told_once_and_ends_with_a_movement() -> None:
    stall = Stall(600.0)
    assert not stall.look(0.0, busy=True)
    assert not stall.look(599.0, busy=True)
    assert stall.look(600.0, busy=True)
    assert not stall.look(700.0, busy=True)
    stall.moved(800.0)
    assert not stall.look(1399.0, busy=True)
    assert stall.look(1400.0, busy=True)


def test_who_has_nothing_to_do_does_not_stall() -> None:
    stall = Stall(600.0)
    stall.moved(0.0)
    assert not stall.look(1000.0, busy=False)
    assert not stall.look(1599.0, busy=True)
    assert stall.look(1600.0, busy=True)
    assert not stall.look(1700.0, busy=False)
    assert stall.since is None


def test_without_a_timeout_nothing_stalls() -> None:
    stall = Stall(0.0)
    stall.moved(0.0)
    assert not stall.look(1e9, busy=True)
