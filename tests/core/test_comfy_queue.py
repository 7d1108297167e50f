from typing import Any

import pytest

from proxy.core.comfy_queue import Waiting, behind, in_order

QUEUE = [Waiting(name, number, frozenset()) for name, number in {"a": 7, "b": 8, "low": 50.0, "high": -2.5}.items()]


def names(items: list[Waiting]) -> str:
    return " ".join(item.prompt_id for item in items)


def test_the_order_is_comfyuis_and_what_has_no_number_comes_last() -> None:
    unknown = [Waiting(name, None, frozenset()) for name in ("y", "x")]
    assert names(in_order([*unknown, *QUEUE, Waiting("aa", 7.0, frozenset())])) == "high a aa b low y x"


@pytest.mark.parametrize(
    ("number", "front", "after"),
    [
        (None, False, "low"),
        (None, True, "high a b low"),
        (7.5, False, "b low"),
        (7.5, True, "b low"),
        ("7.5", False, "b low"),
        (-100, False, "high a b low"),
        (100, False, ""),
        ("soon", False, ""),
        ([1], False, ""),
        (float("nan"), False, ""),
        (10**400, False, ""),
    ],
)
def test_what_runs_after_a_prompt_that_is_submitted_now(number: Any, after: str, *, front: bool) -> None:
    assert names(behind(QUEUE, number, front=front, counted=9)) == after


def test_of_what_has_no_number_nothing_is_foretold() -> None:
    assert behind([Waiting("x", None, frozenset())], None, front=True, counted=1) == []
