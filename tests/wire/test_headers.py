"""Hazard: a header that concerns one connection travels on, or one that does not is lost or changed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.headers import (
    HOP_BY_HOP,
    NEVER_DROPPED,
    WEBSOCKET_HANDSHAKE,
    request_headers,
    response_headers,
    without_handshake,
)

names = st.text("abcXYZ-", min_size=1, max_size=8)
pairs = st.lists(st.tuples(names, st.text(max_size=10)))


def raw(headers: list[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode("utf-8", "surrogatepass")) for name, value in headers]


@given(st.lists(st.tuples(names.map(lambda name: "X-" + name), st.text(st.characters(codec="utf-8"), max_size=10))))
def test_end_to_end_headers_keep_order_case_and_duplicates(headers: list[tuple[str, str]]) -> None:
    assert request_headers(raw(headers)) == headers
    assert response_headers(raw(headers)) == headers


@pytest.mark.parametrize("name", sorted(HOP_BY_HOP))
@pytest.mark.parametrize("spell", [str.lower, str.upper, str.title])
def test_each_hop_by_hop_header_stays(name: str, spell: object) -> None:
    assert callable(spell)
    assert request_headers([(b"A", b"1"), (spell(name).encode(), b"x"), (b"B", b"2")]) == [("A", "1"), ("B", "2")]


def test_each_header_on_a_list_has_its_reason() -> None:
    for listed in (HOP_BY_HOP, NEVER_DROPPED, WEBSOCKET_HANDSHAKE):
        assert all(reason and name == name.lower() for name, reason in listed.items())


def test_what_connection_names_stays_too() -> None:
    headers = [(b"Connection", b"close, X-One ,,x-TWO"), (b"connection", b"X-Three")]
    named = [(b"X-One", b"1"), (b"x-two", b"2"), (b"X-THREE", b"3")]
    assert request_headers([*headers, *named, (b"X-Four", b"4")]) == [("X-Four", "4")]


@pytest.mark.parametrize("name", sorted(NEVER_DROPPED))
def test_connection_cannot_take_the_guard_or_the_framing_away(name: str) -> None:
    assert request_headers([(b"Connection", name.encode()), (name.encode(), b"x")]) == [(name, "x")]


@given(st.binary(max_size=20))
def test_no_value_is_too_odd_to_read(value: bytes) -> None:
    ((_, text),) = request_headers([(b"X", value)])
    assert text.encode("utf-8", "surrogateescape") == value


@given(pairs)
def test_a_handshake_writes_its_own_headers(headers: list[tuple[str, str]]) -> None:
    handshake = [(name.title(), "x") for name in WEBSOCKET_HANDSHAKE]
    assert without_handshake([*handshake, *headers]) == headers
