"""Bodies that look like a prompt, to which ComfyUI answers with a 500 page: the client is told what is wrong."""

from pathlib import Path
from typing import Any

import pytest

from proxy.core.mode import Mode
from tests.engine.stage import encode, staged


@pytest.mark.parametrize("mode", [Mode.PINS, Mode.FULL])
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"prompt": {"1": []}}, "node 1 is a list, not an object"),
        ({"prompt": encode("a", "1"), "number": "x"}, "number is 'x', not a number"),
    ],
)
async def test_it_is_said_what_comfyui_cannot_read(mode: Mode, body: Any, said: str, tmp_path: Path) -> None:
    async with staged(mode, tmp_path) as stage:
        assert (await stage.direct.request("POST", "/prompt", body)).status == 500
        answer = await stage.post("/prompt", body)
        assert (answer.status, answer.json()["error"]["details"]) == (400, said)
        await stage.client.submit(encode("a", "2"))
