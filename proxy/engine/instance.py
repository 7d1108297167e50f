"""Which comfykeep this is, so that one that is told to front itself can see it.

An address does not show that: a machine has many, and a proxy that listens on all of them is reached at each. So the
process has a name, tells it to whoever asks, and asks the ComfyUI that it is to front.
"""

import secrets

from proxy.errors import UpstreamError
from proxy.upstream.client import UpstreamClient

INSTANCE = secrets.token_hex(8)
"""This process, as `GET /comfykeep/mode` tells it."""


async def asked_instance(client: UpstreamClient) -> str | None:
    """Which comfykeep answers there; None where it is none, or nobody answers."""
    try:
        answer = await client.get_json("/comfykeep/mode")
    except UpstreamError:
        return None
    return str(answer.get("instance", "")) if isinstance(answer, dict) and "mode" in answer else None
