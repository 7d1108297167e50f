"""Hazard: a frame is read wrongly, or comes out as other bytes than it went in."""

import json
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.wire.frames import (
    BinaryFrame,
    BinaryType,
    Message,
    Opaque,
    Preview,
    PreviewWithMetadata,
    ProgressText,
    build_text,
    parse_binary,
    parse_text,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
frames = st.one_of(
    st.builds(Preview, st.integers(0, 2**32 - 1), st.binary()),
    st.builds(ProgressText, st.text(st.characters(codec="utf-8")), st.binary()),
    st.builds(PreviewWithMetadata, st.dictionaries(st.text(), json_values), st.binary()),
)


@given(frames)
def test_what_is_built_is_read_again(frame: BinaryFrame) -> None:
    assert parse_binary(frame.build()) == frame


@given(st.binary())
@example(b"")
@example(struct.pack(">II", 4, 10) + b"short")
@example(struct.pack(">II", 3, 2) + b"\xff\xff")
@example(struct.pack(">II", 4, 2) + b"[]image")
@example(struct.pack(">II", 4, 1) + b"{image")
def test_any_bytes_are_a_frame_and_stay_it(raw: bytes) -> None:
    frame = parse_binary(raw)
    if not isinstance(
        frame, PreviewWithMetadata
    ):  # JSON may be written in many ways; such a frame is built only if changed
        assert frame.build() == raw


@pytest.mark.parametrize("kind", [0, 2, 5, 2**32 - 1])
def test_unknown_types_are_opaque(kind: int) -> None:
    raw = struct.pack(">II", kind, 1) + b"whatever"
    assert parse_binary(raw) == Opaque(raw)


def test_frames_as_comfyui_writes_them() -> None:
    assert parse_binary(bytes.fromhex("00000001 00000002") + b"png") == Preview(2, b"png")
    assert parse_binary(bytes.fromhex("00000003 00000003") + b"4:7text") == ProgressText("4:7", b"text")
    metadata = {"node_id": "7", "image_type": "image/jpeg"}
    header = json.dumps(metadata).encode()
    raw = struct.pack(">II", BinaryType.PREVIEW_WITH_METADATA, len(header)) + header + b"jpeg"
    frame = parse_binary(raw)
    assert frame == PreviewWithMetadata(metadata, b"jpeg")
    assert frame.build() == raw


@given(st.text(), json_values)
def test_text_frames_are_read_again(kind: str, data: object) -> None:
    raw = build_text(kind, data)
    assert parse_text(raw) == Message(kind, data, raw)


def test_nan_infinity_and_large_integers_are_read() -> None:
    message = parse_text('{"type": "x", "data": [Infinity, 18446744073709551615, NaN]}')
    assert message is not None
    assert message.data[:2] == [float("inf"), 2**64 - 1]
    assert message.data[2] != message.data[2]


@pytest.mark.parametrize("raw", ["", "nothing", "[]", '"x"', "{}", '{"type": 1}', '{"type": null}', "[" * 100_000])
def test_what_is_no_message_is_none(raw: str) -> None:
    assert parse_text(raw) is None


def test_a_message_without_data_has_none() -> None:
    assert parse_text('{"type": "x"}') == Message("x", None, '{"type": "x"}')
