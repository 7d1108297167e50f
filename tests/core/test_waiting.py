"""The index of what waits: in ComfyUI's order, and as quick for ten thousand as for ten."""

from typing import Any, ClassVar

import pytest

from proxy.core.job import Job
from proxy.core.waiting import Level
from tests.playbook import models

WINDOW = 16


class Watched(Job):
    """A prompt that counts how often anything of any of its kind is looked at."""

    looks: ClassVar[int] = 0

    def __getattribute__(self, name: str) -> Any:
        Watched.looks += 1
        return super().__getattribute__(name)


def job(sequence: int, place: float | None = None, *, prompt_id: str = "") -> Watched:
    """With a place of its own, or where its submission puts it."""
    return Watched(
        prompt_id=prompt_id or f"p{sequence}",
        client=f"c{sequence % 3}",
        models=models("m"),
        sequence=sequence,
        number=float(sequence),
        place=float(sequence) if place is None else place,
        fixed=place is not None,
        priority=0,
        submitted=float(sequence),
    )


@pytest.mark.parametrize("waiting", [100, 10_000])
@pytest.mark.parametrize("given", ["no place", "each its own", "all the same"])
def test_the_work_does_not_grow_with_what_waits(waiting: int, given: str) -> None:
    level = Level(0)
    places = {"no place": None, "each its own": 7919.0, "all the same": 0.0}
    step = places[given]
    jobs = [job(number, None if step is None else number * step % waiting) for number in range(waiting)]
    for one in jobs:
        level.add(one)
    Watched.looks = 0
    assert level.oldest_but(()) == level.oldest_submitted == 0.0
    assert len(level.window(WINDOW, ())) == WINDOW
    level.remove(jobs[waiting // 2])
    level.add(jobs[waiting // 2])
    level.remove(jobs[0])
    assert level.oldest_submitted == 1.0
    assert Watched.looks < 400
    assert len(level) == waiting - 1


def test_equal_places_are_in_order_of_their_ids() -> None:
    level = Level(0)
    for sequence, prompt_id in enumerate(["b", "d", "a", "c"]):
        level.add(job(sequence, 7.0, prompt_id=prompt_id))
    assert [one.prompt_id for one in level] == ["a", "b", "c", "d"]
