"""Binary frames about renamed nodes, in the client's ids; all others as the bytes they came as."""

import json
from collections.abc import Callable, Iterable

import pytest

from normalizer import carry, normalize
from proxy.engine.observer import FrameObserver
from proxy.engine.records import Handling, Record, Records
from proxy.upstream.attachment import Delivery
from proxy.wire.frames import Preview, PreviewWithMetadata, ProgressText
from tests.normalizer.schemas import SCHEMA, text_to_image

OTHER = normalize(text_to_image(ckpt="other.safetensors"), SCHEMA)
SENT = carry(normalize(text_to_image(), SCHEMA), OTHER.chains, SCHEMA).way_back
LOADER = next(iter(SENT.ids))
PIN = SENT.pins[0]


@pytest.fixture
def observe() -> Callable[[bytes], Iterable[Delivery]]:
    """Takes a frame from the socket of a client whose rewritten prompt runs."""
    observer = FrameObserver(
        Records(),
        clock=float,
        on_event=lambda *_: None,
        on_end=lambda *_: None,
        on_status=lambda _: None,
        held_remaining=int,
        clients=tuple,
    )
    observer.running = Record("prompt", Handling.REWRITTEN, way_back=SENT, client_id="client")
    return lambda frame: observer.observe("client", frame)


def preview(node_id: str) -> bytes:
    names = dict.fromkeys(("node_id", "display_node_id", "real_node_id"), node_id)
    return PreviewWithMetadata({**names, "parent_node_id": None, "image_type": "image/jpeg"}, b"\xff\xd8").build()


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (preview(LOADER), preview("4")),
        (preview(f"{LOADER}.0.0.3"), preview("4.0.0.3")),
        (
            ProgressText(LOADER, f"{LOADER} loads \xe4".encode("latin-1")).build(),
            ProgressText("4", b"4 loads \xe4").build(),
        ),
        (
            ProgressText("3", b"." * 5000 + f" node {LOADER}".encode()).build(),
            ProgressText("3", b"." * 5000 + b" node 4").build(),
        ),
    ],
    ids=["preview", "preview of a part", "text", "a long text"],
)
def test_about_a_renamed_node(observe: Callable[[bytes], Iterable[Delivery]], sent: bytes, expected: bytes) -> None:
    assert list(observe(sent)) == [Delivery(expected, "client")]


@pytest.mark.parametrize("frame", [preview(PIN), ProgressText(PIN, b"a").build()], ids=["preview", "text"])
def test_about_a_pin(observe: Callable[[bytes], Iterable[Delivery]], frame: bytes) -> None:
    assert list(observe(frame)) == []


@pytest.mark.parametrize(
    "frame",
    [
        preview("3"),
        ProgressText("3", b"\xff").build(),
        Preview(1, b"\xff\xd8" + LOADER.encode() * 3).build()[:40],
        b"\0\0\0\x04\0\0\0\x07{nojson",
        json.dumps({"no": "frame"}).encode(),
        b"",
    ],
    ids=["preview", "text", "bare preview", "broken metadata", "no frame", "empty"],
)
def test_all_others(observe: Callable[[bytes], Iterable[Delivery]], frame: bytes) -> None:
    (delivery,) = observe(frame)
    assert delivery == Delivery(frame, "client")
