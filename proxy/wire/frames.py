"""What ComfyUI sends over its WebSocket, taken apart and put together again.

Node ids sit in three places: in the JSON of text frames, in the header of binary text frames, and in the metadata of
binary previews. A frame has to be opened only to change an id in it; everything else must stay the same bytes. So a
frame is parsed and built again only when something in it has to change, and what does not fit is left as it is.

Sources: ComfyUI protocol.py (`BinaryEventTypes`) and server.py (`encode_bytes`, `send_image`,
`send_image_with_metadata`, `send_progress_text`).
"""

import json
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeAlias

Frame: TypeAlias = str | bytes
"""One WebSocket message: text or binary."""

_UINT = struct.Struct(">I")


class BinaryType(IntEnum):
    """The first four bytes of a binary frame, big-endian. 2 is used inside ComfyUI only and never sent."""

    PREVIEW = 1
    TEXT = 3
    PREVIEW_WITH_METADATA = 4


@dataclass(frozen=True, slots=True)
class Preview:
    """A preview image without any id. `image_format`: 1 is JPEG, 2 is PNG."""

    image_format: int
    image: bytes

    def build(self) -> bytes:
        """The frame on the wire."""
        return _UINT.pack(BinaryType.PREVIEW) + _UINT.pack(self.image_format) + self.image


@dataclass(frozen=True, slots=True)
class ProgressText:
    """A line of text that belongs to a node. `text` stays bytes: a custom node may send what is no UTF-8."""

    node_id: str
    text: bytes

    def build(self) -> bytes:
        """The frame on the wire."""
        node_id = self.node_id.encode()
        return _UINT.pack(BinaryType.TEXT) + _UINT.pack(len(node_id)) + node_id + self.text


@dataclass(frozen=True, slots=True)
class PreviewWithMetadata:
    """A preview image with the node and the prompt it belongs to. `metadata` is a JSON object."""

    metadata: dict[str, Any]
    image: bytes

    def build(self) -> bytes:
        """The frame on the wire."""
        metadata = json.dumps(self.metadata).encode()
        return _UINT.pack(BinaryType.PREVIEW_WITH_METADATA) + _UINT.pack(len(metadata)) + metadata + self.image


@dataclass(frozen=True, slots=True)
class Opaque:
    """A binary frame of a type, or of a shape, that is not known here. It passes as it is."""

    raw: bytes

    def build(self) -> bytes:
        """The frame on the wire."""
        return self.raw


BinaryFrame: TypeAlias = Preview | ProgressText | PreviewWithMetadata | Opaque


def parse_binary(raw: bytes) -> BinaryFrame:
    """Take a binary frame apart. Never raises: what does not fit is `Opaque`."""
    if len(raw) < 2 * _UINT.size:
        return Opaque(raw)
    (kind,) = _UINT.unpack_from(raw, 0)
    (second,) = _UINT.unpack_from(raw, _UINT.size)
    body = raw[2 * _UINT.size :]
    match kind:
        case BinaryType.PREVIEW:
            return Preview(second, body)
        case BinaryType.TEXT if second <= len(body):
            return _progress_text(raw, body[:second], body[second:])
        case BinaryType.PREVIEW_WITH_METADATA if second <= len(body):
            return _preview_with_metadata(raw, body[:second], body[second:])
        case _:
            return Opaque(raw)


def _progress_text(raw: bytes, node_id: bytes, text: bytes) -> BinaryFrame:
    try:
        return ProgressText(node_id.decode(), text)
    except UnicodeDecodeError:
        return Opaque(raw)


def _preview_with_metadata(raw: bytes, header: bytes, image: bytes) -> BinaryFrame:
    try:
        metadata = json.loads(header)
    except ValueError:
        return Opaque(raw)
    return PreviewWithMetadata(metadata, image) if isinstance(metadata, dict) else Opaque(raw)


@dataclass(frozen=True, slots=True)
class Message:
    """A text frame `{"type": …, "data": …}`. `raw` is what came over the wire, to be passed on if nothing changes."""

    type: str
    data: Any
    raw: str


def parse_text(raw: str) -> Message | None:
    """Take a text frame apart; None if it is not a JSON object with a string as `type`. NaN and Infinity are read."""
    try:
        parsed = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(parsed, dict):
        return None
    kind = parsed.get("type")
    return Message(kind, parsed.get("data"), raw) if isinstance(kind, str) else None


def build_text(kind: str, data: Any) -> str:
    """A text frame as ComfyUI writes it (server.py `send_json`)."""
    return json.dumps({"type": kind, "data": data})
