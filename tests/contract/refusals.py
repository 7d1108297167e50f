"""Sending what should be refused, and telling whether it was refused well."""

import gzip
import json
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from tests.contract import prompts
from tests.contract.client import Answer, Client

PACKED: Mapping[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}
"""Codings of a request's body that ComfyUI reads."""


def is_clear(answer: Answer) -> bool:
    """A 4xx with an error in ComfyUI's shape."""
    if not 400 <= answer.status < 500:
        return False
    body = answer.json()
    shaped: bool = body["error"].keys() == {"type", "message", "details", "extra_info"}
    return shaped and body["node_errors"] == {}


async def still_runs(client: Client) -> bool:
    """Whether a prompt submitted now is run to its end."""
    async with client.socket() as socket:
        return (await client.run(prompts.text("alive"), socket)).end.kind == "execution_success"


async def send(client: Client, body: Any) -> Answer:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await client.request("POST", "/prompt", raw, headers={"Content-Type": "application/json"})
