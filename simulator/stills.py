"""Images that stand in where ComfyUI would encode one: previews while sampling, and converted views."""

from typing import NamedTuple


class Still(NamedTuple):
    """An encoded image on its way to a client."""

    kind: int
    """As in the frame of a preview (ComfyUI server.py, `send_image`): 1 JPEG, 2 PNG."""
    data: bytes

    @property
    def media_type(self) -> str:
        """As in the metadata of a preview."""
        return "image/png" if self.kind == PNG_KIND else "image/jpeg"


JPEG_KIND = 1
PNG_KIND = 2

JPEG = bytes.fromhex(
    "ffd8ffe000104a46494600010100000100010000ffdb0043001b12141714111b1716171e1c1b2028422b28252528513a3d3042605565645f55"
    "5d5b6a7899816a7190735b5d85b586909ea3abadab6780bcc9baa6c799a8aba4ffc0000b080008000801011100ffc400140001000000000000"
    "00000000000000000004ffc40014100100000000000000000000000000000000ffda0008010100003f003bffd9"
)
"""8 by 8 pixels, grey."""

SAMPLING = Still(JPEG_KIND, JPEG)
"""What a sampler shows of its work."""

WEBP = bytes.fromhex("524946461e000000574542505650384c110000002f000000000750b48215afff8188e87f0000")
"""One pixel, grey."""
