"""Hazard: two sockets for one client id. When the first closes, ComfyUI forgets the second, which goes deaf."""

import asyncio
import random

import pytest
from aiohttp import web

from proxy.upstream.dial import Knock, RefusedError
from tests.rawhttp import until
from tests.upstream.comfy import Comfy, Gate, comfy
from tests.upstream.feeding import Memory, Rig, feeding


async def hears_events(server: Comfy, rig: Rig, sink: Memory, client_id: str) -> None:
    kind = f"event-{len(sink.frames)}"
    await until(lambda: client_id in server.sockets)
    await server.send(kind, {}, client_id)
    await rig.hears(sink, kind)


async def test_a_held_socket_is_handed_over_with_a_greeting() -> None:
    async with comfy() as server, feeding(server.url, start=False) as rig:
        assert await rig.feed.hold("a")
        await server.send("execution_start", {}, "a")
        await until(lambda: rig.witness.kinds("a") == ["status", "execution_start"])

        sink = await rig.come("a")
        assert sink.kinds() == ["status"]
        assert rig.witness.greetings == ["a"]
        await rig.say(sink, "feature_flags")
        await rig.hears(sink, "feature_flags")  # the first text frame was still free
        assert server.log == ["open a"]


async def test_a_socket_that_comfyui_has_yet_to_greet_is_handed_over_without_another_greeting() -> None:
    async with comfy() as server, feeding(server.url, start=False) as rig:
        server.talks.clear()
        ready = rig.feed.hold("a")
        await until(lambda: server.log == ["open a"])
        sink = await rig.come("a")
        server.talks.set()
        assert await ready
        await server.send("news", {}, "a")
        await rig.hears(sink, "news")
        assert sink.kinds() == ["status", "news"]


async def test_each_of_two_clients_that_come_together_has_its_own_greeting() -> None:
    async with comfy() as server, feeding(server.url, start=False) as rig:
        server.talks.clear()
        first = await rig.come("a")
        coming = asyncio.ensure_future(rig.come("a"))
        await asyncio.sleep(0)
        assert not coming.done()
        server.talks.set()
        second = await coming
        assert first.kinds() == second.kinds() == ["status"]
        await hears_events(server, rig, second, "a")


async def test_a_client_after_one_that_has_spoken_gets_a_new_socket_and_never_two_at_a_time() -> None:
    async with comfy() as server, feeding(server.url, start=False) as rig:
        await rig.feed.hold("a")
        first = await rig.come("a")
        await rig.say(first, "feature_flags")
        await rig.hears(first, "feature_flags")
        rig.go(first)

        second = await rig.come("a")
        assert server.log == ["open a", "close a", "open a"]
        await rig.say(second, "feature_flags")
        await rig.hears(second, "feature_flags")
        await hears_events(server, rig, second, "a")
        assert server.most_at_once["a"] == 1


async def test_of_two_clients_with_one_id_the_second_listens_and_survives_the_first() -> None:
    async with comfy() as server, feeding(server.url, start=False) as rig:
        first = await rig.come("a")
        await rig.say(first, "feature_flags")
        await rig.hears(first, "feature_flags")
        second = await rig.come("a")
        heard = len(first.frames)
        await hears_events(server, rig, second, "a")
        assert len(first.frames) == heard
        assert first.code is None

        rig.go(first)
        await hears_events(server, rig, second, "a")
        assert server.most_at_once["a"] == 1


async def test_when_the_second_leaves_the_first_listens_again() -> None:
    async with comfy() as server, feeding(server.url, start=False) as rig:
        first = await rig.come("a")
        await rig.say(first, "feature_flags")
        second = await rig.come("a")
        await rig.say(second, "feature_flags")
        await rig.hears(second, "feature_flags")
        rig.go(second)
        await rig.hears(first, "feature_flags", times=2)  # said again on the socket that is its own again
        await hears_events(server, rig, first, "a")
        assert server.most_at_once["a"] == 1


async def test_what_a_replaced_client_says_is_not_taken_for_the_others_word() -> None:
    async with comfy() as server, feeding(server.url, start=False) as rig:
        first, second = await rig.come("a"), await rig.come("a")
        await rig.say(first, "late")
        await rig.say(second, "feature_flags")
        await rig.hears(second, "feature_flags")
        rig.go(second)
        await until(lambda: server.log.count("open a") == 2)
        await hears_events(server, rig, first, "a")
        assert len(server.texts) == 1


async def test_a_socket_opened_for_others_is_not_handed_to_a_stranger() -> None:
    async def knows_cookie(request: web.Request) -> web.Response | None:
        return None if request.cookies.get("session") == "mine" else web.Response(status=401)

    async with comfy() as server, feeding(server.url, start=False) as rig:
        server.judge = knows_cookie
        assert await rig.feed.hold("a", Knock("/ws", (("Cookie", "session=mine"),)))
        with pytest.raises(RefusedError):
            await rig.come("a")
        assert not rig.witness.greetings
        await until(lambda: rig.witness.kinds("a") == ["status", "status"])  # held again for the prompt

        sink = await rig.come("a", ("cookie", "session=mine"))
        assert sink.kinds() == ["status"]
        assert server.log == ["open a", "close a", "open a"]


async def test_other_query_parameters_count_as_credentials() -> None:
    async with comfy() as server, feeding(server.url, start=False) as rig:
        await rig.feed.hold("a", Knock("/ws?token=1"))
        await rig.come("a", query="token=1")
        assert len(server.handshakes) == 1
        await rig.come("a", query="token=2")
        assert len(server.handshakes) == 2


