"""Hazard: ComfyUI is away, comes back, or goes for good, and somebody is left behind."""

import asyncio

import pytest
from aiohttp import web

from proxy.errors import ShuttingDown
from proxy.upstream.dial import Knock
from proxy.upstream.feed import Feed
from tests.rawhttp import until
from tests.upstream.comfy import comfy
from tests.upstream.feeding import Memory, Witness, connect, feeding


async def test_a_client_that_comes_while_comfyui_is_away_waits_inside() -> None:
    async with comfy() as server, feeding(server.url) as rig:
        await server.stop()
        sink = await rig.come("a")
        await rig.say(sink, "feature_flags")
        await rig.say(sink, "more")
        assert await rig.feed.hold("a") is False
        assert sink.frames == []
        await server.start()
        await rig.retries_until(lambda: "a" in server.sockets)
        await rig.hears(sink, "feature_flags")
        await until(lambda: len(server.texts) == 2)
        assert [text for _, text in server.texts] == [
            '{"type": "feature_flags", "data": {}}',
            '{"type": "more", "data": {}}',
        ]


async def test_a_client_without_an_id_waits_too() -> None:
    async with comfy() as server, feeding(server.url, start=False) as rig:
        await server.stop()
        sink = await rig.come()
        await server.start()
        await rig.retries_until(lambda: sink.kinds() == ["status"])


async def test_clients_are_bridged_anew_and_say_their_flags_again() -> None:
    async with comfy() as server, feeding(server.url) as rig:
        page, plain = await rig.come("page"), await rig.come("plain")
        await rig.say(page, "feature_flags", x=1)
        await rig.hears(page, "feature_flags")
        await server.stop()
        server.texts.clear()
        await server.start()
        await rig.retries_until(lambda: {"page", "plain"} <= set(server.sockets))
        await rig.hears(page, "feature_flags", times=2)
        await rig.hears(plain, "status", times=2)
        assert [client for client, _ in server.texts] == ["page"]


async def test_after_a_crash_pages_are_told_to_reload_and_others_stay() -> None:
    async with comfy() as server, feeding(server.url) as rig:
        page, plain = await rig.come("page"), await rig.come("plain")
        await rig.say(page, "feature_flags")
        await rig.say(plain, "feature_flag")
        await server.stop()
        await server.start()
        await rig.retries_until(lambda: rig.feed.up)
        rig.feed.upstream_restarted()
        assert page.code == 1012
        assert plain.code is None
        await rig.retries_until(lambda: "plain" in server.sockets and "page" not in server.sockets)


async def test_attempts_go_on_for_ever_and_not_in_a_storm() -> None:
    async with comfy() as server, feeding(server.url) as rig:
        await until(lambda: rig.witness.ups == [True])
        await server.stop()
        await until(lambda: rig.clock.pending() == 1)
        rig.clock.advance(24 * 3600)
        await until(lambda: rig.clock.pending() == 1)
        await server.start()
        await rig.retries_until(lambda: rig.witness.ups == [True, False, True])


async def test_after_a_long_outage_everybody_is_back_at_once_and_the_next_one_starts_over() -> None:
    async with comfy() as server, feeding(server.url) as rig:
        await until(lambda: rig.feed.up)
        await server.stop()
        for _ in range(10):
            await until(lambda: rig.clock.pending() == 1)
            rig.clock.advance(rig.clock.until_next())
        await until(lambda: rig.clock.pending() == 1)
        assert rig.clock.until_next() > 1
        rig.clock.advance(rig.clock.until_next() - 0.01)
        await rig.come("a")
        await until(lambda: rig.clock.pending() == 2)
        await server.start()
        rig.clock.advance(0.01)  # the proxy's own socket is due, the client's is not
        await until(lambda: {"a", rig.feed.own_id} <= set(server.sockets))

        await until(lambda: rig.feed.own_id in [client for client, _ in rig.witness.seen[-2:]])
        await server.stop()
        await until(lambda: rig.clock.pending() == 2)
        assert rig.clock.until_next() < 0.25


async def test_a_comfyui_that_closes_at_once_is_not_stormed() -> None:
    async def close_at_once(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.close()
        return socket

    async with comfy() as server, feeding(server.url) as rig:
        server.judge = close_at_once
        await server.stop()
        await server.start()
        await rig.retries_until(lambda: len(server.handshakes) >= 3)
        seen = len(server.handshakes)
        for _ in range(500):
            await asyncio.sleep(0)
        assert len(server.handshakes) <= seen + 1


async def test_a_waiting_client_that_is_refused_later_is_closed() -> None:
    async def refuse(_request: web.Request) -> web.Response:
        return web.Response(status=403)

    async with comfy() as server, feeding(server.url, start=False) as rig:
        await server.stop()
        sink = await rig.come("a")
        server.judge = refuse
        await server.start()
        await rig.retries_until(lambda: sink.code == 1008)
        await until(lambda: not rig.feed.connected())


async def test_a_server_error_on_the_way_back_is_waited_out() -> None:
    async def not_yet(_request: web.Request) -> web.Response:
        return web.Response(status=503)

    async def ready(_request: web.Request) -> None:
        return None

    async with comfy() as server, feeding(server.url, start=False) as rig:
        await server.stop()
        sink = await rig.come("a")
        server.judge = not_yet
        await server.start()
        await rig.retries_until(lambda: bool(server.handshakes))
        server.judge = ready
        await rig.retries_until(lambda: sink.kinds() == ["status"])
        assert sink.code is None


async def test_closing_tells_clients_and_comfyui() -> None:
    async with comfy() as server, feeding(server.url) as rig:
        sink = await rig.come("a")
        await rig.feed.hold("b")
        await until(lambda: len(server.sockets) == 3)
        await rig.feed.close()
        assert sink.code == 1001
        assert not sink.aborted
        await until(lambda: not server.sockets)
        with pytest.raises(ShuttingDown):
            await rig.come("c")
        await rig.feed.close()


async def test_closing_does_not_wait_for_ever_for_a_client_that_does_not_read() -> None:
    class Stuck(Memory):
        def close(self, code: int, _reason: str) -> None:
            self.code = code

    async with comfy() as server, feeding(server.url) as rig:
        sink = Stuck(rig.feed)
        sink.attachment, _ = await rig.feed.attach(Knock("/ws?clientId=a"), sink)
        await rig.feed.close(grace=0.01)
        assert sink.aborted


async def test_closing_while_a_client_waits_for_its_handshake() -> None:
    async with comfy() as server, feeding(server.url, start=False) as rig:
        reached = asyncio.Event()

        async def never(_request: web.Request) -> None:
            reached.set()
            await asyncio.Event().wait()

        server.judge = never
        coming = asyncio.ensure_future(rig.come("a"))
        await reached.wait()
        await rig.feed.close(grace=0.01)
        with pytest.raises(ShuttingDown):
            await coming


async def test_starting_and_stopping_at_any_moment_leaves_nothing_behind() -> None:
    async with comfy() as server:
        before = asyncio.all_tasks()
        for turns in range(40):
            feed = Feed(server.url, Witness())
            await feed.start()
            coming = asyncio.ensure_future(connect(feed, Knock(f"/ws?clientId=c{turns}")))
            feed.hold("held")
            for _ in range(turns):
                await asyncio.sleep(0)
            await feed.close(grace=1.0)
            await asyncio.gather(coming, return_exceptions=True)
        await until(lambda: not server.sockets)
        await until(lambda: asyncio.all_tasks() <= before)
