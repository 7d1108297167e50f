"""Pins that make prompts start late are found by what differs between starts, and only those."""

from collections.abc import Callable, Iterable

import pytest

from normalizer import Chain
from normalizer.models import ModelRef
from proxy.core.start_delays import LATE, Start, StartDelays, kind_of


def chain(name: str) -> Chain:
    ref = ModelRef("Loader", (name,))
    return Chain(name, name, {name: {"class_type": "Loader", "inputs": {"name": name}}}, frozenset({ref}))


class Traffic:
    """Prompts of some kinds, each carrying what nothing speaks against; `costs` are the seconds of each pin."""

    def __init__(self, costs: dict[str, float], own: dict[int, float] | None = None) -> None:
        self.costs = costs
        self.own = own or {}
        self.delays = StartDelays()
        self.found: list[str] = []

    def send(self, kind: int, pins: Iterable[str]) -> list[str]:
        carried = [key for key in pins if self.delays.objection(key, kind) is None]
        self.start(kind, carried)
        return carried

    def start(self, kind: int, carried: Iterable[str]) -> None:
        seconds = 0.004 + self.own.get(kind, 0.0) + sum(self.costs.get(key, 0.0) for key in carried)
        slow = self.delays.saw(Start(kind, tuple(map(chain, carried)), seconds))
        if slow is not None:
            self.found.append(slow.key)


def in_turn(traffic: Traffic, keys: str, rounds: int) -> list[list[str]]:
    """Workflows, each with one model, in turn; each carries the models that were used before."""
    used: list[str] = []
    sent = []
    for _ in range(rounds):
        for kind, key in enumerate(keys):
            sent.append(traffic.send(kind, [other for other in used if other != key]))
            if key not in used:
                used.append(key)
    return sent


def test_the_slow_one_is_found_and_left_out_and_the_others_stay() -> None:
    traffic = Traffic({"b": 2.0}, own={1: 2.0})
    in_turn(traffic, "abcd", 8)
    assert traffic.found == ["b"]
    assert in_turn(traffic, "abcd", 2)[-4:] == [["c", "d"], ["a", "c", "d"], ["a", "d"], ["a", "c"]]
    (slow,) = traffic.delays.slow
    assert slow.seconds == pytest.approx(2.0)
    assert slow.models == frozenset({ModelRef("Loader", ("b",))})


@pytest.mark.parametrize("slow", ["a", "ab", "ac", "abcd", ""])
def test_several_slow_ones(slow: str) -> None:
    traffic = Traffic(dict.fromkeys(slow, 1.0), own={"abcd".index(key): 1.0 for key in slow})
    in_turn(traffic, "abcd", 20)
    assert sorted(traffic.found) == list(slow)


def test_pins_that_came_together_are_told_apart() -> None:
    traffic = Traffic({"b": 1.0})
    for _ in range(6):
        traffic.send(1, "abc")
    assert traffic.found == ["b"]
    assert traffic.send(1, "abc") == ["a", "c"]


def test_a_clients_own_slow_nodes_are_not_held_against_a_pin() -> None:
    traffic = Traffic({}, own={7: 5.0})
    for _ in range(4):
        traffic.send(7, "abc")
    assert traffic.found == []
    assert traffic.send(7, "abc") == ["a", "b", "c"]


def test_one_slow_start_proves_nothing() -> None:
    delays = StartDelays()
    delays.saw(Start(1, (), 0.01))
    assert delays.saw(Start(1, (chain("a"),), 9.0)) is None
    assert delays.objection("a", 1) is None


def test_quick_starts_acquit_for_good() -> None:
    traffic = Traffic({"a": LATE / 2})
    traffic.send(1, "a")
    traffic.own[1] = 3.0
    assert [traffic.send(1, "a") for _ in range(5)] == [["a"]] * 5
    assert traffic.found == []


def test_what_a_slow_pin_costs_is_not_blamed_on_others() -> None:
    """Prompts that were sent before it was found out still carry it."""
    traffic = Traffic({"a": 1.0})
    traffic.send(1, "")
    for _ in range(2):
        traffic.send(1, "a")
    assert traffic.found == ["a"]
    assert traffic.delays.objection("a", 1) == "its IS_CHANGED makes every prompt start 1.00 s later"
    for _ in range(3):
        traffic.start(1, "ab")
    assert traffic.send(1, "ab") == ["b"]
    assert traffic.found == ["a"]


def test_those_left_out_are_tried_only_where_there_is_something_to_compare_with() -> None:
    traffic = Traffic({"b": 1.0})
    traffic.send(1, "ab")
    traffic.send(1, "ab")
    assert traffic.send(2, "ab") == []
    assert traffic.send(1, "ab") == []
    assert traffic.send(2, "ab") == ["a"]
    assert traffic.send(1, "ab") == ["a", "b"]
    assert traffic.found == ["b"]


@pytest.mark.parametrize("pins", [lambda place: f"{place}", lambda _: ""])
def test_memory_is_bounded(pins: Callable[[int], str]) -> None:
    delays = StartDelays()
    for place in range(1000):
        delays.saw(Start(place % 300, (chain(pins(place)),), 0.0))
        delays.saw(Start(0, (chain(f"{place}"),), 0.0))
    assert len(delays._starts) == 256
    assert max(map(len, delays._starts.values())) <= 64


def test_kinds_are_told_by_the_clients_classes() -> None:
    def prompt(*classes: str) -> dict[str, object]:
        return {str(place): {"class_type": name, "inputs": {"seed": place}} for place, name in enumerate(classes)}

    assert kind_of(prompt("A", "B"), frozenset()) == kind_of(prompt("B", "A"), frozenset())
    assert kind_of(prompt("A", "B", "C"), frozenset({"2"})) == kind_of(prompt("A", "B"), frozenset())
    assert kind_of(prompt("A", "B"), frozenset()) != kind_of(prompt("A", "B", "B"), frozenset())
    assert kind_of({"1": None, "2": {}}, frozenset()) == kind_of({"2": {}}, frozenset())
