"""PNG files that others can read: structure checked chunk by chunk, pixels unpacked."""

import struct
import zlib

from hypothesis import given, settings
from hypothesis import strategies as st

from simulator import png

KEYS = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=20)
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60)
BYTE = st.integers(0, 255)


def chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    found = []
    at = 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length]) == (zlib.crc32(kind + body),)
        found.append((kind, body))
        at += 12 + length
    return found


@settings(max_examples=50)
@given(
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    rgb=st.tuples(BYTE, BYTE, BYTE),
    texts=st.lists(st.tuples(KEYS, TEXTS), max_size=4),
)
def test_what_is_written_is_read(
    width: int, height: int, rgb: tuple[int, int, int], texts: list[tuple[str, str]]
) -> None:
    data = png.encode(width, height, rgb, texts)
    parts = chunks(data)
    assert parts[0][1] == struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    assert parts[-1] == (b"IEND", b"")
    (pixels,) = (body for kind, body in parts if kind == b"IDAT")
    assert zlib.decompress(pixels) == (b"\0" + bytes(rgb) * width) * height
    assert png.size(data) == (width, height)
    assert png.texts(data) == texts


def test_other_files_have_no_size() -> None:
    assert png.size(b"GIF89a") is None
    assert png.size(b"") is None
    assert png.size(b"\x89PNG\r\n\x1a\n") is None
