"""Who is told what: several sockets, sockets that come and go, feature flags, binary frames."""

import json
import struct
import uuid

import pytest

from tests.contract import prompts
from tests.contract.allowed import allowed
from tests.contract.client import Client
from tests.contract.prompts import link, node
from tests.contract.sockets import PREVIEW, PREVIEW_WITH_METADATA, TEXT, Event, Socket
from tests.contract.targets import Target

IDLE = {"exec_info": {"queue_remaining": 0}}


async def test_the_first_frame_is_a_status_with_the_session(client: Client) -> None:
    async with client.socket("some-client") as socket:
        assert socket.frames == [Event("status", {"status": IDLE, "sid": "some-client"})]


async def test_a_socket_without_an_id_is_given_one(client: Client) -> None:
    async with client.socket(anonymous=True) as socket:
        sid = socket.named("status")[0].data["sid"]
        assert uuid.UUID(hex=sid).hex == sid
        run = await client.submit(prompts.text("invented"), sid)
        await socket.until_done(run["prompt_id"])


async def test_sockets_open_under_api_too(client: Client) -> None:
    async with Client(client.url + "/api") as api, api.socket("api-client") as socket:
        assert socket.frames == [Event("status", {"status": IDLE, "sid": "api-client"})]


async def test_feature_flags_are_answered(client: Client) -> None:
    features = await client.get_json("/features")
    async with client.socket() as socket:
        await socket.send({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
        answer = await socket.until_event("feature_flags")
    assert answer.data.items() <= features.items()
    assert answer.data["supports_preview_metadata"] is True
    assert answer.data["max_upload_size"] == features["max_upload_size"]


async def test_only_a_first_frame_can_hold_feature_flags(client: Client, socket: Socket) -> None:
    await socket.send({"type": "something else"})
    await socket.send({"type": "feature_flags", "data": {}})
    await client.run(prompts.text("late"), socket)
    assert socket.named("feature_flags") == []


async def test_frames_that_are_no_json_are_ignored(client: Client, socket: Socket) -> None:
    await socket.connection.send("{")
    await socket.connection.send(b"\x00\x01")
    assert (await client.run(prompts.text("still here"), socket)).end.kind == "execution_success"


async def test_others_see_only_the_queue(client: Client, socket: Socket) -> None:
    async with client.socket() as other:
        run = await client.run(prompts.image(prompts.fresh()), socket)
        await other.until(lambda frames: len(frames) > 2 and frames[-1] == Event("status", {"status": IDLE}))
        assert other.events(run.prompt_id) == []
        assert {frame.kind for frame in other.frames} == {"status"}


async def test_progress_of_nobody_is_told_to_everybody(client: Client, socket: Socket) -> None:
    """A prompt without a client id: ComfyUI addresses its progress to no one, which means all."""
    prompt_id = (await client.submit(prompts.text(f"nobody {prompts.fresh()}")))["prompt_id"]
    await client.history(prompt_id)
    await socket.until(lambda frames: frames[-1] == Event("status", {"status": IDLE}))
    assert [event.kind for event in socket.events(prompt_id)] == ["progress_state"] * 4
    assert socket.events(prompt_id)[-1].data["nodes"].keys() == {"1", "2"}


async def test_an_interrupt_of_nobody_is_told_to_everybody(client: Client, socket: Socket, target: Target) -> None:
    prompt = (await target.long_prompt(client))[0]
    prompt_id = (await client.submit(prompt))["prompt_id"]
    await socket.until(lambda _: any(f.data["prompt_id"] == prompt_id for f in socket.named("progress_state")))
    await client.post("/interrupt", {"prompt_id": prompt_id})
    end = await socket.until_event("execution_interrupted", prompt_id=prompt_id)
    assert end.data.keys() == {"prompt_id", "node_id", "node_type", "executed", "timestamp"}
    assert {event.kind for event in socket.events(prompt_id)} <= {"progress_state", "progress", end.kind}


async def test_a_client_that_comes_later_hears_the_rest(client: Client, target: Target) -> None:
    """Submitted first, connected afterwards: what is told from then on arrives."""
    client_id = uuid.uuid4().hex
    async with client.socket() as first, target.busy(client, first):
        prompt_id = (await client.submit(prompts.text(f"late {prompts.fresh()}"), client_id))["prompt_id"]
        late = await client.open_socket(client_id)
    await late.until_done(prompt_id)
    kinds = [event.kind for event in late.events(prompt_id)]
    assert (kinds[0], kinds[-2:]) == ("execution_start", ["execution_success", "executing"])
    await late.close()


async def test_a_client_that_comes_back_is_told_what_runs(client: Client, socket: Socket, target: Target) -> None:
    client_id = uuid.uuid4().hex
    leaving = await client.open_socket(client_id)
    async with target.busy(client, leaving) as prompt_id:
        running = leaving.named("executing")[-1].data["node"]
        await leaving.close()
        back = await client.open_socket(client_id)
        status = back.frames[0]
        assert isinstance(status, Event)
        assert status.data == {"status": {"exec_info": {"queue_remaining": 1}}, "sid": client_id}
        told = await back.until_event("executing")
        assert told.data.keys() == {"node"}
        assert int(told.data["node"]) >= int(running)
        await client.post("/interrupt", {"prompt_id": prompt_id})
        await back.until_done(prompt_id)
    await back.close()
    assert socket.events(prompt_id) == []


async def test_the_newest_socket_of_a_client_is_the_one(client: Client) -> None:
    """A second socket under one id takes over; the first stays open and hears nothing."""
    client_id = uuid.uuid4().hex
    async with client.socket(client_id) as first, client.socket(client_id) as second:
        run = await client.run(prompts.text(f"second {prompts.fresh()}"), second)
        assert run.kinds[-1] == "executing"
        assert first.events(run.prompt_id) == []


async def test_after_a_takeover_the_first_socket_must_stay(client: Client, socket: Socket, target: Target) -> None:
    """When the first of two sockets of one client closes, ComfyUI forgets the second."""
    client_id = uuid.uuid4().hex
    first = await client.open_socket(client_id)
    async with client.socket(client_id) as second:
        await first.close()
        prompt_id = (await client.submit(prompts.text(f"deaf {prompts.fresh()}"), client_id))["prompt_id"]
        await client.history(prompt_id)
        await client.run(prompts.text("until here"), socket)
        assert second.events(prompt_id) == [] or allowed(target, "hears after a takeover")


async def test_a_preview_arrives_as_an_image(client: Client, socket: Socket) -> None:
    await client.run(await prompts.over_the_socket(client), socket)
    assert [preview.kind for preview in socket.binaries()] == [PREVIEW] * 3
    for preview in socket.binaries():
        (image_format,) = struct.unpack(">I", preview.payload[:4])
        magic = {1: b"\xff\xd8\xff", 2: b"\x89PNG"}[image_format]
        assert preview.payload[4:].startswith(magic)


async def test_a_preview_names_its_node_for_those_who_asked(client: Client, socket: Socket) -> None:
    await socket.send({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
    await socket.until_event("feature_flags")
    run = await client.run(await prompts.over_the_socket(client), socket)
    assert [preview.kind for preview in socket.binaries()] == [PREVIEW_WITH_METADATA] * 3
    head, image = socket.binaries()[0].split()
    metadata = json.loads(head)
    assert image.startswith({"image/jpeg": b"\xff\xd8\xff", "image/png": b"\x89PNG"}[metadata.pop("image_type")])
    assert metadata == {
        "node_id": "2",
        "prompt_id": run.prompt_id,
        "display_node_id": "2",
        "parent_node_id": None,
        "real_node_id": "2",
    }


async def test_previews_come_with_their_progress(client: Client, socket: Socket) -> None:
    run = await client.run(await prompts.over_the_socket(client), socket)
    kinds = [frame.kind for frame in run.frames]
    first = kinds.index("progress") - 1
    assert kinds[first : first + 9] == ["progress_state", "progress", PREVIEW] * 3


async def test_text_of_a_node_goes_to_everybody(client: Client, socket: Socket) -> None:
    """GetImageSize sends a text frame, which ComfyUI broadcasts whoever submitted the prompt."""
    size = node("GetImageSize", image=link("a"))
    made = node("EmptyImage", width=24, height=16, batch_size=2, color=prompts.fresh())
    async with client.socket() as other:
        run = await client.run({"a": made, "the:size": size, "c": node("PreviewAny", source=link("the:size"))}, socket)
        await other.until(lambda _: bool(other.binaries()))
        assert run.outputs["c"] == {"text": ["24"]}
        for listener in (socket, other):
            (text,) = listener.binaries()
            assert text.kind == TEXT
            assert text.split() == (b"the:size", b"width: 24, height: 16\n batch size: 2")


@pytest.mark.parametrize("path", ["/ws", "/api/ws"])
async def test_a_socket_needs_an_upgrade(client: Client, path: str) -> None:
    answer = await client.get(path)
    assert answer.status == 400
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