async def test_a_socket_is_closed_some_time_after_its_last_prompt() -> None:
    async with comfy() as server, feeding(server.url, start=False) as rig:
        await rig.feed.hold("a")
        await rig.feed.hold("a")
        rig.feed.release("a")
        rig.clock.advance(1000)
        assert "a" in server.sockets
        rig.feed.release("a")
        rig.clock.advance(29)
        assert await rig.feed.hold("a")  # the next prompt comes in time
        rig.feed.release("a")
        rig.clock.advance(29)
        assert await rig.feed.hold("a")
        rig.clock.advance(1000)
        rig.feed.release("a")
        rig.clock.advance(29)
        assert server.log == ["open a"]
        rig.clock.advance(1)
        await until(lambda: server.log == ["open a", "close a"])
        await until(lambda: not rig.feed._named)
        assert rig.clock.pending() == 0


async def test_a_prompt_waits_until_comfyui_knows_the_socket() -> None:
    async with comfy() as server, feeding(server.url, start=False) as rig:
        server.talks.clear()
        first = rig.feed.hold("a")
        await until(lambda: server.log == ["open a"])
        await until(lambda: rig.feed._named["a"]._link is not None)
        second = rig.feed.hold("a")
        await asyncio.sleep(0)
        assert not first.done()
        assert not second.done()
        server.talks.set()
        assert await first
        assert await second


async def test_a_prompt_does_not_wait_for_a_comfyui_that_refuses() -> None:
    async def refuse(_request: web.Request) -> web.Response:
        return web.Response(status=401)

    async with comfy() as server, feeding(server.url, start=False) as rig:
        server.judge = refuse
        assert await rig.feed.hold("a") is False
        assert rig.clock.now == 0


async def test_the_latest_submission_says_what_to_ask_with() -> None:
    async with comfy() as server, feeding(server.url, start=False) as rig:
        await rig.feed.hold("a", Knock("/ws", (("Cookie", "old=1"),)))
        await rig.feed.hold("a", Knock("/ws", (("Cookie", "new=1"),)))
        await server.stop()
        await server.start()
        await rig.retries_until(lambda: "a" in server.sockets)
        assert server.handshakes[-1].headers["Cookie"] == "new=1"


async def test_a_client_keeps_its_socket_whatever_its_prompts_do() -> None:
    async with comfy() as server, feeding(server.url, start=False) as rig:
        sink = await rig.come("a")
        await rig.feed.hold("a")
        rig.feed.release("a")
        rig.clock.advance(1000)
        await hears_events(server, rig, sink, "a")
        rig.go(sink)
        await until(lambda: server.log == ["open a", "close a"])


async def test_a_slow_handshake_is_waited_for_and_not_repeated() -> None:
    gate = Gate()
    async with comfy() as server, feeding(server.url, start=False) as rig:
        server.judge = gate
        coming = asyncio.ensure_future(rig.come("a"))
        holding = rig.feed.hold("a")
        await gate.reached.wait()
        rig.clock.advance(9)
        assert not coming.done()
        rig.clock.advance(1)
        sink = await coming  # let in to wait inside
        assert await holding is False
        await rig.say(sink, "feature_flags")
        rig.clock.advance(1000)
        gate.opened.set()
        await rig.hears(sink, "feature_flags")
        assert len(server.handshakes) == 1


async def test_a_client_that_leaves_during_its_handshake_leaves_no_socket() -> None:
    gate = Gate()
    async with comfy() as server, feeding(server.url, start=False) as rig:
        server.judge = gate
        coming = asyncio.ensure_future(rig.come("a"))
        await gate.reached.wait()
        coming.cancel()
        again = asyncio.ensure_future(rig.come("a"))
        gate.opened.set()
        sink = await again
        await hears_events(server, rig, sink, "a")
        rig.go(sink)
        await until(lambda: not server.sockets and not rig.feed._named)
        assert server.most_at_once["a"] == 1


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_clients_and_prompts_do_there_is_one_socket_and_nobody_is_deaf(  # noqa: C901 - one branch per move of the game
    seed: int,
) -> None:
    dice = random.Random(seed)  # noqa: S311 - a seeded game, no secret
    async with comfy() as server, feeding(server.url) as rig:
        inside: list[Memory] = []
        coming: list[asyncio.Future[Memory]] = []
        held = 0
        for _ in range(120):
            match dice.randrange(8):
                case 0 | 1:
                    coming.append(asyncio.ensure_future(rig.come("a")))
                case 2 if coming:
                    coming.pop(dice.randrange(len(coming))).cancel()
                case 3 if inside:
                    rig.go(inside.pop(dice.randrange(len(inside))))
                case 4:
                    rig.feed.hold("a")
                    held += 1
                case 5 if held:
                    rig.feed.release("a")
                    held -= 1
                case 6 if inside:
                    await rig.say(dice.choice(inside), "feature_flags")
                case _:
                    rig.clock.advance(dice.choice([0.1, 31.0]))
            for _ in range(dice.randrange(20)):
                await asyncio.sleep(0)
            inside += [task.result() for task in coming if task.done() and not task.cancelled()]
            coming = [task for task in coming if not task.done()]
        inside += await asyncio.gather(*coming)
        last = await rig.come("a")
        await hears_events(server, rig, last, "a")
        assert server.most_at_once["a"] == 1
        for sink in [*inside, last]:
            rig.go(sink)
        for _ in range(held):
            rig.feed.release("a")
        await rig.retries_until(lambda: set(server.sockets) == {rig.feed.own_id})
