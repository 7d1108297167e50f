"""Each test here runs against every target; see `targets` for what they are.

``COMFYUI_URL=http://127.0.0.1:8188 pytest -n0 tests/contract`` adds a real ComfyUI and the proxy before it.
"""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from proxy.core.mode import Mode
from tests.contract import targets
from tests.contract.client import Client
from tests.contract.sockets import Socket
from tests.contract.targets import Target

_VERSION = targets.real_version()
_REAL = f"comfyui-{_VERSION}" if _VERSION else "comfyui"
_ARRANGEMENTS = [f"{before}{upstream}" for upstream in ("simulator", _REAL) for before in ("", "proxy+", "proxy-full+")]
_HERE = Path(__file__).parent
_ONE_LOOP = pytest.mark.asyncio(loop_scope="module")


def pytest_report_header() -> str:
    return f"contract: real ComfyUI {_VERSION} at {targets.REAL_URL}" if _VERSION else "contract: COMFYUI_URL not set"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests share their module's target, so they share its event loop."""
    for item in items:
        if item.path.parent == _HERE:
            item.add_marker(_ONE_LOOP, append=False)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=_ARRANGEMENTS)
async def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Target]:
    """One instance per module, in every arrangement."""
    before, _, upstream = request.param.rpartition("+")
    if upstream == _REAL and not _VERSION:
        pytest.skip("COMFYUI_URL is not set")
    if upstream == _REAL and "PYTEST_XDIST_WORKER" in os.environ:
        pytest.skip("tests against one real ComfyUI must not run side by side: add -n0")
    async with targets.real() if upstream == _REAL else targets.simulator() as direct:
        if not before:
            yield direct
            return
        mode = Mode.FULL if before == "proxy-full" else Mode.PINS
        async with targets.proxied(direct, mode, tmp_path_factory.mktemp("proxy")) as proxied:
            yield proxied


@pytest_asyncio.fixture(loop_scope="module")
async def client(target: Target) -> AsyncIterator[Client]:
    async with Client(target.url) as client:
        yield client
        await client.idle()


@pytest_asyncio.fixture(loop_scope="module")
async def socket(client: Client) -> AsyncIterator[Socket]:
    async with client.socket() as socket:
        yield socket
