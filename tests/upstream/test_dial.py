"""Hazard: a handshake on behalf of a client asks with another id, or with other credentials, than the client's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from proxy.errors import UpstreamUnreachable
from proxy.upstream.dial import Knock, Refusal, dial
from tests.rawhttp import Peer, serving

ids = st.text(st.characters(codec="utf-8"), min_size=1)
targets = st.sampled_from(
    ["/ws", "/ws?", "/api/ws?a=1", "/ws?clientId=", "/ws?clientId=x&b=%2F", "/ws?b&clientId=x&clientId=y"]
)


def as_comfyui_reads(target: str) -> str:
    return URL("http://h" + target, encoded=True).query.get("clientId", "")


@given(targets, ids)
def test_an_id_is_set_as_comfyui_will_read_it(target: str, client_id: str) -> None:
    knock = Knock(target, (("A", "b"),)).under(client_id)
    assert knock.client_id == as_comfyui_reads(knock.target) == client_id
    assert knock.headers == (("A", "b"),)
    assert knock.credentials == Knock(target).credentials
    assert knock.under(client_id) is knock


@given(targets)
def test_the_id_is_read_as_comfyui_reads_it(target: str) -> None:
    assert Knock(target).client_id == as_comfyui_reads(target)


def test_what_counts_as_credentials() -> None:
    plain = Knock("/ws?clientId=a", (("Host", "h"), ("Origin", "o"), ("User-Agent", "u")))
    assert plain.credentials == Knock("/api/ws?clientId=b").credentials == frozenset()
    assert Knock("/ws", (("COOKIE", "a"),)).credentials == Knock("/ws", (("cookie", "a"),)).credentials
    different = [
        plain,
        Knock("/ws", (("Cookie", "a"),)),
        Knock("/ws", (("Cookie", "b"),)),
        Knock("/ws", (("Authorization", "a"),)),
        Knock("/ws?token=a"),
    ]
    assert len({knock.credentials for knock in different}) == len(different)


@pytest.mark.parametrize(
    ("status", "temporary"), [(302, False), (401, False), (403, False), (404, False), (500, True), (503, True)]
)
def test_which_refusals_are_worth_another_attempt(status: int, temporary: bool) -> None:
    assert Refusal(status, "", [], b"").temporary is temporary


@pytest.mark.parametrize(
    "answer",
    [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 101 Fine\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"],
    ids=["nothing", "nonsense", "not for our key"],
)
async def test_an_answer_that_is_no_handshake(answer: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(answer)

    async with serving(script) as server:
        with pytest.raises(UpstreamUnreachable, match="handshake"):
            await dial(server.url, Knock("/ws"))


async def test_a_redirect_is_an_answer_and_not_followed() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n")

    async with serving(script) as server:
        with pytest.raises(Exception, match="302 Found"):
            await dial(server.url, Knock("/ws"))
        assert len(server.peers) == 1


async def test_a_path_before_comfyuis_own_and_odd_targets_are_kept() -> None:
    heads: list[bytes] = []

    async def script(peer: Peer) -> None:
        heads.append(await peer.head())

    async with serving(script) as server:
        for target in ("/ws?x=%2F&y=a|b", "/\u00e9"):
            with pytest.raises(UpstreamUnreachable):
                await dial(f"{server.url}/comfy/", Knock(target))
    assert [head.split(b"\r\n")[0] for head in heads] == [
        b"GET /comfy/ws?x=%2F&y=a|b HTTP/1.1",
        b"GET /comfy/%C3%A9 HTTP/1.1",
    ]
