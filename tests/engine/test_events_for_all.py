"""Hazard: an event for everybody is lost, or comes to somebody twice, because the proxy's own socket gets it too."""

from pathlib import Path

import pytest
from hypothesis import given as given_that
from hypothesis import strategies as st

from proxy.core.mode import Mode
from proxy.engine.twins import Twins
from tests.contract.client import Client
from tests.contract.prompts import Prompt, link, node
from tests.contract.sockets import Binary, Event, Socket
from tests.engine.stage import staged


def events(to: str, salt: int) -> Prompt:
    """Nodes that send events of their own, "client" to the prompt's and "broadcast" to all."""
    return {
        "1": node("PrimitiveString", value=f"{salt}"),
        f"2 {to}": node("FakeCustomEvent", value=link("1"), to=to, salt=salt),
        f"3 {to}": node("FakeBinary", value=link(f"2 {to}"), steps=2, to=to, salt=salt),
        "4": node("PreviewAny", source=link(f"3 {to}")),
    }


def own_events(socket: Socket) -> list[Event | Binary]:
    return [frame for frame in socket.frames if isinstance(frame, Binary) or frame.kind == "fake.event"]


async def heard(client: Client) -> list[list[Event | Binary]]:
    """What two clients hear of custom nodes: in prompts of nobody, of the first, and of nobody again."""
    async with client.socket("one") as one, client.socket("two") as two:
        for salt, client_id in enumerate([None, "one", None]):
            for to in ("client", "broadcast", "client"):
                prompt_id = (await client.submit(events(to, salt), client_id))["prompt_id"]
                await client.history(prompt_id)
        for socket in (one, two):
            await client.run({"1": node("PreviewAny", source="all came before this")}, socket)
        return [own_events(one), own_events(two)]


@pytest.mark.parametrize("mode", [Mode.PINS, Mode.FULL, Mode.OBSERVE])
async def test_events_of_custom_nodes_come_to_each_as_often_as_direct(mode: Mode, tmp_path: Path) -> None:
    async with staged(mode, tmp_path) as stage:
        direct = await heard(stage.direct)
        assert [len(frames) for frames in direct] == [45, 33]
        assert await heard(stage.client) == direct


def test_an_event_of_a_client_is_not_taken_for_a_twin() -> None:
    twins = Twins(lambda: ["a"])
    assert twins.on_own("x", None, given=True) == frozenset()
    twins.forget("a")
    assert not twins.on_clients("a", "x")


def test_who_has_left_is_forgotten() -> None:
    connected = ["a"]
    twins = Twins(lambda: connected)
    twins.on_own("x", None, given=True)
    connected.clear()
    twins.on_own("y", None, given=True)
    connected.append("a")
    assert not twins.on_clients("a", "x")


@given_that(
    st.lists(st.tuples(st.sampled_from("xyz"), st.booleans()), max_size=12),
    st.lists(st.sampled_from(["own", "a", "b"]), max_size=40),
)
def test_of_what_comes_on_all_sockets_each_client_gets_every_frame_once(
    frames: list[tuple[str, bool]], turns: list[str]
) -> None:
    """However the sockets overtake each other, as long as each keeps its order."""
    waiting = {socket: list(frames) for socket in ("own", "a", "b")}
    got: dict[str, list[str]] = {"a": [], "b": []}
    twins = Twins(lambda: list(got))
    for socket in [*turns, *["own", "a", "b"] * len(frames)]:
        if not waiting[socket]:
            continue
        frame, given = waiting[socket].pop(0)
        if socket == "own":
            had = twins.on_own(frame, None, given=given)
            for client in got.keys() - had if given else ():
                got[client].append(frame)
        elif not twins.on_clients(socket, frame):
            got[socket].append(frame)
    once = sorted(frame for frame, _ in frames)
    assert {client: sorted(taken) for client, taken in got.items()} == dict.fromkeys(got, once)
