"""Hazard: attempts come in a storm, in step with each other, or ever more rarely."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.upstream.backoff import Backoff


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=50))
def test_delays_grow_to_the_ceiling_and_are_cut_by_half_at_most(dice: list[float]) -> None:
    throws = iter(dice)
    backoff = Backoff(lambda: next(throws), first=0.5, ceiling=4.0)
    for attempt in range(len(dice)):
        bound = min(4.0, 0.5 * 2**attempt)
        assert bound / 2 <= backoff.next() <= bound


def test_chance_decides_within_the_bounds() -> None:
    assert Backoff(lambda: 0.0, first=1.0).next() == 0.5
    assert Backoff(lambda: 0.5, first=1.0).next() == 0.75


def test_a_success_starts_over() -> None:
    backoff = Backoff(lambda: 0.0, first=1.0)
    assert [backoff.next() for _ in range(4)] == [0.5, 1.0, 2.0, 2.5]
    backoff.reset()
    assert backoff.next() == 0.5
