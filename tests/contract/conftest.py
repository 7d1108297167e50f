"""Each test here runs against every target; see `targets` for what they are.

``COMFYUI_URL=http://127.0.0.1:8188 pytest -n0 tests/contract`` adds a real ComfyUI and the proxy before it.
"""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.contract import targets
from tests.contract.client import Client
from tests.contract.sockets import Socket
from tests.contract.targets import Target

_VERSION = targets.real_version()
_REAL = f"comfyui-{_VERSION}" if _VERSION else "comfyui"
_HERE = Path(__file__).parent
_ONE_LOOP = pytest.mark.asyncio(loop_scope="module")


def pytest_report_header() -> str:
    return f"contract: real ComfyUI {_VERSION} at {targets.REAL_URL}" if _VERSION else "contract: COMFYUI_URL not set"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests share their module's target, so they share its event loop."""
    for item in items:
        if item.path.parent == _HERE:
            item.add_marker(_ONE_LOOP, append=False)


@pytest_asyncio.fixture(
    scope="module", loop_scope="module", params=["simulator", "proxy+simulator", _REAL, f"proxy+{_REAL}"]
)
async def target(request: pytest.FixtureRequest) -> AsyncIterator[Target]:
    """One instance per module, in every arrangement."""
    name: str = request.param
    if _REAL in name and not _VERSION:
        pytest.skip("COMFYUI_URL is not set")
    if _REAL in name and "PYTEST_XDIST_WORKER" in os.environ:
        pytest.skip("tests against one real ComfyUI must not run side by side: add -n0")
    upstream = targets.real() if _REAL in name else targets.simulator()
    async with upstream as direct:
        if not name.startswith("proxy+"):
            yield direct
            return
        async with targets.proxied(direct) as before:
            yield before


@pytest_asyncio.fixture(loop_scope="module")
async def client(target: Target) -> AsyncIterator[Client]:
    async with Client(target.url) as client:
        yield client
        await client.idle()


@pytest_asyncio.fixture(loop_scope="module")
async def socket(client: Client) -> AsyncIterator[Socket]:
    async with client.socket() as socket:
        yield socket
