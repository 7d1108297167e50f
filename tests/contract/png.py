"""Just enough PNG to read what ComfyUI wrote into a picture, and to make one to upload."""

import struct
import zlib
from collections.abc import Iterator

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_RGBA = 6


def _chunks(picture: bytes) -> Iterator[tuple[bytes, bytes]]:
    if not picture.startswith(_SIGNATURE):
        raise AssertionError(f"no PNG: {picture[:20]!r}")
    at = len(_SIGNATURE)
    while at < len(picture):
        length, kind = struct.unpack(">I4s", picture[at : at + 8])
        yield kind, picture[at + 8 : at + 8 + length]
        at += 12 + length


def size(picture: bytes) -> tuple[int, int]:
    """Width and height in pixels."""
    head = next(data for kind, data in _chunks(picture) if kind == b"IHDR")
    width, height = struct.unpack(">II", head[:8])
    return width, height


def texts(picture: bytes) -> dict[str, str]:
    """The text chunks by name; of several with one name the last, as Pillow and ComfyUI's page read them."""
    return dict(_texts(picture))


def _texts(picture: bytes) -> Iterator[tuple[str, str]]:
    for kind, data in _chunks(picture):
        name, _, rest = data.partition(b"\0")
        if kind == b"tEXt":
            yield name.decode("latin-1"), rest.decode("latin-1")
        elif kind == b"iTXt":
            compressed, content = rest[0], rest[2:].split(b"\0", 2)[2]
            yield name.decode("latin-1"), (zlib.decompress(content) if compressed else content).decode()
        elif kind == b"zTXt":
            yield name.decode("latin-1"), zlib.decompress(rest[1:]).decode("latin-1")


def plain(width: int, height: int, pixel: bytes = b"\xff\x00\x00\x80") -> bytes:
    """A picture in one RGBA colour."""
    rows = (b"\0" + pixel * width) * height
    parts = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 8, _RGBA, 0, 0, 0),
        b"IDAT": zlib.compress(rows),
        b"IEND": b"",
    }
    return _SIGNATURE + b"".join(_chunk(kind, data) for kind, data in parts.items())


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
