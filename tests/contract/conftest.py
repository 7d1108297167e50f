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

_HERE = Path(__file__).parent
_ONE_LOOP = pytest.mark.asyncio(loop_scope="module")


def pytest_report_header() -> str:
    if not targets.REAL_VERSION:
        return "contract: no real ComfyUI, COMFYUI_URL is not set"
    return f"contract: ComfyUI {targets.REAL_VERSION} at {targets.REAL_URL}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests share their module's target, so they share its event loop."""
    for item in items:
        if item.path.parent == _HERE and pytest_asyncio.is_async_test(item):
            item.add_marker(_ONE_LOOP, append=False)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=targets.ARRANGEMENTS)
async def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Target]:
    """One instance per module, in every arrangement."""
    async with targets.arranged(request.param, tmp_path_factory.mktemp("target")) as target:
        if target.real and "PYTEST_XDIST_WORKER" in os.environ:
            pytest.skip("tests against one real ComfyUI must not run side by side: add -n0")
        yield target


@pytest_asyncio.fixture(loop_scope="module")
async def client(target: Target) -> AsyncIterator[Client]:
    async with Client(target.url) as client:
        yield client
        await client.idle()


@pytest_asyncio.fixture(loop_scope="module")
async def socket(client: Client) -> AsyncIterator[Socket]:
    async with client.socket() as socket:
        yield socket
