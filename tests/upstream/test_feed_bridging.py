"""Hazard: a client that talks to the proxy sees something else than one that talks to ComfyUI."""

import pytest
from aiohttp import web

from proxy.upstream.attachment import Delivery
from proxy.upstream.dial import Knock, RefusedError
from proxy.upstream.feed import Feed
from tests.rawhttp import until
from tests.upstream.comfy import comfy
from tests.upstream.feeding import Witness, connect, feeding


async def test_the_handshake_carries_what_the_client_sent() -> None:
    async with comfy() as server, feeding(server.url, start=False) as rig:
        headers = (
            ("Host", "comfy.example:8188"),
            ("Origin", "http://comfy.example:8188"),
            ("Cookie", "a=b"),
            ("x-Odd", "\u00e9"),
        )
        await connect(rig.feed, Knock("/api/ws?x=1&clientId=a%20b&y=%2F", headers))
        (request,) = server.handshakes
        assert request.raw_path == "/api/ws?x=1&clientId=a%20b&y=%2F"
        sent = [(name.decode(), value.decode()) for name, value in request.raw_headers]
        assert [pair for pair in sent if not pair[0].startswith(("Sec-WebSocket", "Upgrade", "Connection"))] == list(
            headers
        )
        assert "Sec-WebSocket-Extensions" not in request.headers


async def test_the_headers_of_comfyuis_101_come_back() -> None:
    async with comfy() as server, feeding(server.url, start=False) as rig:
        server.answer_headers = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]
        _, headers = await connect(rig.feed, Knock("/ws?clientId=a"))
        assert [pair for pair in headers if pair[0] == "Set-Cookie"] == server.answer_headers
        assert not {name.lower() for name, _ in headers} & {"upgrade", "connection", "sec-websocket-accept"}


async def test_frames_arrive_unchanged_and_in_order() -> None:
    async with comfy() as server, feeding(server.url, start=False) as rig:
        sink = await rig.come("a")
        await rig.hears(sink, "status")
        big = bytes(range(256)) * (1 << 14)
        for frame in (b"\0\0\0\1x", big, b""):
            await server.send_bytes(frame, "a")
        text = '{"type": "x",  "data": [NaN, 18446744073709551615, "\\u00e9\u00e9"]}'
        await server.sockets["a"].send_str(text)
        await until(lambda: len(sink.frames) == 5)
        assert sink.frames[1:] == [b"\0\0\0\1x", big, b"", text]


async def test_what_the_client_says_arrives() -> None:
    async with comfy() as server, feeding(server.url, start=False) as rig:
        sink = await rig.come("a")
        await rig.say(sink, "feature_flags", x=1)
        await rig.hears(sink, "feature_flags")
        assert server.texts == [("a", '{"type": "feature_flags", "data": {"x": 1}}')]


async def test_a_refusal_passes_on_with_its_body() -> None:
    async def refuse(_request: web.Request) -> web.Response:
        return web.Response(status=403, text="not you", headers={"X-Why": "because"})

    async with comfy() as server, feeding(server.url, start=False) as rig:
        server.judge = refuse
        with pytest.raises(RefusedError) as caught:
            await rig.come("a")
        refusal = caught.value.refusal
        assert (refusal.status, refusal.reason, refusal.body) == (403, "Forbidden", b"not you")
        assert ("X-Why", "because") in refusal.headers
        assert ("Content-Length", "7") in refusal.headers
        assert not rig.feed.connected()


async def test_a_client_without_an_id_goes_by_the_one_comfyui_invents() -> None:
    async with comfy() as server, feeding(server.url, start=False) as rig:
        sink = await rig.come()
        await rig.hears(sink, "status")
        (sid,) = server.sockets
        assert rig.feed.connected() == {sid}
        rig.feed.deliver([Delivery('{"type": "hello"}', sid)])
        assert sink.kinds() == ["status", "hello"]
        await server.stop()
        await server.start()
        await rig.retries_until(lambda: sid in server.sockets)
        await server.send("again", {}, sid)
        await rig.hears(sink, "again")


async def test_several_clients_without_an_id_are_kept_apart() -> None:
    async with comfy() as server, feeding(server.url, start=False) as rig:
        one, two = await rig.come(), await rig.come(query="clientId=")
        await rig.hears(one, "status")
        await rig.hears(two, "status")
        assert len(server.sockets) == 2
        rig.go(one)
        await until(lambda: len(server.sockets) == 1)
        await server.send("still", {})
        await rig.hears(two, "still")


async def test_the_observer_sees_each_frame_first_and_decides() -> None:
    async with comfy() as server, feeding(server.url, start=False) as rig:
        one, two = await rig.come("one"), await rig.come("two")
        await rig.hears(one, "status")
        await rig.hears(two, "status")

        rig.witness.rule = lambda _id, frame: [
            Delivery(frame, None),
            Delivery(b"more", "two"),
            Delivery(b"lost", "nobody"),
        ]
        await server.send("news", {}, "one")
        await until(lambda: b"more" in two.frames)
        assert one.kinds() == two.kinds() == ["status", "news"]
        assert b"more" not in one.frames


async def test_an_observer_that_fails_does_not_make_the_client_deaf() -> None:
    def fail(_id: str, _frame: object) -> list[Delivery]:
        raise ValueError("what is this?")

    async with comfy() as server, feeding(server.url, start=False) as rig:
        rig.witness.rule = fail
        sink = await rig.come("a")
        await server.send("odd", {}, "a")
        await rig.hears(sink, "odd")


async def test_the_own_socket_tells_whether_comfyui_is_there() -> None:
    async with comfy() as server, feeding(server.url) as rig:
        await until(lambda: rig.feed.up)
        assert rig.witness.ups == [True]
        await server.stop()
        await until(lambda: not rig.feed.up)
        assert rig.witness.ups == [True, False]
        await server.start()
        await rig.retries_until(lambda: rig.witness.ups == [True, False, True])
        await server.send("execution_start", {}, rig.feed.own_id)
        await until(lambda: "execution_start" in rig.witness.kinds(rig.feed.own_id))


async def test_an_observer_that_fails_does_not_end_the_own_socket(caplog: pytest.LogCaptureFixture) -> None:
    class Careless(Witness):
        def on_upstream(self, up: bool) -> None:
            super().on_upstream(up)
            raise ValueError("what now?")

    async with comfy() as server:
        witness = Careless()
        feed = Feed(server.url, witness)
        await feed.start()
        await until(lambda: feed.own_id in server.sockets)
        await server.send("news", {}, feed.own_id)
        await until(lambda: "news" in witness.kinds(feed.own_id))
        await feed.close()
        assert witness.ups == [True, False]
        assert "what now?" in caplog.text


async def test_frames_for_a_client_that_is_not_there_are_observed_and_dropped() -> None:
    async with comfy() as server, feeding(server.url, start=False) as rig:
        assert await rig.feed.hold("") is False
        rig.feed.release("")
        rig.feed.release("nobody")
        rig.feed.deliver([Delivery("lost", "nobody"), Delivery("lost", None)])
        await rig.feed.hold("a")
        await server.send("news", {}, "a")
        await until(lambda: rig.witness.kinds("a") == ["status", "news"])
        assert (await rig.come("a")).kinds() == ["status"]
