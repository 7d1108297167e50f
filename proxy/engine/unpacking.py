"""Compressed bodies, read as ComfyUI's server reads them (aiohttp http_parser.py, `DeflateBuffer`).

Submissions must be looked into like all others: what crashes ComfyUI crashes it compressed too. Orders must be
understood: what ComfyUI clears or frees is not here any more either.
"""

import zlib
from dataclasses import replace

from proxy.engine.submission import Submission
from proxy.errors import BodyTooLarge, DownstreamError

_NOT_READ_HERE = frozenset({"br", "zstd"})
"""Codings that ComfyUI's server may know, if packages for them are installed."""
_DEFLATE_METHOD = 8
"""The low four bits of a zlib header; without one, "deflate" means a raw stream."""


def unpacked(submission: Submission, limit: int) -> Submission | None:
    """The submission with a plain body of at most `limit` bytes; None when only ComfyUI may be able to read it.

    Raises:
        DownstreamError: 413 when it is larger, 400 when it is not what its header says.
    """
    coding = next((value for name, value in submission.headers if name.lower() == "content-encoding"), "")
    body = unpack(submission.body, coding, limit)
    if body is None:
        return None
    if body is submission.body:
        return submission
    return replace(submission, body=body, headers=tuple(submission.headers_without("content-encoding")))


def unpack(packed: bytes, coding: str, limit: int) -> bytes | None:
    """A body without its Content-Encoding, itself where it has none; None when only ComfyUI may be able to read it.

    Raises:
        DownstreamError: 413 when it has more than `limit` bytes, 400 when it is not what its header says.
    """
    coding = coding.lower()
    if coding in _NOT_READ_HERE:
        return None
    if coding not in {"gzip", "deflate"} or not packed:
        return packed
    if coding == "gzip":
        window = 16 + zlib.MAX_WBITS
    else:
        window = zlib.MAX_WBITS if packed[0] & 0xF == _DEFLATE_METHOD else -zlib.MAX_WBITS
    unpacker = zlib.decompressobj(window)
    try:
        body = unpacker.decompress(packed, limit + 1)
    except zlib.error as error:
        raise DownstreamError(
            f"The body is not valid {coding}, as its Content-Encoding says", type="invalid_encoding", details=str(error)
        ) from error
    if len(body) > limit:
        raise BodyTooLarge(limit)
    return body
