"""Just enough PNG: write RGB images with text chunks, read size and text back.

Saved images carry the prompt that made them, in text chunks, and clients read it from there. An imaging library would
be a dependency for this alone.
"""

import struct
import zlib
from collections.abc import Iterable

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_RGB = 2
_IHDR_SIZE = struct.Struct(">II")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _text_chunk(key: str, text: str) -> bytes:
    """As Pillow's PngInfo.add_text: latin-1 text plain, anything else as international text."""
    name = key.encode("latin-1", "replace")
    try:
        return _chunk(b"tEXt", name + b"\0" + text.encode("latin-1"))
    except UnicodeEncodeError:
        return _chunk(b"iTXt", name + b"\0\0\0\0\0" + text.encode())


def encode(width: int, height: int, rgb: tuple[int, int, int], texts: Iterable[tuple[str, str]] = ()) -> bytes:
    """An image of one colour.

    Args:
        width: pixels, at least 1.
        height: pixels, at least 1.
        rgb: the colour, each 0 to 255.
        texts: text chunks in the order they are written; a key may come twice.
    """
    header = _IHDR_SIZE.pack(width, height) + bytes((8, _RGB, 0, 0, 0))
    row = b"\0" + bytes(rgb) * width
    packer = zlib.compressobj(level=1)
    pixels = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    text = b"".join(_text_chunk(key, value) for key, value in texts)
    return _SIGNATURE + _chunk(b"IHDR", header) + text + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def _chunks(data: bytes) -> Iterable[tuple[bytes, bytes]]:
    at = len(_SIGNATURE)
    while at + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        yield data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        at += 12 + length


def size(data: bytes) -> tuple[int, int] | None:
    """Width and height, or None where `data` is no PNG."""
    if not data.startswith(_SIGNATURE):
        return None
    for kind, body in _chunks(data):
        if kind == b"IHDR" and len(body) >= _IHDR_SIZE.size:
            width, height = _IHDR_SIZE.unpack_from(body)
            return width, height
    return None


def texts(data: bytes) -> list[tuple[str, str]]:
    """All text chunks (uncompressed ones) in file order."""
    found: list[tuple[str, str]] = []
    for kind, body in _chunks(data):
        key, _, rest = body.partition(b"\0")
        if kind == b"tEXt":
            found.append((key.decode("latin-1"), rest.decode("latin-1")))
        elif kind == b"iTXt":
            found.append((key.decode("latin-1"), rest[2:].split(b"\0", 2)[2].decode()))
    return found
