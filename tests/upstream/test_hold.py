"""Hazard: a socket is closed under a running prompt, or kept for ever."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.upstream.dial import Knock
from proxy.upstream.hold import Hold
from tests.upstream.feeding import Clock

moves = st.lists(st.one_of(st.just("take"), st.just("give"), st.floats(0.1, 40)), max_size=40)


@given(moves)
def test_it_is_needed_while_prompts_are_outstanding_and_for_a_while_after(steps: list[str | float]) -> None:
    clock = Clock()
    told: list[float] = []
    hold = Hold(Knock("/ws"), clock.call_later, lambda: told.append(clock.now))
    count, until = 0, 0.0
    for step in steps:
        match step:
            case "take":
                count += 1
                hold.take()
            case "give":
                if count == 1:
                    until = clock.now + 30
                count = max(0, count - 1)
                hold.give(30)
            case float():
                clock.advance(step)
        assert hold.needed == (count > 0 or clock.now < until)
    hold.end()
    assert not hold.needed
    assert clock.pending() == 0
