"""What the proxy does not answer itself is ComfyUI's own answer, byte for byte."""

from collections.abc import Set as AbstractSet

import pytest
import pytest_asyncio

from tests.contract import prompts
from tests.contract.allowed import allowed
from tests.contract.client import Answer, Client
from tests.contract.sockets import Socket
from tests.contract.targets import PROXIED, Target

pytestmark = pytest.mark.parametrize("target", PROXIED, indirect=True, scope="module")

HOP_BY_HOP = {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
"""Headers that belong to one connection, not to the answer (RFC 9110, 7.6.1)."""

PATHS = [
    "/",
    "/features",
    "/object_info/VAELoader",
    "/models",
    "/experiment/models/vae",
    "/extensions",
    "/userdata?dir=nothing-here",
    "/userdata/a%2Fb.json",
    "/view?filename=..",
    "/view?filename=a%20b%2Bc.png",
    "/no/such/route",
    "/queue",
    "/prompt",
    "/history",
    "/history/unknown",
    "/history?max_items=x",
    "/api/jobs",
    "/api/jobs/unknown",
    "/api/jobs?limit=x",
]


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def _history(target: Target) -> None:
    """One prompt that did not come through the proxy."""
    async with Client(target.upstream_url) as direct:
        await direct.post("/history", {"clear": True})
        await direct.history((await direct.submit(prompts.text("direct")))["prompt_id"])


def comparable(answer: Answer, unlike: AbstractSet[str] = frozenset()) -> tuple[int, list[tuple[str, str]], bytes]:
    left_out = HOP_BY_HOP | {"date"} | unlike
    headers = [(name.lower(), value) for name, value in answer.headers.items()]
    return answer.status, sorted(header for header in headers if header[0] not in left_out), answer.body


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE"])
@pytest.mark.parametrize("path", PATHS)
async def test_the_same_answer(client: Client, target: Target, method: str, path: str) -> None:
    async with Client(target.upstream_url) as direct:
        expected = await direct.request(method, path)
    in_pieces = path == "/queue" and allowed(target, "a queue in pieces")
    unlike = {"content-length"} if in_pieces else set()
    assert comparable(await client.request(method, path), unlike) == comparable(expected, unlike)


@pytest.mark.parametrize(
    "headers",
    [{}, {"Range": "bytes=3-9"}, {"Range": "bytes=9999999-"}, {"If-None-Match": "*"}, {"Accept-Encoding": "gzip"}],
)
async def test_the_same_picture(client: Client, socket: Socket, target: Target, headers: dict[str, str]) -> None:
    run = await client.run(prompts.image(prompts.fresh()), socket)
    (image,) = run.outputs["2"]["images"]
    path = f"/view?filename={image['filename']}&subfolder=&type=temp"
    async with Client(target.upstream_url) as direct:
        expected = await direct.request("GET", path, headers=headers)
    assert comparable(await client.request("GET", path, headers=headers)) == comparable(expected)


async def test_what_went_in_through_the_one_is_seen_through_the_other(client: Client, target: Target) -> None:
    """A prompt submitted behind the proxy's back is in its queue view, history and events like any other."""
    async with Client(target.upstream_url) as direct, client.socket() as page:
        prompt_id = (await direct.submit(prompts.text(f"behind {prompts.fresh()}")))["prompt_id"]
        entry = await client.history(prompt_id)
        assert entry == await direct.history(prompt_id)
        assert "executing" not in {event.kind for event in page.events(prompt_id)}


async def test_a_prompt_that_needs_no_change_is_kept_as_it_came(client: Client, socket: Socket, target: Target) -> None:
    """History through the proxy has nothing that was not sent; ComfyUI's own may."""
    prompt = prompts.text(f"plain {prompts.fresh()}")
    run = await client.run(prompt, socket, extra_data={"mine": 1})
    extra = (await client.history(run.prompt_id))["prompt"][3]
    assert extra.keys() - {"create_time"} == {"mine", "client_id"}
    async with Client(target.upstream_url) as direct:
        assert (await direct.history(run.prompt_id))["outputs"] == (await client.history(run.prompt_id))["outputs"]
